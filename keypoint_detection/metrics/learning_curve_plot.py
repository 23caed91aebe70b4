"""The figure of a learning curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keypoint_detection.metrics.learning_curve import Estimate, LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_learning_curve"]

# From Okabe and Ito's palette, which every kind of colour vision can tell apart.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#767676"
N_CURVE = 200


def draw_learning_curve(
    curve: LearningCurve, points: Sequence[tuple[float, float]], error_label: str, path: Path
) -> None:
    """Draw the error against the number of training images, both on logarithmic axes, and write it as PNG.

    Args:
        curve: sizes, mean errors with intervals, and the fit with its forecast where there is one.
        points: (images, error) of every single training.
        error_label: what the error is, with its unit.
        path: the file to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="training images", ylabel=error_label)
    _draw_fit(axes, curve)
    sizes, errors = zip(*points, strict=True)
    axes.scatter(sizes, errors, s=18, color=GREY, zorder=3, label="single trainings")
    _draw_estimates(axes, curve.sizes, curve.errors, fmt="o", color=BLUE, label="mean, 95 % interval")
    ticks = list(curve.sizes)
    if curve.forecast is not None:
        ticks.append(2 * curve.sizes[-1])
        known, label = (VERMILION, "expected") if curve.determines_gain else ("white", "not determined")
        style = {"fmt": "D", "color": VERMILION, "markerfacecolor": known, "label": f"twice the labels, {label}"}
        _draw_estimates(axes, ticks[-1:], [curve.forecast], **style)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    # A logarithmic axis of less than a decade would have hardly a number on it.
    axes.yaxis.set_major_locator(AutoLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.grid(color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _draw_fit(axes: "Axes", curve: LearningCurve) -> None:
    if curve.law is None or curve.laws is None:
        return
    n = np.geomspace(curve.sizes[0], 2 * curve.sizes[-1], N_CURVE)
    low, high = np.quantile(np.stack([curve.laws.at(one) for one in n]), [0.025, 0.975], axis=1)
    axes.plot(n, [curve.law.at(one)[0] for one in n], color=BLUE, label=r"fit $a\,n^{-b} + c$")
    axes.fill_between(n, low, high, color=BLUE, alpha=0.15, linewidth=0, label="fit, 95 % interval")


def _draw_estimates(axes: "Axes", sizes: Sequence[float], estimates: Sequence[Estimate], **style: str) -> None:
    values = np.array(estimates).T
    # The value of few trainings may lie outside of what their resamples give.
    spread = np.array([values[0] - values[1], values[2] - values[0]]).clip(0)
    axes.errorbar(sizes, values[0], spread, capsize=3, zorder=4, **style)  # type: ignore[arg-type]
