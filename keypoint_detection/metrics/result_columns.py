"""The content of a result table: its columns, its rows, and the format of its numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from keypoint_detection.metrics.catalogue import COLUMNS, FURTHER_COLUMNS, METRICS, ChannelReport, Metric
from keypoint_detection.metrics.report import EvaluationReport

OVERALL = "overall"


class Column(NamedTuple):
    """A column of the table: a metric, at one of its thresholds if it has several.

    Attributes:
        heading: the text above it.
        metric: the metric it shows.
        place: the index of the threshold.
    """

    heading: str
    metric: Metric
    place: int

    def read(self, row: ChannelReport) -> float:
        """Read its number in a row."""
        return self.metric.read(row, self.place)

    def write(self, row: ChannelReport) -> str:
        """Format its number in a row."""
        return self.metric.style.format(self.read(row))


class ResultCell(NamedTuple):
    """A formatted number of a table.

    Attributes:
        value: the number; a dash if undefined.
        interval: its 95 % interval; empty if there is none.
    """

    value: str
    interval: str


def list_columns(report: EvaluationReport) -> list[Column]:
    """List the columns that show how good a detector is."""
    return _make_columns(report, COLUMNS)


def list_further_columns(report: EvaluationReport) -> list[Column]:
    """List the columns for a closer look: shares of small errors, and the results at the best score threshold."""
    return _make_columns(report, FURTHER_COLUMNS)


def _make_columns(report: EvaluationReport, fields: Sequence[str]) -> list[Column]:
    metrics = {metric.field: metric for metric in METRICS}
    return [
        Column(metrics[field].head_column(threshold), metrics[field], index)
        for field in fields
        for index, threshold in enumerate(report.list_thresholds(metrics[field].thresholds))
    ]


def list_rows(report: EvaluationReport) -> list[ChannelReport]:
    """List the channels, followed by all of them together."""
    return [*report.channels, report.overall]


def name_row(report: EvaluationReport, row: ChannelReport) -> str:
    """Name a row of `list_rows`."""
    return OVERALL if row is report.overall else row.name


def write_cell(report: EvaluationReport, column: Column, index: int) -> ResultCell:
    """Format the number of a column in the row with the given index."""
    row = list_rows(report)[index]
    text = "–" if math.isnan(column.read(row)) else column.write(row)
    ends = [list_rows(bound)[index] for bound in report.bounds or () if column.metric.name]
    has_interval = ends and not math.isnan(column.read(ends[0]))
    return ResultCell(text, "–".join(map(column.write, ends)) if has_interval else "")
