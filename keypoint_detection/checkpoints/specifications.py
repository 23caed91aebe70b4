"""Classes and their arguments as plain values, which a config file and a checkpoint can hold."""

import functools
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def describe_class(cls: type, init_args: Mapping[str, Any]) -> dict[str, Any]:
    """Name a class and its arguments as a config file would."""
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(init_args)}


def canonical_class_path(path: str) -> str:
    """Return the path of a class in the module that defines it, among those it may be imported from.

    A path that leads to no imported module is returned unchanged.

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
