"""Classes and their arguments as plain values, which a config file and a checkpoint can hold."""

import functools
import logging
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import PurePath
from typing import Any

logger = logging.getLogger(__name__)


def describe_class(cls: type, init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Name a class and its arguments as a config file would."""
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(init_args)}


def canonical_class_path(path: str) -> str:
    """Return the path of a class in the module that defines it, of all paths it can be imported from.

    A path outside all imported modules is returned unchanged.

    >>> import json
    >>> canonical_class_path("json.JSONDecoder")
    'json.decoder.JSONDecoder'
    """
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else path


def describe_factory(factory: object) -> str | dict[str, Any] | None:
    """Name a factory as a config file would: a plain choice, a class, or a class with arguments; None if impossible."""
    if isinstance(factory, str):
        return factory
    if isinstance(factory, functools.partial):
        # jsonargparse returns a partial of its own function, with the class as the last argument.
        cls = ([factory.func, *factory.args])[-1]
        return describe_class(cls, factory.keywords) if isinstance(cls, type) else None
    return describe_class(factory, {}) if isinstance(factory, type) else None


def is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold a value: numbers, strings, and lists and mappings of them."""
    if isinstance(value, dict):
        return all(is_plain(entry) for entry in value.values())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def as_plain(value: Any) -> Any:
    """Turn the parser's restricted numbers and paths, which a checkpoint cannot hold, into ordinary values."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {key: as_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(entry) for entry in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def make_plain(settings: MutableMapping[str, Any], backbone: Any, factories: Mapping[str, object]) -> list[str]:
    """Make settings given in Python storable in a checkpoint, and warn of those that are lost.

    Args:
        settings: by name; changed in place.
        backbone: the network among them, with its `init_args`.
        factories: factories of parts of the detector, by name.

    Returns:
        The names of factories that a checkpoint cannot hold.
    """
    settings["backbone"] = describe_class(type(backbone), backbone.init_args)
    described = {name: describe_factory(factory) for name, factory in factories.items()}
    lost = [name for name, specification in described.items() if specification is None]
    for name in lost:
        logger.warning("A checkpoint cannot hold %s; a detector loaded from it gets the default.", name)
    settings.update({name: one for name, one in described.items() if one is not None})
    settings.update({name: as_plain(value) for name, value in settings.items() if name not in lost})
    arguments = settings["backbone"]["init_args"]
    for name in [name for name, value in arguments.items() if not is_plain(value)]:
        logger.warning(
            "The argument %s of the backbone is a %s, which a checkpoint cannot hold: a detector loaded from one "
            "gets the argument's default. Pass the backbone names and numbers from which it can build its parts.",
            name,
            type(arguments.pop(name)).__name__,
        )
    return lost
