"""Tables and artifacts of Weights & Biases, which need the server where metrics and images do not."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

__all__ = ["going_on_without_server", "log_table", "wandb_loggers"]

logger = logging.getLogger(__name__)


def wandb_loggers(trainer: Trainer) -> list[WandbLogger]:
    """List the loggers of a trainer that write to Weights & Biases."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


@contextmanager
def going_on_without_server(what: str) -> Iterator[None]:
    """Turn a server that cannot be reached into a warning: a finished training is not to fail over it.

    Args:
        what: is not sent then, for the warning.
    """
    from wandb.errors import Error

    try:
        yield
    except Error as error:
        logger.warning("Weights & Biases: %s could not be sent (%s).", what, str(error).strip().splitlines()[0])


def log_table(wandb_logger: WandbLogger, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table, or warn where the server does not answer.

    Args:
        wandb_logger: whose run gets the table.
        key: the table's name in the run.
        columns: the headings.
        rows: numbers, texts and images of Weights & Biases; as long as `columns`.
    """
    with going_on_without_server(f"the table {key}"):
        wandb_logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
