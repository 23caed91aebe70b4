"""Pictures of the same few validation images over time, as PNG files and in the logger."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from keypoint_detection.callbacks.run_folder import find_run_folder
from keypoint_detection.drawing import draw_prediction
from keypoint_detection.types import Batch

__all__ = ["PredictionOverlays"]


class PredictionOverlays(Callback):
    """Draw predicted heatmaps, predicted and true points of the first validation pictures.

    They are written to `overlays/` in the run's folder and sent to Weights & Biases or TensorBoard, after epochs 1, 2,
    4, 8, … and the last one, so that a long run stays small.

    Args:
        n_images: how many pictures.
        min_score: predictions that score less are not drawn.
    """

    def __init__(self, n_images: PositiveInt = 4, min_score: ClosedUnitInterval = 0.1) -> None:
        self.n_images = n_images
        self.min_score = float(min_score)
        self.latest: list[Path] = []
        self._pending: list[tuple[int, Image.Image]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the pictures of the batch that are still wanted."""
        n_wanted = self.n_images - len(self._pending)
        if not trainer.is_global_zero or n_wanted <= 0 or not self._is_due(trainer):
            return
        for index in range(min(n_wanted, len(batch.images))):
            channels = list(pl_module.channels)  # type: ignore[arg-type]
            picture = draw_prediction(outputs, batch, index, channels, self.min_score)
            self._pending.append((int(batch.image_ids[index]), picture))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log what was drawn."""
        pictures, self._pending = self._pending, []
        if not pictures:
            return
        folder = find_run_folder(trainer) / "overlays"
        folder.mkdir(parents=True, exist_ok=True)
        self.latest = []
        for image_id, picture in pictures:
            path = folder / f"epoch-{trainer.current_epoch + 1:04d}-image-{image_id}.png"
            picture.save(path)
            self.latest.append(path)
        for logger in trainer.loggers:
            # The step that Lightning gives to the metrics of a validation.
            _log_pictures(logger, pictures, max(0, trainer.global_step - 1))

    @staticmethod
    def _is_due(trainer: Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        epoch = trainer.current_epoch + 1
        is_power_of_two = epoch & (epoch - 1) == 0
        return is_power_of_two or epoch == trainer.max_epochs or trainer.state.fn != "fit"


def _log_pictures(logger: Logger, pictures: list[tuple[int, Image.Image]], step: int) -> None:
    """Send pictures to a logger that can hold them; the others have the files."""
    if isinstance(logger, WandbLogger):
        images = [picture for _, picture in pictures]
        captions = [f"image {image_id}" for image_id, _ in pictures]
        # A tenth of the size of PNG: a long run stays small.
        logger.log_image("val/overlays", images, step=step, caption=captions, file_type=["jpg"] * len(images))
    elif isinstance(logger, TensorBoardLogger):
        for image_id, picture in pictures:
            logger.experiment.add_image(f"val/overlays/{image_id}", _to_tensor(picture), step)


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
