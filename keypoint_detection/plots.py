"""Draw figures of measurements, in colours that can be distinguished with any kind of colour vision."""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keypoint_detection.metrics.calibration import ReliabilityCurve, expected_calibration_error
from keypoint_detection.metrics.curves import cumulative_errors, interpolated_precision
from keypoint_detection.metrics.evaluation import Measurements
from keypoint_detection.metrics.learning_curve import Estimate, LearningCurve
from keypoint_detection.metrics.report import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, ordered by how well its colours stand out on white; its yellow, which does not, is left out.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
REFERENCE_COLOUR = "#9A9A9A"

# In inches; a figure is as wide as the text of a page.
FIGURE_WIDTH, MAX_COLUMNS = 11.0, 4
LEFT, RIGHT, TOP, BOTTOM = 0.65, 0.1, 0.75, 0.6
GAP_ACROSS, GAP_DOWN = 0.35, 0.75
ASPECT = 0.85

# The learning curve, a separate file: its size, the colour of single runs, the number of points along the fit.
CURVE_INCHES, CURVE_DPI = (6.4, 4.4), 150
POINT_COLOUR = "#767676"
N_CURVE = 200

# The reliability diagram is square.
RELIABILITY_MARKERS = "os^Dvp*"
RELIABILITY_INCHES = 4.2
# Areas of the markers, in square points: the area for an empty bin, and the area that all detections together add.
MIN_MARKER, MAX_MARKER = 12, 240
# A legend's own padding.
LEGEND_MARGIN = 0.1
MAX_LEGEND_COLUMNS = 8
# Longer channel names do not fit above a panel.
MAX_TITLE = 32

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 10,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Text stays text: compact, selectable, and in the reader's fonts, which cover every script.
    "svg.fonttype": "none",
    # The same figure always gives the same file.
    "svg.hashsalt": "keypoint_detection",
}


def plot_precision_recall(report: EvaluationReport) -> "Figure":
    """Draw interpolated precision over recall: a panel per channel, a line per distance threshold.

    Args:
        report: a report that has its measurements.
    """
    measurements = _measurements_of(report)
    with _style():
        titles = [(channel.name, f"AP {_join(channel.average_precision)}") for channel in report.channels]
        figure, panels = _make_panels(titles)
        for index, (panel, channel) in enumerate(zip(panels, report.channels, strict=True)):
            panel.set(xlim=(0, 1.02), ylim=(0, 1.05))
            if not channel.n_truths:
                _say(panel, "no labelled point")
                continue
            for place in range(len(report.thresholds_px)):
                stairs = interpolated_precision(measurements, index, place)
                x, y = [0.0, *stairs.x], [stairs.y[0] if len(stairs.y) else 0.0, *stairs.y]
                panel.plot(
                    # The line falls to 0 after the last recall, so that the area below it is AP.
                    [*x, x[-1]],
                    [*y, 0.0],
                    drawstyle="steps-pre",
                    **_line(place),
                )
        _explain(figure, [(f"within {threshold:g} px", _line(n)) for n, threshold in enumerate(report.thresholds_px)])
        figure.supxlabel("recall (share of the labelled points that are found)", fontsize=10)
        figure.supylabel("precision", fontsize=10)
    return figure


