"""What a table of results shows: its columns, its rows, and how a number is written."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keypoint_detection.metrics.report import ChannelReport, EvaluationReport

OVERALL = "overall"


class Column(NamedTuple):
    """A column of the table: its heading, where to find its number in a channel's report, and its format."""

    heading: str
    read: Callable[[ChannelReport], float]
    style: str = "{:.3f}"
    has_interval: bool = True


class ResultCell(NamedTuple):
    """A number of a table, written out.

    Attributes:
        value: the number; a dash if undefined.
        interval: its 95 % interval; empty if there is none.
    """

    value: str
    interval: str


def list_columns(report: EvaluationReport) -> list[Column]:
    """List the columns that say how good a detector is."""
    precisions = [
        Column(f"AP {threshold:g} px", lambda channel, index=index: channel.average_precision[index])  # type: ignore[misc]
        for index, threshold in enumerate(report.thresholds_px)
    ]
    return [
        Column("points", lambda channel: channel.n_truths, "{:d}", has_interval=False),
        *precisions,
        Column("median error", lambda channel: channel.error_px_median, "{:.2f}"),
        Column("mean error", lambda channel: channel.error_px_mean, "{:.2f}"),
        Column("found", lambda channel: channel.detection_rate),
    ]


def list_further_columns(report: EvaluationReport) -> list[Column]:
    """List the columns for a closer look: shares of small errors, and the results at the best score threshold."""
    shares = [
        Column(f"PCK {threshold:g} px", lambda channel, index=index: channel.pck[index])  # type: ignore[misc]
        for index, threshold in enumerate(report.thresholds_px)
    ]
    relative_shares = [
        Column(f"PCK {fraction:g}", lambda channel, index=index: channel.relative_pck[index])  # type: ignore[misc]
        for index, fraction in enumerate(report.relative_thresholds)
    ]
    return [
        Column("detections", lambda channel: channel.n_detections, "{:d}", has_interval=False),
        *shares,
        *relative_shares,
        Column("95th percentile", lambda channel: channel.error_px_p95, "{:.2f}"),
        Column("score threshold", lambda channel: channel.score_threshold),
        Column("precision", lambda channel: channel.precision),
        Column("recall", lambda channel: channel.recall),
        Column("F1", lambda channel: channel.f1),
    ]


def list_rows(report: EvaluationReport) -> list[ChannelReport]:
    """List the channels, followed by all of them together."""
    return [*report.channels, report.overall]


def name_row(report: EvaluationReport, row: ChannelReport) -> str:
    """Name a row of `list_rows`."""
    return OVERALL if row is report.overall else row.name


def write_cell(report: EvaluationReport, column: Column, index: int) -> ResultCell:
    """Format the number of a column in the row with an index."""
    value = column.read(list_rows(report)[index])
    text = "–" if math.isnan(value) else column.style.format(value)
    if report.bounds is None or not column.has_interval:
        return ResultCell(text, "")
    ends = [column.read(list_rows(bound)[index]) for bound in report.bounds]
    return ResultCell(text, "" if math.isnan(ends[0]) else "–".join(map(column.style.format, ends)))
