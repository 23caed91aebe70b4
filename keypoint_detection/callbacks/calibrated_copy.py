"""A calibration for checkpoints that have none."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.callbacks.run_folder import find_run_folder
from keypoint_detection.checkpoints.files import CALIBRATION_KEY, VALIDATION_KEY, read_checkpoint, write_checkpoint
from keypoint_detection.metrics.calibration import MIN_RIGHT

__all__ = ["CalibratedCopy"]

logger = logging.getLogger(__name__)

FILE_NAME = "calibrated.ckpt"


class CalibratedCopy(Callback):
    """Make `kpd validate` write a calibrated copy of a checkpoint that has no calibration.

    Checkpoints from a training have one, unless its validation found too few points or an older version wrote them.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the copy into the run folder."""
        model: Any = pl_module
        path = trainer.ckpt_path
        if trainer.state.fn != "validate" or not trainer.is_global_zero or path is None:
            return
        if model.calibration is not None:
            return
        calibration = model.report.fit_calibration()
        if calibration is None:
            logger.warning("No calibration: fewer than %d detections are right.", MIN_RIGHT)
            return
        checkpoint = read_checkpoint(str(path))
        measured_at = {"epoch": checkpoint.get("epoch", 0) + 1, "step": checkpoint.get("global_step", 0)}
        validation = checkpoint.get(VALIDATION_KEY) or {**measured_at, "report": model.report.as_state()}
        checkpoint[VALIDATION_KEY] = {**validation, CALIBRATION_KEY: calibration.as_state()}
        folder = find_run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, folder / FILE_NAME)
        logger.info("The checkpoint had no calibration; %s is a copy that has one.", folder / FILE_NAME)
