"""Write a measurement as an HTML page: tables, curves, the worst images, and the data and settings behind it."""

import base64
import logging
import math
import platform
import time
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt
from lightning.pytorch import LightningModule, Trainer

from keypoint_detection import __version__
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.drawing import DRAWN_SCORE, as_jpeg
from keypoint_detection.metrics.catalogue import DEFINITIONS
from keypoint_detection.metrics.report import EvaluationReport, ImageErrors
from keypoint_detection.metrics.result_columns import (
    Column,
    ResultCell,
    list_columns,
    list_further_columns,
    list_rows,
    name_row,
    write_cell,
)
from keypoint_detection.plots import as_svg, plot_cumulative_errors, plot_precision_recall, reliability_diagram
from keypoint_detection.reporting.measuring import (
    MeasuringCallback,
    find_image_names,
    find_report,
    is_flip_averaged,
    measured_part,
)
from keypoint_detection.reporting.result_table import announce
from keypoint_detection.reporting.worst_images import WorstDrawings
from keypoint_detection.training.run_folder import as_loggable, find_run_folder, find_saved_run
from keypoint_detection.types import Batch

FILE_NAME = "report.html"
# Twice the width at which a common screen shows an image of two panels, so that marks stay sharp.
MAX_IMAGE_WIDTH_PX = 1440
SVG, JPEG = "image/svg+xml", "image/jpeg"


