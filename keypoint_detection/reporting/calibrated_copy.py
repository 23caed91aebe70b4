"""Add a calibration to checkpoints that have none."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.checkpoints.files import CALIBRATION_KEY, VALIDATION_KEY, read_checkpoint
from keypoint_detection.checkpoints.writing import write_checkpoint
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.metrics.calibration import MIN_RIGHT
from keypoint_detection.reporting.result_table import announce
from keypoint_detection.training.run_folder import find_run_folder

logger = logging.getLogger(__name__)

FILE_NAME = "calibrated.ckpt"
# The settings that determine the points found with given weights.
MODEL_SETTINGS = ("flip_test", "heatmap_sigma", "max_keypoints", "score_threshold", "min_distance_px")
DATA_SETTINGS = ("image_size", "resize", "flip_pairs")


class CalibratedCopy(Callback):
    """Make `kpd validate` write a calibrated copy of a checkpoint without a calibration for its settings.

    Checkpoints from training have one, unless validation found too few points or an older version wrote them. It is
    valid for the settings it was measured with, which the copy contains.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the copy into the run folder."""
        model: Any = pl_module
        path = trainer.ckpt_path
        if trainer.state.fn != "validate" or not trainer.is_global_zero or path is None:
            return
        checkpoint = read_checkpoint(str(path))
        has_changed = _take_settings(checkpoint, model, getattr(trainer, "datamodule", None))
        if model.calibration is not None and not has_changed:
            return
        calibration = model.report.fit_calibration()
        if calibration is None:
            line = (
                f"No calibrated copy was written: a calibration needs {MIN_RIGHT} right detections, and there are "
                "fewer. First train the detector longer, or on more images."
            )
            announce(trainer, line, logging.WARNING)
            return
        measured_at = {"epoch": checkpoint.get("epoch", 0) + 1, "step": checkpoint.get("global_step", 0)}
        measured = {"report": model.report.as_state(), CALIBRATION_KEY: calibration.as_state()}
        checkpoint[VALIDATION_KEY] = measured_at | (checkpoint.get(VALIDATION_KEY) or {}) | measured
        folder = find_run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, folder / FILE_NAME)
        reason = "had no calibration" if model.calibration is None else "was calibrated with other settings"
        logger.info("The checkpoint %s; %s is a copy calibrated with the present ones.", reason, folder / FILE_NAME)


def _take_settings(checkpoint: dict[str, Any], model: LightningModule, data: object) -> bool:
    """Store the present settings that determine a detector's points; return whether anything changed."""
    has_changed = _update(checkpoint["hyper_parameters"], {name: model.hparams[name] for name in MODEL_SETTINGS})
    if isinstance(data, KeypointsDataModule):
        seen = {name: data.hparams[name] for name in DATA_SETTINGS}
        if seen["flip_pairs"] is None:
            del seen["flip_pairs"]  # the checkpoint's own settings are in use
        has_changed |= _update(checkpoint.setdefault("datamodule_hyper_parameters", {}), seen)
    return has_changed


def _update(stored: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Update stored settings; return whether any of them changed."""
    has_changed = any(stored.get(name) != value for name, value in settings.items())
    stored |= settings
    return has_changed