def plot_cumulative_errors(report: EvaluationReport) -> "Figure":
    """Draw the share of points within a given error: a panel per channel, with all channels together in grey.

    Args:
        report: a report that has its measurements.
    """
    measurements = _measurements_of(report)
    everything = cumulative_errors(measurements, None)
    lowest = report.thresholds_px[0] / 10
    all_channels: dict[str, Any] = {"color": REFERENCE_COLOUR, "linestyle": "-"}
    highest = max([2 * report.thresholds_px[-1], *everything.x[-1:]])
    with _style():
        titles = [(channel.name, f"median {_pixels(channel.error_px_median)}") for channel in report.channels]
        figure, panels = _make_panels(titles)
        thresholds: dict[str, Any] = {"color": REFERENCE_COLOUR, "linewidth": 0.8, "linestyle": ":"}
        for index, (panel, channel) in enumerate(zip(panels, report.channels, strict=True)):
            panel.set(xscale="log", xlim=(lowest, highest), ylim=(0, 1.05))
            _label_distances(panel)
            if not channel.n_truths:
                _say(panel, "no labelled point")
                continue
            for threshold in report.thresholds_px:
                panel.axvline(threshold, **thresholds)
            for stairs, style in ((everything, all_channels), (cumulative_errors(measurements, index), _line(0))):
                x = [lowest, *(max(lowest, value) for value in stairs.x), highest]
                y = [0.0, *stairs.y, stairs.y[-1] if len(stairs.y) else 0.0]
                panel.plot(x, y, drawstyle="steps-post", **style)
        _explain(figure, [("this channel", _line(0)), ("all channels", all_channels), ("thresholds", thresholds)])
        figure.supxlabel("error (pixels of the original image, logarithmic)", fontsize=10)
        figure.supylabel("share of the labelled points", fontsize=10)
    return figure


def as_svg(figure: "Figure") -> bytes:
    """Write a figure as SVG, which stays sharp at any size."""
    buffer = io.BytesIO()
    with _style(), warnings.catch_warnings():
        # The reader's fonts matter, not those of this machine.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph .* missing from.*")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the same style whatever the user's own matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def _make_panels(titles: Sequence[tuple[str, str]]) -> "tuple[Figure, list[Axes]]":
    """Make a panel for each name, with the numbers below it as its title."""
    from matplotlib.figure import Figure

    n_columns = min(len(titles), MAX_COLUMNS)
    n_rows = math.ceil(len(titles) / n_columns)
    # A single channel does not fill the page.
    width = FIGURE_WIDTH if n_columns > 1 else FIGURE_WIDTH / 2
    panel_width = (width - LEFT - RIGHT - (n_columns - 1) * GAP_ACROSS) / n_columns
    panel_height = panel_width * ASPECT
    height = TOP + BOTTOM + n_rows * panel_height + (n_rows - 1) * GAP_DOWN
    figure = Figure(figsize=(width, height))
    panels = []
    for index, (name, numbers) in enumerate(titles):
        row, column = divmod(index, n_columns)
        left = LEFT + column * (panel_width + GAP_ACROSS)
        bottom = height - TOP - panel_height - row * (panel_height + GAP_DOWN)
        panel = figure.add_axes((left / width, bottom / height, panel_width / width, panel_height / height))
        # Names are not formulas, even if they contain dollar signs.
        panel.set_title(f"{_shorten(name)}\n{numbers}", loc="left", parse_math=False)
        panels.append(panel)
    return figure, panels


def _label_distances(panel: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    lowest, highest = panel.get_xlim()
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest <= 100 * lowest else (1,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _explain(figure: "Figure", entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Draw one legend for all panels, above them."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **style) for label, style in entries]
    left = (LEFT - LEGEND_MARGIN) / float(figure.get_figwidth())
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(left, 1.0), ncols=MAX_LEGEND_COLUMNS)


def _join(values: Sequence[float]) -> str:
    return " · ".join("–" if math.isnan(value) else f"{value:.2f}" for value in values)


def _line(place: int) -> dict[str, Any]:
    style = LINE_STYLES[place % len(LINE_STYLES)]
    return {"color": LINE_COLOURS[place % len(LINE_COLOURS)], "linestyle": style}


def _say(panel: "Axes", text: str) -> None:
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color="#555555")


def _pixels(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g} px"


def _shorten(name: str) -> str:
    # SVG cannot contain control characters or halves of surrogate pairs.
    clean = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in name)
    return clean if len(clean) <= MAX_TITLE else clean[: MAX_TITLE - 1] + "…"


def _measurements_of(report: EvaluationReport) -> Measurements:
    if report.measurements is None:
        raise ValueError("a report read back from a checkpoint has no curves; measure again with `kpd validate`.")
    return report.measurements


