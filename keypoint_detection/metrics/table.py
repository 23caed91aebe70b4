"""Show a report as a table on the terminal."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.metrics.result_columns import list_columns, list_rows, name_row, write_cell
from keypoint_detection.printing import make_printable

# Without a terminal, rich assumes 80 columns, although files and logs have room for the whole table.
LOG_WIDTH = 160


def make_table(report: EvaluationReport, title: str, resampled: str = "images") -> Table:
    """Lay a report out for a terminal: one row per channel, intervals below their numbers.

    Args:
        report: the report to show.
        title: the text above the table.
        resampled: name of the units resampled for the intervals, e.g. images.
    """
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "errors in pixels of the original images"
    if report.bounds:
        table.caption += f"; below each number its 95 % interval (bootstrap over {resampled})"
    if report.objects is not None:
        table.caption += f"\n{describe_objects(report)}"
    if report.caveat is not None:
        table.caption += f"\n{report.caveat}"
    table.add_column("channel")
    columns = list_columns(report)
    for column in columns:
        table.add_column(column.heading, justify="right")
    for index, row in enumerate(list_rows(report)):
        if row is report.overall:
            table.add_section()
        cells = [write_cell(report, column, index) for column in columns]
        texts = [f"{cell.value}\n[dim]{cell.interval}[/dim]" if cell.interval else cell.value for cell in cells]
        table.add_row(escape(make_printable(name_row(report, row))), *texts)
    return table


def describe_objects(report: EvaluationReport) -> str:
    """Write how well points are grouped into objects in a sentence."""
    found = report.objects
    assert found is not None
    if math.isnan(found.grouping_accuracy):
        return "no point is right, so nothing is known of its object"
    ends = report.intervals.get("grouping_accuracy")
    interval = "" if ends is None else f" ({ends[0]:.3f}–{ends[1]:.3f})"
    return (
        f"objects: {found.grouping_accuracy:.3f}{interval} of the right points are in the right object; AP "
        f"{report.thresholds_px[-1]:g} px of objects with half of their points {found.half[-1]:.3f}, with all "
        f"{found.whole[-1]:.3f}"
    )


def print_parts(parts: Sequence[Table | str]) -> None:
    """Print tables and text, in order, to the terminal or the file it is redirected to."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    for part in parts:
        console.print(
            make_printable(part) if isinstance(part, str) else part, highlight=False, soft_wrap=isinstance(part, str)
        )
