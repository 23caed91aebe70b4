"""Draw overlays of the same few validation images over time, as PNG files and in the logger."""

from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image

from keypoint_detection.drawing import DRAWN_SCORE, Drawable
from keypoint_detection.reporting.measuring import find_image_files
from keypoint_detection.tracking.logged_images import log_images
from keypoint_detection.training.optional_outputs import optional_output
from keypoint_detection.training.run_folder import find_run_folder
from keypoint_detection.types import Batch

# Larger images are shrunk to this size, since they are drawn repeatedly.
MAX_SIDE_PX = 1000


class PredictionOverlays(Callback):
    """Draw predicted heatmaps and predicted and true points on the first validation images.

    They are written to `overlays/` in the run folder and sent to Weights & Biases or TensorBoard, after validations 1,
    2, 4, 8, … and the last one, so that a long run stays small.

    Args:
        n_images: how many images.
        min_score: predictions with lower scores are not drawn.
    """

    def __init__(self, n_images: PositiveInt = 4, min_score: ClosedUnitInterval = DRAWN_SCORE) -> None:
        self.n_images = n_images
        self.min_score = float(min_score)
        self.latest: list[Path] = []
        self._pending: list[tuple[int, Drawable]] = []
        self._n_validations = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the images of the batch that are still needed."""
        n_wanted = self.n_images - len(self._pending)
        if not trainer.is_global_zero or n_wanted <= 0 or not self._is_due(trainer):
            return
        for index in range(min(n_wanted, len(batch.images))):
            self._pending.append((int(batch.image_ids[index]), Drawable.of_batch(outputs, batch, index)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log the drawings."""
        self._n_validations += not trainer.sanity_checking
        pending, self._pending = self._pending, []
        if pending:
            with optional_output(trainer, "overlays"):
                files = find_image_files(trainer, [image_id for image_id, _ in pending])
                channels = list(pl_module.channels)  # type: ignore[arg-type]
                overlays = [
                    (image_id, image.draw_file(files.get(image_id), MAX_SIDE_PX, channels, self.min_score))
                    for image_id, image in pending
                ]
                self._write(trainer, overlays)

    def _write(self, trainer: Trainer, overlays: list[tuple[int, Image.Image]]) -> None:
        folder = find_run_folder(trainer) / "overlays"
        folder.mkdir(parents=True, exist_ok=True)
        self.latest = []
        # If validations are counted in steps, an epoch can have several.
        is_counted_in_steps = trainer.state.fn == "fit" and trainer.check_val_every_n_epoch is None
        when = f"step-{trainer.global_step:06d}" if is_counted_in_steps else f"epoch-{trainer.current_epoch + 1:04d}"
        for image_id, overlay in overlays:
            path = folder / f"{when}-image-{image_id}.png"
            overlay.save(path)
            self.latest.append(path)
        for logger in trainer.loggers:
            # The step at which Lightning logs the metrics of a validation.
            log_images(logger, "val/overlays", overlays, max(0, trainer.global_step - 1))

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        number = self._n_validations + 1
        is_power_of_two = number & (number - 1) == 0
        return is_power_of_two or trainer.should_stop or trainer.state.fn != "fit"


def list_overlays(trainer: Trainer) -> list[Path]:
    """List the files of a run's latest overlays."""
    callbacks = [one for one in trainer.callbacks if isinstance(one, PredictionOverlays)]  # type: ignore[attr-defined]
    return [path for callback in callbacks for path in callback.latest]
