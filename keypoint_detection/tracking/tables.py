"""Tables and artifacts of Weights & Biases, which need the server; metrics and images do not."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

__all__ = ["going_on_without_server", "log_table", "wandb_loggers"]

logger = logging.getLogger(__name__)


def wandb_loggers(trainer: Trainer) -> list[WandbLogger]:
    """List the loggers of a trainer that write to Weights & Biases."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


@contextmanager
def going_on_without_server(what: str) -> Iterator[None]:
    """Turn an unreachable server into a warning, so that a finished training does not fail because of it.

    Args:
        what: what could not be sent, for the warning.
    """
    from wandb.errors import Error

    try:
        yield
    except Error as error:
        logger.warning("Weights & Biases: %s could not be sent (%s).", what, str(error).strip().splitlines()[0])


def log_table(wandb_logger: WandbLogger, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table, or warn if the server does not answer.

    Args:
        wandb_logger: whose run gets the table.
        key: the table's name in the run.
        columns: the headings.
        rows: numbers, strings and images; each as long as `columns`. NaN becomes an empty cell.
    """
    with going_on_without_server(f"the table {key}"):
        wandb_logger.log_table(key, columns=list(columns), data=[[_as_cell(value) for value in row] for row in rows])


def _as_cell(value: Any) -> Any:
    if isinstance(value, Image.Image):
        import wandb

        return wandb.Image(value, file_type="jpg")
    return None if isinstance(value, float) and math.isnan(value) else value
