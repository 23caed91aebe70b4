"""Report the result of a run as a table for people and as `metrics.json` for programs."""

import json
import logging
import shlex
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from keypoint_detection.checkpoints.trust import trust_words
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.destinations import shorten_path
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.metrics.result_columns import list_columns, list_rows, name_row
from keypoint_detection.metrics.table import make_table, print_parts
from keypoint_detection.reporting.logged_overlays import list_overlays
from keypoint_detection.reporting.measuring import count_replaced_images, find_report, is_flip_averaged, replace_report
from keypoint_detection.tracking.tables import log_table, wandb_loggers
from keypoint_detection.training.checkpointing import (
    describe_choice,
    find_best_checkpoint,
    find_last_checkpoint,
    read_best_validation,
)
from keypoint_detection.training.optional_outputs import optional_output
from keypoint_detection.training.run_folder import find_run_folder, find_saved_run

logger = logging.getLogger(__name__)


class ResultTable(Callback):
    """End a run with a table of AP and pixel errors per channel, `metrics.json`, and a list of its files.

    After training, the table shows the epoch of `best.ckpt`, whichever metric selected it.

    Args:
        n_resamples: bootstrap resamples of the images, or of their groups, for the 95 % intervals; 0 for none.
        seed: seed of the resampling.
    """

    def __init__(self, n_resamples: NonNegativeInt = 1000, seed: NonNegativeInt = 0) -> None:
        self.n_resamples = n_resamples
        self.seed = seed
        self._shown: list[Table | str] = []
        self._n_replaced = 0
        self._resampled = "images"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the result of `kpd validate`."""
        if trainer.state.fn == "validate":
            self._finish(trainer, pl_module, "Validation", "val")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the best epoch and the next command."""
        self._n_replaced = count_replaced_images(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        validation = read_best_validation(trainer)
        if validation is not None:
            title = f"Validation, epoch {validation.epoch} of {max(trainer.current_epoch, validation.epoch)}"
            validated = validation.report
            metrics = getattr(pl_module, "val_metrics", None)
            if self.n_resamples and validation.rows and isinstance(metrics, KeypointMetrics):
                # Only what is measured again can be resampled.
                validated = self._add_intervals(trainer, metrics.pool([validation.rows]), "val")
            self._publish(trainer, pl_module, validated, title, "val")
            self._shown.append(describe_choice(trainer, validation.step))
        elif (report := find_report(pl_module)) is not None:
            self._publish(trainer, pl_module, report, "Validation, the latest", "val")
        else:
            self._shown.append("No validation took place, so the result of this run is unknown.")
        self._shown += _list_paths(trainer)
        self._show(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the result of `kpd test`."""
        self._finish(trainer, pl_module, "Test", "test")

    def _finish(self, trainer: Trainer, pl_module: LightningModule, title: str, part: str) -> None:
        report = find_report(pl_module)
        if not trainer.is_global_zero or report is None:
            return
        if self.n_resamples:
            report = self._add_intervals(trainer, report, part)
            replace_report(pl_module, report)
        path = self._publish(trainer, pl_module, report, f"{title}, {count_in_words(report.n_images, 'image')}", part)
        self.add_line(trainer, f"Metrics: {path}")

    def _add_intervals(self, trainer: Trainer, report: EvaluationReport, part: str) -> EvaluationReport:
        """Resample the images of a part, or their groups if `data.group_by` is set."""
        data = getattr(trainer, "datamodule", None)
        rows = data.held_out_groups(part) if isinstance(data, KeypointsDataModule) else ()
        group_of = {int(image_id): int(group) for image_id, group in rows}
        assert report.measurements is not None
        if not group_of:
            return report.with_intervals(self.n_resamples, self.seed)
        groups = torch.tensor([group_of[image_id] for image_id in report.measurements.image_ids.tolist()])
        n_groups = len(torch.unique(groups))
        if n_groups == 1:
            self._shown.append("All images are of one group, so it is unknown how much the numbers would vary.")
            return report
        self._resampled = f"{n_groups} groups of images"
        return report.with_intervals(self.n_resamples, self.seed, groups)

    def add_line(self, trainer: Trainer, line: str) -> None:
        """Show a line below the table."""
        self._shown.append(line)
        self._show(trainer)

    def print_result(self) -> None:
        """Print the result of the run; the command line does this last."""
        print_parts(self._shown)
        self._shown = []

    def _show(self, trainer: Trainer) -> None:
        """Print the result now if there is no command line to do so later."""
        if find_saved_run(trainer) is None:
            self.print_result()

    def _publish(
        self, trainer: Trainer, pl_module: LightningModule, report: EvaluationReport, title: str, part: str
    ) -> Path:
        """Show the table, write the file, and send the table to Weights & Biases."""
        self._shown.append(make_table(report, title, self._resampled))
        if is_averaged := is_flip_averaged(pl_module):
            self._shown.append("Heatmaps averaged with those of the mirrored images (model.flip_test).")
        if report.n_unreadable:
            images = count_in_words(report.n_unreadable, "image")
            self._shown.append(f"{images} could not be read: these numbers leave them out (data.on_bad_image).")
        if self._n_replaced:
            images = count_in_words(self._n_replaced, "training image")
            self._shown.append(f"{images} could not be read: others took their place (data.on_bad_image).")
        for name in report.channels_without_truth:
            self._shown.append(f"Channel '{name}' has no labelled points here; the means leave it out.")
        folder = find_run_folder(trainer)
        path = folder / "metrics.json"
        replaced = {"n_replaced_training_images": self._n_replaced} if self._n_replaced else {}
        content = {"flip_test": is_averaged, **replaced, **report.as_dict()}
        with optional_output(trainer, "metrics"):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        columns = list_columns(report)
        rows = [[name_row(report, row), *(column.read(row) for column in columns)] for row in list_rows(report)]
        for logger in wandb_loggers(trainer):
            log_table(logger, f"{part}/table", ["channel", *(column.heading for column in columns)], rows)
        return path


def announce(trainer: Trainer, line: str, level: int) -> None:
    """Show a line below the table of a run; without a table, log it at a level."""
    table = next((one for one in trainer.callbacks if isinstance(one, ResultTable)), None)  # type: ignore[attr-defined]
    if table is None:
        logger.log(level, "%s", line)
    else:
        table.add_line(trainer, line)


def _list_paths(trainer: Trainer) -> list[str]:
    """List where the checkpoints, the config and the overlays are, and which command to run next."""
    best, last = find_best_checkpoint(trainer), find_last_checkpoint(trainer)
    lines = []
    checkpoint: str | Path = best.path if best is not None and best.path is not None else ""
    if checkpoint:
        lines.append(f"Best checkpoint  {shorten_path(checkpoint)}")
    elif last is not None and last.best_model_path:
        checkpoint = last.best_model_path
        lines.append(f"Last checkpoint  {shorten_path(checkpoint)}")
    saved = find_saved_run(trainer)
    if saved is not None and saved.config_file is not None:
        lines.append(f"Saved config     {shorten_path(saved.config_file)}")
    lines += [f"Overlay          {shorten_path(path)}" for path in list_overlays(trainer)]
    if checkpoint:
        words = (
            f"--ckpt_path={shlex.quote(str(shorten_path(checkpoint)))}{trust_words(trainer.lightning_module.hparams)}"
        )
        lines.append(f"Next             kpd test {words} --data.test=YOUR_FILE.json")
        lines.append(f"                 kpd predict {words} --data.predict=YOUR_FOLDER")
    return lines
