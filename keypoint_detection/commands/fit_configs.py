"""The options of `kpd fit` that determine what training reads, for commands that examine its data."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keypoint_detection.data.checks.audit import DataDescription
from keypoint_detection.data.checks.parts import Requirements
from keypoint_detection.documents import refuse_special_file
from keypoint_detection.parsing.arguments import (
    CONFIG_OPTIONS,
    ConfigWord,
    find_configs,
    find_wrong_sections,
    prepare_words,
    refuse_labels,
)
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.types import DataError

if TYPE_CHECKING:
    from keypoint_detection.data.datamodule import KeypointsDataModule

# The options of `kpd fit`, and sections of them.
FIT_OPTIONS = (*CONFIG_OPTIONS, "--data", "--model", "--trainer", "--seed_everything", "--ckpt_path")
# The options of the model that concern its data.
MODEL_OPTIONS = ("channels", "max_keypoints", "min_distance_px")


def split_fit_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of a command itself and the options of `kpd fit`, each joined with its value.

    >>> split_fit_words(["train.json", "--config", "a.yaml", "--data.fold=1", "--json"])
    (['train.json', '--json'], ['--config=a.yaml', '--data.fold=1'])
    """
    own, of_fit = [], []
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name.split(".")[0] not in FIT_OPTIONS:
            own.append(word)
        elif equals:
            of_fit.append(word)
        else:
            of_fit.append(f"{CONFIG_OPTIONS[-1] if name in CONFIG_OPTIONS else name}={next(rest, '')}")
    return own, of_fit


def _add_data_options(parser: Parser) -> None:
    """Add `--config`, all options of the data and those of the model that concern it; loads Lightning."""
    # Registers how the arguments of torchvision's transforms are read.
    import keypoint_detection.commands.detector_cli  # noqa: F401
    from keypoint_detection.data.datamodule import KeypointsDataModule
    from keypoint_detection.detector import KeypointDetector

    parser.add_argument(*CONFIG_OPTIONS, action="config")
    parser.add_class_arguments(KeypointsDataModule, "data", skip={"channels"})
    others = set(inspect.signature(KeypointDetector).parameters) - set(MODEL_OPTIONS)
    parser.add_class_arguments(KeypointDetector, "model", skip=others, instantiate=False)


def _keep_data_words(words: Sequence[str]) -> list[str]:
    """Drop what does not concern the data from flags and config files, so that those of `kpd fit` can be used.

    Raises:
        DataError: a config cannot be read.
    """
    prepared = prepare_words(words)
    configs = find_configs(prepared)
    return [
        config.prefix + _read_config(config) if (config := configs.get(position)) else word
        for position, word in enumerate(prepared)
        if position in configs or not _is_of_training(word)
    ]


def _is_of_training(word: str) -> bool:
    """Whether a flag `--name=value` is for the trainer, or for a part of the model unrelated to the data."""
    from keypoint_detection.detector import KeypointDetector

    name = word.partition("=")[0]
    if not name.startswith(("--data", "--model")):
        return True
    option = name.removeprefix("--model.").split(".")[0]
    return (
        name.startswith("--model.")
        and option in inspect.signature(KeypointDetector).parameters
        and option not in MODEL_OPTIONS
    )


def _read_config(config: ConfigWord) -> str:
    """Return the sections of a config that concern the data, as text."""
    if not config.is_text:
        refuse_special_file(Path(config.source), "a config of `kpd fit` (YAML)")
    try:
        content = config.read()
    except (OSError, ValueError) as error:
        raise DataError(f"--config: {config.source[:80]!r} cannot be read as a YAML file ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"--config: {config.source[:80]!r} contains no settings; a config of `kpd fit` is expected.")
    refuse_labels(config, content)
    if wrong := find_wrong_sections(config, yaml.compose(config.read_text()), ("data", "model")):
        source = "--config" if config.is_text else config.source
        raise DataError("\n".join(f"{source}, {one}" for one in wrong))
    sections: dict[str, Any] = {}
    if isinstance(content.get("data"), dict):
        sections["data"] = content["data"]
    if isinstance(content.get("model"), dict):
        sections["model"] = {name: value for name, value in content["model"].items() if name in MODEL_OPTIONS}
    return yaml.safe_dump(sections, sort_keys=False) + "\n"


def read_fit_words(
    command: str, words: Sequence[str], file: str | None
) -> "tuple[DataDescription, KeypointsDataModule]":
    """Describe what training with these options would read.

    Args:
        command: the command that the words belong to, for errors.
        words: options of `kpd fit`.
        file: the file to train on, if it is given separately.

    Raises:
        SystemExit: the words are wrong (2).
        DataError: no file is given, or options contradict each other.
    """
    from keypoint_detection.data.label_files import find_files

    parser = Parser(prog=command)
    _add_data_options(parser)
    options = parser.parse_args(_keep_data_words(words))
    data: KeypointsDataModule = parser.instantiate_classes(options).data
    if file is not None:
        if data.train or data.synthetic:
            raise DataError(f"both {file!r} and data.train or data.synthetic are given; leave one of them out.")
        data.train = file
    data.prepare_data()
    files = find_files(data.train, data.val, data.test, data.synthetic)
    named = {name: path for name, path in files._asdict().items() if path is not None}
    if not named:
        raise DataError("nothing to check: data.train, data.val and data.test are all left out.")
    requirements = Requirements(
        data.image_size,
        data.resize,
        data.visible_only,
        None if options.model.max_keypoints is None else int(options.model.max_keypoints),
        float(options.model.min_distance_px),
    )
    description = DataDescription(
        named,
        data.image_root,
        data.coordinates,
        data.categories,
        options.model.channels,
        requirements,
        split=data.split_options if "train" in named and "val" not in named and file is None else None,
        missing_images=data.missing_images,
        outside_images=data.outside_images,
    )
    return description, data
