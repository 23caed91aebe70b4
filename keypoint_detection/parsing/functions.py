"""Typed functions as commands: their parameters are the options, their docstrings the help."""

import inspect
import logging
import re
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar, get_args, get_origin

import docstring_parser

from keypoint_detection.parsing.arguments import CONFIG_OPTIONS
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.parsing.help import TRUST_HELP
from keypoint_detection.parsing.internals import let_stand_alone
from keypoint_detection.printing import make_handler

R = TypeVar("R")


def describe(function: Callable[..., object]) -> str:
    """Return the part of a docstring before its first section: the help shows the parameters separately.

    >>> describe(describe)
    'Return the part of a docstring before its first section: the help shows the parameters separately.'
    """
    return re.split(r"\n\n(?:Args|Returns|Raises|>>>)", inspect.getdoc(function) or "")[0]


def call_with_words(
    function: Callable[..., R],
    command: str,
    words: Sequence[str],
    given: Mapping[str, object] = MappingProxyType({}),
    config: str | None = None,
) -> R:
    """Call a function with the options given on a command line.

    Args:
        function: its typed parameters are the options, alongside `--config` for a YAML file of them. Positional-only
            parameters, `def function(file: str, /)`, are given without an option name.
        command: its name on the command line, e.g. `kpd export`.
        words: the options, without the command.
        given: parameters that are not options, and their values.
        config: the help on `--config`, for a command that takes it out of the words itself.

    Raises:
        SystemExit: the words are wrong, or the function cannot use what they name (2).
    """
    parameters = inspect.signature(function).parameters
    bare = [one for one in parameters.values() if one.kind is one.POSITIONAL_ONLY]
    parser = Parser(
        prog=command,
        usage=" ".join([command, *_list_required(function), "[--OPTION=VALUE …]"]),
        description=describe(function),
        epilog=TRUST_HELP if "ckpt_path" in parameters else None,
    )
    if config is None:
        parser.add_argument(*CONFIG_OPTIONS, action="config", help="YAML file with the options below.")
    else:
        parser.add_argument(*CONFIG_OPTIONS, help=config)
    for one in bare:
        _add_bare(parser, one, function)
    parser.add_function_arguments(function, as_group=False, skip={*given, *(one.name for one in bare)})
    for one in parameters.values():
        if one.annotation in (bool, bool | None):
            let_stand_alone(parser, f"--{one.name}")
    logging.basicConfig(level=logging.WARNING, handlers=[make_handler()])
    options = parser.parse_args(list(words)).as_dict()
    options.pop("config")
    bare_values = [options.pop(one.name, one.default) for one in bare]
    try:
        return function(*bare_values, **options, **given)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _list_required(function: Callable[..., object]) -> list[str]:
    """List the arguments in the usage of a command: words without an option, and required options."""
    shown = []
    for one in inspect.signature(function).parameters.values():
        name = one.name.upper()
        if one.kind is one.POSITIONAL_ONLY:
            name += " …" if get_origin(one.annotation) is list else ""
            shown.append(name if one.default is one.empty else f"[{name}]")
        elif one.default is one.empty:
            shown.append(f"--{one.name}={name}")
    return shown


def _add_bare(parser: Parser, parameter: inspect.Parameter, function: Callable[..., object]) -> None:
    """Add a parameter that is given without an option name: one word, or one or more if it is a list."""
    docs = docstring_parser.parse(inspect.getdoc(function) or "").params
    is_list = get_origin(parameter.annotation) is list
    kind = get_args(parameter.annotation)[0] if is_list else parameter.annotation
    about = next(doc.description for doc in docs if doc.arg_name == parameter.name)
    if parameter.default is parameter.empty:
        parser.add_argument(parameter.name, type=kind, nargs="+" if is_list else None, help=about)
    else:
        # Without the default, which argparse would write over the value in a config.
        parser.add_argument(parameter.name, type=kind, nargs="?", default=SUPPRESS, help=about)
