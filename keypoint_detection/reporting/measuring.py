"""The base of callbacks for `kpd validate` and `kpd test`, but not for the validations during training."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.types import Batch


def find_report(pl_module: LightningModule) -> EvaluationReport | None:
    """Return the latest report of a detector; None before its first measurement."""
    report = getattr(pl_module, "report", None)
    return report if isinstance(report, EvaluationReport) else None


def replace_report(pl_module: LightningModule, report: EvaluationReport) -> None:
    """Replace a detector's latest report with an extended one, e.g. with intervals, for the callbacks that follow."""
    pl_module.report = report  # type: ignore[assignment]


def is_flip_averaged(pl_module: LightningModule) -> bool:
    """Return whether a detector averages its heatmaps with those of mirrored images, see `model.flip_test`."""
    return getattr(getattr(pl_module, "network", None), "mirrored_channels", None) is not None


def measured_part(trainer: Trainer) -> str:
    """Return the part of the data that is measured: `val` or `test`."""
    return "test" if trainer.state.fn == "test" else "val"


def find_image_names(trainer: Trainer, image_ids: list[int]) -> dict[int, str]:
    """Return the files of some of the measured images by id; empty for a user's own batches."""
    data = getattr(trainer, "datamodule", None)
    return data.image_names(measured_part(trainer), image_ids) if isinstance(data, KeypointsDataModule) else {}


def count_replaced_images(trainer: Trainer) -> int:
    """Count the unreadable training images that others replaced; every process must take part."""
    data = getattr(trainer, "datamodule", None)
    replaced = set(data.failures.get("train", ())) if isinstance(data, KeypointsDataModule) else set()
    if trainer.world_size > 1:
        parts: list[set[int]] = [set() for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, replaced)
        replaced = set().union(*parts)
    return len(replaced)


def find_image_files(trainer: Trainer, image_ids: list[int]) -> dict[int, str]:
    """Return the paths of some of the measured images by id; empty for a user's own batches."""
    data = getattr(trainer, "datamodule", None)
    return data.image_files(measured_part(trainer), image_ids) if isinstance(data, KeypointsDataModule) else {}


class MeasuringCallback(Callback):
    """Process every batch of a measurement and its end; subclasses define how."""

    def on_measured_batch(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch) -> None:
        """Process a batch.

        Args:
            trainer: the trainer.
            pl_module: the detector.
            outputs: its `Predictions`.
            batch: the images and their ground truth.
        """

    def on_measured(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Process the whole result, in every process."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Process a batch, but only in a separate validation."""
        if trainer.state.fn == "validate":
            self.on_measured_batch(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Process a batch."""
        self.on_measured_batch(trainer, pl_module, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Process the whole result of `kpd validate`."""
        if trainer.state.fn == "validate":
            self.on_measured(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Process the whole result of `kpd test`."""
        self.on_measured(trainer, pl_module)
