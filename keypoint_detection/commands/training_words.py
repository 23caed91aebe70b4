"""The arguments of `kpd fit`, `validate`, `test` and `predict` before they are parsed, and the checkpoint they name."""

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from keypoint_detection.checkpoints.files import CONFIG_FILE
from keypoint_detection.checkpoints.trust import current_trust
from keypoint_detection.parsing.arguments import (
    ENVIRONMENT_PREFIX,
    find_checkpoint_path,
    find_class_names,
    find_configs,
    find_texts,
    find_unknown_keys,
    gives_config,
    prepare_words,
    refuse_broken_configs,
    variables_as_words,
)
from keypoint_detection.parsing.errors import ShortErrors
from keypoint_detection.parsing.internals import list_option_strings
from keypoint_detection.training.resuming import Stored, read_stored

logger = logging.getLogger(__name__)

# A second name of `--output.resume`.
RESUME = "--resume"


class Request(NamedTuple):
    """What a command was asked to do.

    Attributes:
        words: what the parser reads.
        texts: the texts that the user wrote, each with its option.
        stored: the checkpoint to resume or to measure.
    """

    words: list[str]
    texts: Collection[tuple[str, str]]
    stored: Stored | None


def read_request(parser: ShortErrors, command: str, typed: Sequence[str]) -> Request:
    """Check the words of a command, and make the settings of the checkpoint that they name the parser's defaults.

    Args:
        parser: that of the command.
        command: its name.
        typed: the words after it.

    Raises:
        SystemExit: the words or the checkpoint are wrong (2).
    """
    options = set(list_option_strings(parser))
    # The parser only reads the environment variable of an option's first name.
    words = [*variables_as_words(command, options - {RESUME}, os.environ), *prepare_words(typed)]
    try:
        refuse_broken_configs(words)
    except ValueError as error:
        parser.error(str(error))
    if unknown := find_unknown_keys(words, options):
        parser.error("\n".join(unknown))
    current_trust().names.update(find_class_names(words, os.environ))
    stored = _read_checkpoint(parser, command, words, options)
    return Request(words, {*find_texts(words, os.environ)}, stored)


def warn_of_lost_settings(stored: Stored, words: Sequence[str]) -> None:
    """Warn that a run is resumed without its settings, unless the words name a config."""
    if stored.run is None and not gives_config(words):
        logger.warning(
            "%s is not in the checkpoints/ folder of a run with its %s: settings not given here, such as seed, "
            "length or logger, take their defaults, and the run gets a new folder. To resume with the same settings, "
            "give the %s of its run with --config.",
            *(stored.path, CONFIG_FILE, CONFIG_FILE),
        )


def _read_checkpoint(
    parser: ShortErrors, command: str, words: Sequence[str], options: Collection[str]
) -> Stored | None:
    """Read the checkpoint that the words name; its settings rank below everything that the user sets."""
    reference = find_checkpoint_path(words)
    if reference is None:
        reference = os.environ.get(f"{ENVIRONMENT_PREFIX}_{command}__CKPT_PATH".upper())
    if reference is None:
        if command != "fit" and not _asks_for_help(words):
            parser.error(
                f"`kpd {command}` needs a trained detector: give --ckpt_path=FILE.ckpt, e.g. "
                "runs/…/checkpoints/best.ckpt. Without one, it would measure random weights."
            )
        return None
    try:
        stored = read_stored(command, reference, lambda config: _is_given(config, words))
        stored.refuse_unknown(options)
        parser.set_defaults(stored.settings)
    except ValueError as error:
        parser.error(f"--ckpt_path: {error}")
    return stored


def _is_given(config: Path, words: Sequence[str]) -> bool:
    """Whether the user gives a config of their own."""
    return os.path.realpath(config) in {os.path.realpath(one.source) for one in find_configs(words).values()}


def _asks_for_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") or word.startswith("--print_config") or ".help" in word for word in words)
