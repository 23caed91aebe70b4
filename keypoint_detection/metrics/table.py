"""A report as a table for people."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from keypoint_detection.metrics.report import ChannelReport, EvaluationReport

__all__ = ["Column", "list_columns", "list_rows", "make_table", "print_parts", "row_name"]

OVERALL = "overall"
# Without a terminal rich assumes 80 columns; files and logs have room for the whole table.
LOG_WIDTH = 160


class Column(NamedTuple):
    """A column of the table: its heading, where its number stands in the report of a channel, and how it is written."""

    heading: str
    read: Callable[[ChannelReport], float]
    style: str = "{:.3f}"
    has_interval: bool = True


def list_columns(report: EvaluationReport) -> list[Column]:
    """List the columns of the table."""
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


def list_rows(report: EvaluationReport) -> list[ChannelReport]:
    """List the rows of the table: the channels, and all together."""
    return [*report.channels, report.overall]


def row_name(report: EvaluationReport, row: ChannelReport) -> str:
    """Name a row of the table."""
    return OVERALL if row is report.overall else row.name


def make_table(report: EvaluationReport, title: str, resampled: str = "images") -> Table:
    """Lay a report out for a terminal: one row a channel, intervals below their numbers.

    Args:
        report: what to show.
        title: what stands above.
        resampled: what the resamples of the intervals were drawn of.
    """
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "errors in pixels of the original images"
    if report.bounds:
        table.caption += f"; below each number its 95 % interval (bootstrap over {resampled})"
    table.add_column("channel")
    columns = list_columns(report)
    for column in columns:
        table.add_column(column.heading, justify="right")
    rows = list_rows(report)
    bounds = [list_rows(bound) for bound in report.bounds] if report.bounds else [[], []]
    for index, row in enumerate(rows):
        if row is report.overall:
            table.add_section()
        ends = [bound[index] for bound in bounds if bound]
        table.add_row(row_name(report, row), *(_write_cell(column, row, ends) for column in columns))
    return table


def _write_cell(column: Column, row: ChannelReport, ends: list[ChannelReport]) -> str:
    value = column.read(row)
    text = "–" if math.isnan(value) else column.style.format(value)
    if not ends or not column.has_interval or math.isnan(column.read(ends[0])):
        return text
    low, high = (column.style.format(column.read(end)) for end in ends)
    return f"{text}\n[dim]{low}–{high}[/dim]"


def print_parts(parts: Sequence[Table | str]) -> None:
    """Print tables and texts, in their order, to the terminal or to the file in its place."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
