"""What the package changes or reads inside jsonargparse, where there is no public way to."""

from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, _typehints

__all__ = ["drop_arguments_of_old_classes", "list_option_strings"]

_DISCARD = "discard_init_args_on_class_path_change"


def drop_arguments_of_old_classes() -> None:
    """Let a class that takes the place of another one start from its own defaults.

    jsonargparse keeps those arguments of the old class that the new one has too: SGD would be given the weight decay
    that somebody chose for AdamW.
    """
    if getattr(_typehints, _DISCARD) is not _discard_all_init_args:
        setattr(_typehints, _DISCARD, _discard_all_init_args)


def _discard_all_init_args(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    if prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        for key in list(prev_val["init_args"].keys()):
            prev_val["init_args"].pop(key)


def list_option_strings(parser: ArgumentParser) -> Iterator[str]:
    """Give every option of a parser and of its commands."""
    yield from (option for option in parser._option_string_actions if option.startswith("--"))
    subcommands = getattr(parser, "_subcommands_action", None)
    for child in subcommands._name_parser_map.values() if subcommands is not None else ():
        yield from list_option_strings(child)
