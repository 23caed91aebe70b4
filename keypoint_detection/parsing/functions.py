"""Typed functions as commands: their parameters are the options, their docstrings the help."""

import inspect
import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from keypoint_detection.parsing.errors import Parser
from keypoint_detection.parsing.help import TRUST_HELP
from keypoint_detection.printing import make_handler

R = TypeVar("R")


def describe(function: Callable[..., object]) -> str:
    """Return what a docstring says before its first section: the help shows the parameters by themselves.

    >>> describe(describe)
    'Return what a docstring says before its first section: the help shows the parameters by themselves.'
    """
    return re.split(r"\n\n(?:Args|Returns|Raises|>>>)", inspect.getdoc(function) or "")[0]


def call_with_words(
    function: Callable[..., R], command: str, words: Sequence[str], positional: tuple[str, str] | None = None
) -> R:
    """Call a function with the options given on a command line.

    Args:
        function: its typed parameters are the options, alongside `--config` for a YAML file of them.
        command: its name on the command line, e.g. `kpd export`.
        words: the options, without the command.
        positional: the parameter that takes the words without an option, one or more, and its help.

    Raises:
        SystemExit: the words are wrong, or the function cannot use what they name (2).
    """
    reads_checkpoints = "ckpt_path" in inspect.signature(function).parameters
    required = [name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty]
    # `kpd convert` takes its source without the name of the option.
    bare = ("source", positional[0] if positional else "")
    shown = [name.upper() if name in bare else f"--{name}={name.upper()}" for name in required]
    usage = " ".join([command, *shown, "[--OPTION=VALUE …]"])
    parser = Parser(
        prog=command, usage=usage, description=describe(function), epilog=TRUST_HELP if reads_checkpoints else None
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file with the options below.")
    if positional is not None:
        parser.add_argument(positional[0], nargs="+", help=positional[1])
    parser.add_function_arguments(function, as_group=False, skip=set() if positional is None else {positional[0]})
    logging.basicConfig(level=logging.WARNING, handlers=[make_handler()])
    options = parser.parse_args(list(words)).as_dict()
    options.pop("config")
    try:
        return function(**options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
