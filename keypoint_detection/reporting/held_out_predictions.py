"""The predictions on held-out images, kept for `kpd summarize`."""

import os
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from keypoint_detection.data.datamodule import SEED_VARIABLE, KeypointsDataModule
from keypoint_detection.metrics.held_out import HELD_OUT_FILE, HeldOut, write_held_out
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.reporting.measuring import find_report, is_flip_averaged, measured_part
from keypoint_detection.training.checkpointing import read_best_validation
from keypoint_detection.training.optional_outputs import optional_output
from keypoint_detection.training.run_folder import find_run_folder


class HeldOutPredictions(Callback):
    """Write `predictions.npz` beside `metrics.json`: the detections and ground truths of the held-out images.

    After training, they are those of the best checkpoint. `kpd summarize` pools those of several runs.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions of the best checkpoint, or those of the latest validation if there is none."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        validation = read_best_validation(trainer)
        self._write(trainer, pl_module, _latest_rows(pl_module) if validation is None else validation.rows)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions of `kpd validate`."""
        if trainer.state.fn == "validate" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._write(trainer, pl_module, _latest_rows(pl_module))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions of `kpd test`."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._write(trainer, pl_module, _latest_rows(pl_module))

    def _write(self, trainer: Trainer, pl_module: LightningModule, rows: dict[str, Tensor]) -> None:
        data, metrics = trainer.datamodule, getattr(pl_module, "val_metrics", None)  # type: ignore[attr-defined]
        if not rows or not isinstance(data, KeypointsDataModule) or not isinstance(metrics, KeypointMetrics):
            return
        folder, part = find_run_folder(trainer), measured_part(trainer)
        groups = data.held_out_groups(part)
        about = _describe(pl_module, data, metrics, part)
        about["checkpoint"] = None if trainer.state.fn == "fit" else str(trainer.ckpt_path)
        held_out = HeldOut(about, torch.from_numpy(groups), rows)
        with optional_output(trainer, "predictions"):
            folder.mkdir(parents=True, exist_ok=True)
            write_held_out(folder / HELD_OUT_FILE, held_out)


def _latest_rows(pl_module: LightningModule) -> dict[str, Tensor]:
    report = find_report(pl_module)
    return report.measurements.rows if report is not None and report.measurements else {}


def _describe(
    pl_module: LightningModule, data: KeypointsDataModule, metrics: KeypointMetrics, part: str
) -> dict[str, Any]:
    parts = data.describe()
    train = parts.get("train", {})
    return {
        "file": parts[part]["file"],
        "sha256": parts[part]["sha256"],
        "n_folds": data.n_folds,
        "fold": data.fold,
        "group_by": data.group_by,
        "val_fraction": float(data.val_fraction),
        "split_seed": int(data.split_seed),
        # A separate validation does not know the training images.
        "train_fraction": float(data.train_fraction) if train else None,
        "n_train_images": train.get("images"),
        "seed": int(os.environ.get(SEED_VARIABLE, 0)),
        "image_size": data.image_size,
        "resize": data.resize,
        "flip_test": is_flip_averaged(pl_module),
        "backbone": pl_module.hparams.get("backbone"),
        "channels": list(metrics.channels),
        "thresholds_px": list(metrics.thresholds_px),
        "relative_thresholds": list(metrics.relative_thresholds),
        "oks_sigmas": None if metrics.oks_sigmas is None else [float(one) for one in metrics.oks_sigmas],
    }
