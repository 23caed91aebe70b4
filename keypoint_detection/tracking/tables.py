"""Log tables to Weights & Biases."""

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from keypoint_detection.tracking.guarded_logger import going_on


def wandb_loggers(trainer: Trainer) -> list[WandbLogger]:
    """List the loggers of a trainer that write to Weights & Biases."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def log_table(wandb_logger: WandbLogger, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table.

    Args:
        wandb_logger: logger whose run gets the table.
        key: the table's name in the run.
        columns: the headings.
        rows: numbers, strings and images; each as long as `columns`. NaN becomes an empty cell.
    """
    with going_on(wandb_logger, f"the table {key}"):
        wandb_logger.log_table(key, columns=list(columns), data=[[_as_cell(value) for value in row] for row in rows])


def _as_cell(value: Any) -> Any:
    if isinstance(value, Image.Image):
        import wandb

        return wandb.Image(value, file_type="jpg")
    return None if isinstance(value, float) and math.isnan(value) else value
