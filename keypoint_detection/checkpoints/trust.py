"""Which classes the settings in a file may name: a checkpoint can come from anybody, not only from its user.

A stored setting may name a subclass of one of `BASES` that Python has already imported or that is in one of `PACKAGES`.
Anything else it names is neither imported nor called, unless the user names it too or trusts its module.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from typing import Any

from keypoint_detection.types import DataError

# The option of every command that names a module of the user's own.
TRUST_OPTION = "--trust"
# The base classes of everything that makes up a detector and its training. Creating an instance of one of their
# subclasses runs nothing else.
BASES = (
    "keypoint_detection.models.backbones.backbone.Backbone",
    "keypoint_detection.boxes.data_set.SyntheticBoxes",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "torch.nn.modules.module.Module",
    "lightning.pytorch.callbacks.callback.Callback",
    "lightning.pytorch.loggers.logger.Logger",
    "lightning.pytorch.accelerators.accelerator.Accelerator",
    "lightning.pytorch.strategies.strategy.Strategy",
    "lightning.pytorch.profilers.profiler.Profiler",
    "lightning.pytorch.plugins.precision.precision.Precision",
    "lightning.pytorch.plugins.layer_sync.LayerSync",
    "lightning.fabric.plugins.environments.cluster_environment.ClusterEnvironment",
    "lightning.fabric.plugins.io.checkpoint_io.CheckpointIO",
)
# Where those subclasses are; importing these packages does nothing but define them.
PACKAGES = (
    "keypoint_detection.models",
    "keypoint_detection.data",
    "keypoint_detection.boxes",
    "keypoint_detection.reporting",
    "keypoint_detection.training",
    "torch.nn",
    "torch.optim",
    "torchvision.transforms.v2",
    "timm.layers",
    "timm.optim",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.cli",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.fabric.plugins",
)
# New modules of callbacks that have moved, by the names that older runs saved.
MOVED = {
    f"keypoint_detection.callbacks.{old}": f"keypoint_detection.{new}"
    for old, new in {
        "checkpointing": "training.checkpointing",
        "html_report": "reporting.html_report",
        "overlays": "reporting.logged_overlays",
        "result_table": "reporting.result_table",
    }.items()
}
# The settings whose values name classes, singly or in lists.
CLASS_SETTINGS = {
    *("backbone", "optimizer", "lr_scheduler", "augmentation", "synthetic"),
    *("accelerator", "callbacks", "logger", "plugins", "profiler", "strategy"),
}
NOT_A_KIND = (
    "which is not a class that a detector is made of. Nothing else that a checkpoint names is imported or called: do "
    "not use this file unless its author can explain the name."
)


class UntrustedError(DataError, ImportError):
    """A stored setting names something that kpd does not import or call.

    An ImportError, as jsonargparse expects for a failed import.
    """


@dataclass
class Trust:
    """What a stored setting may have imported, beyond the classes that a detector is made of.

    Attributes:
        modules: names of modules that the user trusts, with everything below them.
        names: dotted names in the user's own arguments.
        is_vetting: whether settings that are not the user's are being parsed.
        refused: names that were not imported.
    """

    modules: tuple[str, ...] = ()
    names: set[str] = field(default_factory=set)
    is_vetting: bool = False
    refused: list[str] = field(default_factory=list)

    def covers(self, name: str) -> bool:
        """Whether the user named something or trusts its module."""
        return name in self.names or _is_below(name, self.modules)


_trust: ContextVar[Trust] = ContextVar("trust")


def current_trust() -> Trust:
    """Return what is trusted at present: outside `trusting`, only the classes that a detector is made of."""
    return _trust.get(Trust())


@contextmanager
def trusting(modules: Iterable[str], *, is_vetting: bool = False) -> Iterator[Trust]:
    """Trust more modules temporarily.

    Args:
        modules: their names.
        is_vetting: see `Trust`.
    """
    trust = Trust((*current_trust().modules, *modules), set(current_trust().names), is_vetting)
    token = _trust.set(trust)
    try:
        yield trust
    finally:
        _trust.reset(token)


def refuse_untrusted(settings: Mapping[str, Any], source: str) -> None:
    """Refuse stored settings that name anything but classes that a detector is made of; imports nothing.

    Args:
        settings: plain values by name, possibly nested.
        source: the file that they are from.

    Raises:
        UntrustedError: naming the first such class, and what to do if the user trusts it.
    """
    for place, name in _named_classes(settings, ()):
        if (reason := _reason_against(name)) is not None:
            raise UntrustedError(f"{source}: its setting {'.'.join(place)} names {name}, {reason}")


def trust_words(settings: Mapping[str, Any]) -> str:
    """Return the options, each after a space, that let a command use the classes that settings name.

    >>> trust_words({"backbone": {"class_path": "mine.Net"}, "optimizer": {"class_path": "torch.optim.SGD"}})
    ' --trust=mine'
    """
    modules = [name.rpartition(".")[0] for _, name in _named_classes(settings, ())]
    ours = {package.partition(".")[0] for package in PACKAGES}
    own = dict.fromkeys(module for module in modules if module and module.partition(".")[0] not in ours)
    return "".join(f" {TRUST_OPTION}={module}" for module in own)


def explain_refusal(name: str) -> str:
    """Explain why a stored setting may not name a class, and how to fix it."""
    return f"a stored setting names {name}, {_reason_against(name) or NOT_A_KIND}"


def find_class(name: str) -> type:
    """Import a class that a stored setting names.

    Raises:
        UntrustedError: it may not be imported, or does not exist.
    """
    if (reason := _reason_against(name)) is not None:
        raise UntrustedError(f"{name} is {reason.removeprefix('which is ')}")
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(_import_module(module), attribute, None)
    except ImportError as error:
        raise UntrustedError(
            f"{name} cannot be imported: {error}. Run from the folder of that module, or add the folder to PYTHONPATH."
        ) from error
    if not isinstance(found, type):
        raise UntrustedError(f"there is no class {name}.")
    if not (current_trust().covers(name) or _is_of_a_kind(found)):
        raise UntrustedError(f"{name} is not a class that a detector is made of.")
    return found


def import_named(name: str, import_freely: Callable[[str], Any]) -> Any:
    """Import what a setting names: the user's or, while stored settings are being vetted, a stored one.

    Args:
        name: a dotted name.
        import_freely: imports any name without checks.

    Raises:
        UntrustedError: the setting is a stored one that may not name this.
    """
    trust, name = current_trust(), _present_name(name)
    if "." not in name:
        return import_freely(name)  # an error, since it has no module
    if not trust.is_vetting or trust.covers(name):
        _add_working_folder(name)
        return import_freely(name)
    try:
        return find_class(name)
    except UntrustedError:
        trust.refused.append(name)
        raise


def _named_classes(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the places and names of classes, and of functions among their arguments."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield place, str(value["class_path"])
        for key, entry in value.items():
            if key != "class_path":
                yield from _named_classes(entry, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _named_classes(entry, place)
    elif isinstance(value, str) and _is_dotted(value):
        is_class = bool(place) and place[-1] in CLASS_SETTINGS and "init_args" not in place
        if is_class or ("init_args" in place and callable(_loaded(value))):
            yield place, value


def _reason_against(name: str) -> str | None:
    """Explain why a stored setting may not name this, and how to fix it; None if it may. Imports nothing."""
    name = _present_name(name)
    module = name.rpartition(".")[0]
    if not module or current_trust().covers(name):
        return None  # a short name stands for a class that is imported
    if module in sys.modules:
        found = _loaded(name)
        if isinstance(found, type) and _is_of_a_kind(found):
            return None
    elif _is_below(module, PACKAGES) and _may_exist(module):
        return None
    root = module.partition(".")[0]
    if module in sys.modules or root in sys.stdlib_module_names or _is_below(module, PACKAGES):
        return NOT_A_KIND
    return (
        "which is not part of kpd, torch, torchvision, timm or Lightning, so it was not imported. If you trust that "
        f"code, add {TRUST_OPTION}={module}; in Python, import {module} first."
    )


def _present_name(name: str) -> str:
    """Return the name that a class of an older version has now."""
    module, _, attribute = name.rpartition(".")
    return f"{MOVED[module]}.{attribute}" if module in MOVED else name


def _is_dotted(text: str) -> bool:
    """Whether Python would accept a text as the name of something in a module."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def _may_exist(module: str) -> bool:
    """Whether a module not yet imported can exist: other contents of imported modules are not modules."""
    parent = module.rpartition(".")[0]
    return hasattr(sys.modules[parent], "__path__") if parent in sys.modules else not parent or _may_exist(parent)


def _loaded(name: str) -> Any:
    """Return what an imported module defines under a dotted name; None if there is nothing."""
    module, _, attribute = name.rpartition(".")
    # Not `getattr`: accessing an attribute makes some modules import others.
    return vars(sys.modules[module]).get(attribute) if module in sys.modules else None


def _is_of_a_kind(cls: type) -> bool:
    """Whether a class is one that a detector is made of; bases that were never imported have no subclasses."""
    bases = tuple(base for name in BASES if isinstance(base := _loaded(name), type))
    return issubclass(cls, bases)


def _is_below(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _import_module(name: str) -> Any:
    if current_trust().covers(name):
        _add_working_folder(name)
    return importlib.import_module(name)


def _add_working_folder(name: str) -> None:
    """Also look in the working folder for a module of the user's own."""
    root, folder = name.partition(".")[0], os.getcwd()
    is_missing = root not in sys.modules and importlib.util.find_spec(root) is None
    if is_missing and folder not in sys.path and PathFinder.find_spec(root, [folder]) is not None:
        sys.path.append(folder)
