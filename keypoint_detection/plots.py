"""Figures of what was measured, in colours that people with every kind of colour vision can tell apart."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keypoint_detection.metrics.calibration import ReliabilityCurve, expected_calibration_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["reliability_diagram"]

# Okabe and Ito's palette, from what stands out on white on; its yellow does not.
RELIABILITY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RELIABILITY_MARKERS = "os^Dvp*"
IDEAL_COLOUR = "#9A9A9A"
RELIABILITY_INCHES = 4.2
# Areas of the markers, in square points: of a bin with no detection, and what all detections together add.
MIN_MARKER, MAX_MARKER = 12, 240


def reliability_diagram(curves: Sequence[ReliabilityCurve]) -> "Figure":
    """Draw the true over the claimed probability of being right: a line a threshold, on the diagonal where it is true.

    Markers are the larger the more detections a bin has. See Guo et al. 2017, figure 1,
    https://arxiv.org/abs/1706.04599.

    Args:
        curves: `EvaluationReport.reliability_curves`; may be empty.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(RELIABILITY_INCHES, RELIABILITY_INCHES), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.plot([0, 1], [0, 1], color=IDEAL_COLOUR, linewidth=1, linestyle="--", label="ideal")
    for index, curve in enumerate(curves):
        colour = RELIABILITY_COLOURS[index % len(RELIABILITY_COLOURS)]
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
            # A claim of 0 or 1 is drawn whole.
            clip_on=False,
            label=name,
        )
    axes.set(xlabel="claimed probability of being right", ylabel="share of the detections that is right")
    axes.grid(color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for handle in axes.legend(loc="upper left", frameon=False, fontsize=8).legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([30])
    return figure