class HtmlReport(MeasuringCallback):
    """Write `report.html` after `kpd validate` and `kpd test`: one file that a browser opens without a network.

    It is beside `metrics.json` and contains the tables with their intervals, precision-recall curves, cumulative
    errors, the worst images, the config, and what was measured.

    Args:
        n_images: how many of the worst images to show.
        min_score: predictions with lower scores are not drawn.
    """

    def __init__(self, n_images: NonNegativeInt = 8, min_score: ClosedUnitInterval = DRAWN_SCORE) -> None:
        self.n_images = n_images
        self.min_score = float(min_score)
        self._drawings = WorstDrawings(n_images, self.min_score)

    def on_measured_batch(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch) -> None:
        """Keep the images of the batch that are among the worst so far."""
        if self.n_images:
            self._drawings.consider(outputs, batch)

    def on_measured(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page, on the first of several processes."""
        images = self._drawings.take(trainer, list(pl_module.channels))  # type: ignore[arg-type]
        drawn = _gather({image_id: as_jpeg(image, MAX_IMAGE_WIDTH_PX) for image_id, image in images.items()})
        report = find_report(pl_module)
        if not trainer.is_global_zero or report is None:
            return
        folder = find_run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        path.write_bytes(self._render(trainer, pl_module, report, drawn))
        announce(trainer, f"Report:  {path}", logging.INFO)

    def _render(
        self, trainer: Trainer, pl_module: LightningModule, report: EvaluationReport, drawn: dict[int, bytes]
    ) -> bytes:
        # Not needed to start training.
        from jinja2 import Environment, PackageLoader, StrictUndefined

        subject = _describe_subject(trainer, pl_module, list(drawn))
        curves = report.reliability_curves
        worst = [row for row in report.per_image_errors() if row.image_id in drawn][: self.n_images]
        templates = Environment(
            loader=PackageLoader("keypoint_detection"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = templates.get_template(FILE_NAME).render(
            title=f"Keypoint detector: {'test' if trainer.state.fn == 'test' else 'validation'}",
            summary=_summarise(report),
            results=_tabulate(report, list_columns(report)),
            has_intervals=bool(report.bounds),
            caveat=report.caveat,
            channels_without_truth=report.channels_without_truth,
            shares=_describe_whole(report),
            further_results=_tabulate(report, list_further_columns(report)),
            thresholds=[f"{threshold:g}" for threshold in report.thresholds_px],
            definitions=DEFINITIONS,
            precision_recall=_embed(as_svg(plot_precision_recall(report)), SVG),
            cumulative_errors=_embed(as_svg(plot_cumulative_errors(report)), SVG),
            reliability=_embed(as_svg(reliability_diagram(curves)), SVG) if curves else None,
            worst_images=[
                _Image(row.image_id, _embed(drawn[row.image_id], JPEG), _describe_image(row, subject.file_names))
                for row in worst
            ],
            min_score=f"{self.min_score:.2g}",
            subject=subject.facts,
            config=subject.config,
        )
        # Names can contain halves of surrogate pairs, which a UTF-8 file cannot.
        return page.encode("utf-8", "replace")


class _Table(NamedTuple):
    """A table of numbers.

    Attributes:
        headings: one per column; the first column contains the row names.
        rows: the name and the numbers of each; the last row summarises the others.
    """

    headings: list[str]
    rows: list[tuple[str, list[ResultCell]]]


class _Image(NamedTuple):
    """One of the worst images: its id, the address of its drawing, and what went wrong."""

    id: int
    source: str
    caption: str


class _Subject(NamedTuple):
    """What was measured.

    Attributes:
        facts: names and values.
        file_names: file names of the images, by id.
        config: the settings as YAML.
    """

    facts: list[tuple[str, str]]
    file_names: dict[int, str]
    config: str


def _summarise(report: EvaluationReport) -> str:
    overall = report.overall
    parts = [count_in_words(report.n_images, "image"), count_in_words(overall.n_truths, "labelled point")]
    if report.n_unreadable:
        parts.insert(1, f"{report.n_unreadable} more could not be read")
    if not math.isnan(overall.mean_average_precision):
        parts.append(f"mAP {overall.mean_average_precision:.3f}")
    if not math.isnan(overall.error_px_median):
        parts.append(f"median error {overall.error_px_median:.2f} px")
    return ", ".join(parts)


def _tabulate(report: EvaluationReport, columns: list[Column]) -> _Table:
    rows = [
        (name_row(report, row), [write_cell(report, column, index) for column in columns])
        for index, row in enumerate(list_rows(report))
    ]
    return _Table(["channel", *(column.heading for column in columns)], rows)


def _describe_whole(report: EvaluationReport) -> list[tuple[str, str]]:
    """Label and format the numbers that concern whole images and objects, where they were measured."""
    scalars, thresholds = report.as_scalars(), [f"{threshold:g}" for threshold in report.thresholds_px]
    labels = {f"strict_success/d={one}": f"images with every point within {one} px" for one in thresholds}
    labels |= {name: name for name in report.oks_ap}
    if report.objects is not None:
        labels["grouping_accuracy"] = "right points that are in the right object"
        for kind, points in (("half", "at least half of the points"), ("all", "all points")):
            labels |= {f"object_AP/{kind}/d={one}": f"AP of objects, {points} within {one} px" for one in thresholds}
    return [(label, _number_with_interval(scalars[name], report.intervals.get(name))) for name, label in labels.items()]


def _number_with_interval(value: float, ends: tuple[float, float] | None) -> str:
    interval = "" if ends is None or math.isnan(value) else f" ({_number(ends[0])}–{_number(ends[1])})"
    return _number(value) + interval


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _describe_image(row: ImageErrors, file_names: dict[int, str]) -> str:
    name = ", ".join(filter(None, [f"Image {row.image_id}", file_names.get(row.image_id)]))
    parts = [name, f"{row.n_truths} labelled points"]
    if row.n_missing:
        parts.append(f"{row.n_missing} without a prediction")
    if not math.isnan(row.max_error_px):
        parts.append(f"maximum error {row.max_error_px:.1f} px, mean {row.mean_error_px:.1f} px")
    if row.n_false_positives:
        parts.append(f"{row.n_false_positives} false positives")
    return "; ".join(parts)


def _describe_subject(trainer: Trainer, pl_module: LightningModule, image_ids: list[int]) -> _Subject:
    datamodule = getattr(trainer, "datamodule", None)
    facts = [("checkpoint", str(trainer.ckpt_path or "none: the weights in memory"))]
    if isinstance(datamodule, KeypointsDataModule):
        data = datamodule.describe()[measured_part(trainer)]
        facts += [("data", data["file"]), ("SHA-256 of the data", data["sha256"])]
        size = datamodule.image_size
        facts.append(
            ("network's input", f"{size[1]} × {size[0]} px ({datamodule.resize})" if size else "as the images")
        )
    facts += [
        ("channels", "; ".join(f"{name}: {', '.join(types)}" for name, types in pl_module.channels.items())),  # type: ignore[union-attr, operator]
        ("averaged with mirrored images", "yes" if is_flip_averaged(pl_module) else "no"),
        ("date", time.strftime("%Y-%m-%d %H:%M:%S %z")),
        ("computed on", f"{trainer.strategy.root_device.type}, {trainer.precision}, {trainer.world_size} process(es)"),
        ("versions", f"kpd {__version__}, torch {torch.__version__}, Python {platform.python_version()}"),
    ]
    saved = find_saved_run(trainer)
    if saved is not None and saved.config_file is not None:
        config = saved.config_file.read_text(encoding="utf-8")
    else:
        config = yaml.safe_dump(as_loggable(dict(pl_module.hparams)), sort_keys=False, allow_unicode=True)
    return _Subject(facts, find_image_names(trainer, image_ids), config)


def _embed(image: bytes, media_type: str) -> str:
    """Return a data URL that embeds an image in the page."""
    return f"data:{media_type};base64,{base64.b64encode(image).decode('ascii')}"


def _gather(drawn: dict[int, bytes]) -> dict[int, bytes]:
    """Gather the drawings of all processes; every process must take part."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return drawn
    parts: list[dict[int, bytes]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, drawn)
    return {image_id: image for part in reversed(parts) for image_id, image in part.items()}