def reliability_diagram(curves: Sequence[ReliabilityCurve]) -> "Figure":
    """Draw true over claimed probability of being right: a line per threshold, on the diagonal if well calibrated.

    The more detections a bin has, the larger its marker. See Guo et al. 2017, figure 1,
    https://arxiv.org/abs/1706.04599.

    Args:
        curves: `EvaluationReport.reliability_curves`; can be empty.
    """
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(RELIABILITY_INCHES, RELIABILITY_INCHES), layout="constrained")
        axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes.plot([0, 1], [0, 1], color=REFERENCE_COLOUR, linewidth=1, linestyle="--", label="ideal")
        for index, curve in enumerate(curves):
            colour = LINE_COLOURS[index % len(LINE_COLOURS)]
            error = expected_calibration_error(curve)
            name = f"within {curve.threshold_px:g} px" + ("" if math.isnan(error) else f" (ECE {error:.3f})")
            total = max(1, sum(curve.counts))
            axes.plot(curve.probabilities, curve.shares, color=colour, linewidth=1.2)
            axes.scatter(
                curve.probabilities,
                curve.shares,
                [MIN_MARKER + MAX_MARKER * count / total for count in curve.counts],
                color=colour,
                marker=RELIABILITY_MARKERS[index % len(RELIABILITY_MARKERS)],
                alpha=0.85,
                edgecolors="none",
                # Markers at 0 and 1 are not cut off.
                clip_on=False,
                label=name,
            )
        axes.set(xlabel="claimed probability of being right", ylabel="share of detections that are right")
        axes.set_axisbelow(True)
        for handle in axes.legend(loc="best").legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([30])
    return figure


def draw_learning_curve(
    curve: LearningCurve, points: Sequence[tuple[float, float]], error_label: str, path: Path
) -> None:
    """Draw the error against the number of training images, both on logarithmic axes, and write it as PNG.

    Args:
        curve: sizes, mean errors with intervals, and the fit with its forecast, if there is one.
        points: (images, error) of every run.
        error_label: name of the error, with its unit.
        path: the file to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator, NullLocator, ScalarFormatter

    with _style():
        figure = Figure(figsize=CURVE_INCHES, dpi=CURVE_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log", xlabel="training images", ylabel=error_label)
        _draw_fit(axes, curve)
        sizes, errors = zip(*points, strict=True)
        axes.scatter(sizes, errors, s=18, color=POINT_COLOUR, zorder=3, label="single runs")
        _draw_estimates(axes, curve.sizes, curve.errors, fmt="o", color=LINE_COLOURS[0], label="mean, 95 % interval")
        ticks = list(curve.sizes)
        if curve.forecast is not None:
            ticks.append(2 * curve.sizes[-1])
            known, label = (LINE_COLOURS[1], "expected") if curve.determines_gain else ("white", "not determined")
            style = {
                "fmt": "D",
                "color": LINE_COLOURS[1],
                "markerfacecolor": known,
                "label": f"twice the labels, {label}",
            }
            _draw_estimates(axes, ticks[-1:], [curve.forecast], **style)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        # A logarithmic axis that spans less than a decade would show hardly any numbers.
        axes.yaxis.set_major_locator(AutoLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(ScalarFormatter())
        figure.legend(loc="outside upper left", ncols=3)
        figure.savefig(path)


def _draw_fit(axes: "Axes", curve: LearningCurve) -> None:
    if curve.law is None or curve.laws is None:
        return
    n = np.geomspace(curve.sizes[0], 2 * curve.sizes[-1], N_CURVE)
    low, high = np.quantile(np.stack([curve.laws.at(one) for one in n]), [0.025, 0.975], axis=1)
    axes.plot(n, [curve.law.at(one)[0] for one in n], color=LINE_COLOURS[0], label=r"fit $a\,n^{-b} + c$")
    axes.fill_between(n, low, high, color=LINE_COLOURS[0], alpha=0.15, linewidth=0, label="fit, 95 % interval")


def _draw_estimates(axes: "Axes", sizes: Sequence[float], estimates: Sequence[Estimate], **style: str) -> None:
    values = np.array(estimates).T
    # The estimate from a few runs can lie outside the range of its resamples.
    spread = np.array([values[0] - values[1], values[2] - values[0]]).clip(0)
    axes.errorbar(sizes, values[0], spread, capsize=3, zorder=4, **style)  # type: ignore[arg-type]
