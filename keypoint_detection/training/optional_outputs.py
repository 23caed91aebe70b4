"""Let training continue if an output other than a checkpoint cannot be written, e.g. because the disk is full."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

logger = logging.getLogger(__name__)

# The outputs that each run has already warned of.
_warned: WeakKeyDictionary[Trainer, set[str]] = WeakKeyDictionary()
LOGGER_METHODS = ("log_metrics", "log_hyperparams", "save", "finalize")


@contextmanager
def optional_output(trainer: Trainer, what: str) -> Iterator[None]:
    """Let training continue if something cannot be written, and report that once.

    Separate measurements do fail: their output is their purpose.

    Args:
        trainer: what runs.
        what: what is written, in the plural, for the message.
    """
    try:
        yield
    except OSError as error:
        if trainer.state.fn != "fit":
            raise
        warned = _warned.setdefault(trainer, set())
        if what not in warned:
            place = f" ({error.filename})" if error.filename else ""
            logger.warning("No %s%s: %s. Training continues.", what, place, error.strerror or error)
        warned.add(what)


def let_loggers_fail(trainer: Trainer) -> None:
    """Let training continue if its loggers cannot write their files."""
    for one in trainer.loggers:
        for name in LOGGER_METHODS:
            setattr(one, name, _optional(trainer, one, getattr(one, name)))


def _optional(trainer: Trainer, one: Logger, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with optional_output(trainer, f"further entries of {type(one).__name__}"):
            return method(*args, **kwargs)

    return call
