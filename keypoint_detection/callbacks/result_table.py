"""The result of a run as a table for people and as `metrics.json` for programs."""

import json
import math
from pathlib import Path

from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from rich.table import Table

from keypoint_detection.callbacks.overlays import PredictionOverlays
from keypoint_detection.callbacks.run_folder import RunFolder, run_folder
from keypoint_detection.metrics.report import ChannelReport, EvaluationReport
from keypoint_detection.tracking.tables import log_table

__all__ = ["ResultTable", "make_table"]

OVERALL = "overall"


class ResultTable(Callback):
    """End a run with a table of AP and pixel errors per channel, `metrics.json`, and where everything is.

    After training the table shows the epoch with the best validation mAP, which is the one that `best.ckpt` holds.

    Args:
        n_resamples: bootstrap resamples of the pictures for the 95 % intervals of `kpd validate` and `kpd test`; 0 for
            none.
        seed: seed of the resampling.
    """

    def __init__(self, n_resamples: NonNegativeInt = 1000, seed: NonNegativeInt = 0) -> None:
        self.n_resamples = n_resamples
        self.seed = seed
        self.best: EvaluationReport | None = None
        self.best_epoch = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the report of the best epoch; show the result of `kpd validate`."""
        report = _report_of(pl_module)
        if trainer.state.fn == "validate":
            self._finish(trainer, pl_module, "Validation", "val")
        if trainer.sanity_checking or report is None:
            return
        value, best = report.overall.mean_average_precision, self.best
        # A NaN never compares greater: the first report stands until a number comes.
        if (
            best is None
            or value > best.overall.mean_average_precision
            or math.isnan(best.overall.mean_average_precision)
        ):
            self.best, self.best_epoch = report, trainer.current_epoch + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the best epoch and the way on."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        console = _console()
        if self.best is not None:
            title = f"Validation, epoch {self.best_epoch} of {trainer.current_epoch}"
            self._publish(trainer, self.best, title, "val", console)
        _print_paths(trainer, console)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the result of `kpd test`."""
        self._finish(trainer, pl_module, "Test", "test")

    def _finish(self, trainer: Trainer, pl_module: LightningModule, title: str, part: str) -> None:
        report = _report_of(pl_module)
        if not trainer.is_global_zero or report is None:
            return
        if self.n_resamples:
            report = report.with_intervals(self.n_resamples, self.seed)
        console = _console()
        path = self._publish(trainer, report, f"{title}, {report.n_images} pictures", part, console)
        console.print(f"Metrics: {path}", highlight=False)

    def _publish(self, trainer: Trainer, report: EvaluationReport, title: str, part: str, console: Console) -> Path:
        """Print the table, write the file, and send the table to Weights & Biases."""
        console.print(make_table(report, title))
        for name in report.channels_without_truth:
            console.print(f"Channel '{name}' has no labelled point here; the means leave it out.", highlight=False)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.json"
        path.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
        columns, rows = _cells(report)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_table(logger, f"{part}/table", columns, rows)
        return path


def make_table(report: EvaluationReport, title: str) -> Table:
    """Lay a report out for a terminal: one row a channel, intervals below their numbers."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "errors in pixels of the original pictures"
    if report.intervals:
        table.caption += "; below each number its 95 % interval (bootstrap over pictures)"
    table.add_column("channel")
    columns = _columns(report)
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    for channel in (*report.channels, report.overall):
        if channel is report.overall:
            table.add_section()
        cells = [_cell(report, channel, name) for _, name in columns]
        table.add_row(OVERALL if channel is report.overall else channel.name, *cells)
    return table


def _columns(report: EvaluationReport) -> list[tuple[str, str]]:
    """The headings, and the names of the numbers below them with a place for the channel."""
    return [
        ("points", ""),
        *((f"AP {threshold:g} px", f"AP{{}}/d={threshold:g}") for threshold in report.thresholds_px),
        ("median error", "error_px{}/median"),
        ("mean error", "error_px{}/mean"),
        ("found", "detection_rate{}"),
    ]


def _cell(report: EvaluationReport, channel: ChannelReport, name: str) -> str:
    if not name:
        return str(channel.n_truths)
    key = name.format("" if channel is report.overall else f"/{channel.name}")
    style = "{:.2f}" if name.startswith("error") else "{:.3f}"
    value = report.as_scalars()[key]
    text = "–" if math.isnan(value) else style.format(value)
    low, high = report.intervals.get(key, (math.nan, math.nan))
    return text if math.isnan(low) else f"{text}\n[dim]{style.format(low)}–{style.format(high)}[/dim]"


def _cells(report: EvaluationReport) -> tuple[list[str], list[list[str | int | float]]]:
    """The same table as plain numbers, for a logger."""
    scalars, columns = report.as_scalars(), _columns(report)
    rows: list[list[str | int | float]] = []
    for channel in (*report.channels, report.overall):
        is_overall = channel is report.overall
        suffix = "" if is_overall else f"/{channel.name}"
        numbers = [scalars[name.format(suffix)] for _, name in columns if name]
        rows.append([OVERALL if is_overall else channel.name, channel.n_truths, *numbers])
    return ["channel", *(heading for heading, _ in columns)], rows


def _print_paths(trainer: Trainer, console: Console) -> None:
    """Say where the checkpoints, the config and the pictures are, and what to type next."""
    checkpoint = next((one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)), None)
    best = (checkpoint.best_model_path or checkpoint.last_model_path) if checkpoint else ""
    lines = [f"Best checkpoint  {_short(best)}"] if best else []
    folder = run_folder(trainer)
    saved = next((one for one in trainer.callbacks if isinstance(one, RunFolder)), None)  # type: ignore[attr-defined]
    if saved is not None:
        lines.append(f"Saved config     {_short(folder / saved.config_filename)}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PredictionOverlays):
            lines += [f"Overlay          {_short(path)}" for path in callback.latest]
    if best:
        lines.append(f"Next             kpd test --ckpt_path={_short(best)} --data.test=YOUR_FILE.json")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _short(path: str | Path) -> str:
    """The path from the working folder, where that is shorter."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def _report_of(pl_module: LightningModule) -> EvaluationReport | None:
    report = getattr(pl_module, "report", None)
    return report if isinstance(report, EvaluationReport) else None


def _console() -> Console:
    console = Console()
    # Without a terminal rich assumes 80 columns; files and logs have room for the whole table.
    return console if console.is_terminal else Console(width=160)
