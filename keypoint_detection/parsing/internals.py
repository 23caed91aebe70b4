"""What the package changes or reads inside jsonargparse and Lightning, where there is no public way."""

from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, _typehints

__all__ = [
    "KeepsCheckpointSettings",
    "cluster_environment",
    "command_parsers",
    "drop_arguments_of_old_classes",
    "list_option_strings",
]

_DISCARD = "discard_init_args_on_class_path_change"


def drop_arguments_of_old_classes() -> None:
    """Make a class that replaces another one start from its own defaults.

    jsonargparse keeps those arguments of the old class that the new one also has: SGD would get the weight decay
    that the user chose for AdamW.
    """
    if getattr(_typehints, _DISCARD) is not _discard_all_init_args:
        setattr(_typehints, _DISCARD, _discard_all_init_args)


def _discard_all_init_args(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    if prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        for key in list(prev_val["init_args"].keys()):
            prev_val["init_args"].pop(key)


def list_option_strings(parser: ArgumentParser) -> Iterator[str]:
    """Yield every option of a parser and of its commands."""
    yield from (option for option in parser._option_string_actions if option.startswith("--"))
    subcommands = getattr(parser, "_subcommands_action", None)
    for child in subcommands._name_parser_map.values() if subcommands is not None else ():
        yield from list_option_strings(child)


class KeepsCheckpointSettings:
    """A LightningCLI that applies the settings of a checkpoint itself.

    Lightning lets them override what the user sets.
    """

    def _parse_ckpt_path(self) -> None:
        """Do nothing."""


def command_parsers(cli: Any) -> dict[str, Any]:
    """Return the parser of each command of a LightningCLI."""
    parsers: dict[str, Any] = cli._subcommand_parsers
    return parsers


def cluster_environment(trainer: Any) -> object:
    """Return what a Trainer knows about the cluster that it runs on; not every strategy makes this public."""
    environment: object = trainer._accelerator_connector.cluster_environment
    return environment
