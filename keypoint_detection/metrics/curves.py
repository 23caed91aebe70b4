"""The curves behind a report, short enough to draw: precision over recall, and the cumulative share of errors."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from keypoint_detection.metrics.average_precision import trace_curve
from keypoint_detection.metrics.evaluation import Measurements

# As many steps as a small panel can show; dropping the rest moves a line by about its width.
MAX_STEPS = 120


class Staircase(NamedTuple):
    """A function that is constant between its steps.

    Attributes:
        x: (N,) float64, the positions of the steps, ascending.
        y: (N,) float64.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def interpolated_precision(measurements: Measurements, channel: int, threshold: int) -> Staircase:
    """Trace the highest precision at each recall or above; the area below it is AP.

    Args:
        measurements: measurements on a data set.
        channel: its index.
        threshold: index of the distance threshold.

    Returns:
        Recall as `x` and, from the previous recall up to that one, precision as `y`; no steps if nothing is right.
    """
    detections = measurements.detections
    is_of_channel = detections.channel == channel
    is_right = measurements.is_true_positive[threshold : threshold + 1, is_of_channel]
    n_truths = int((measurements.truths.channel == channel).sum())
    curve = trace_curve(detections.scores[is_of_channel], is_right)
    n_right = curve.n_right[:, 0, 0]
    is_rise = torch.diff(n_right, prepend=n_right.new_zeros(1)) > 0
    if n_truths == 0 or not is_rise.any():
        return Staircase(np.zeros(0), np.zeros(0))
    precision = (n_right / curve.n_kept[:, 0])[is_rise].flip(0).cummax(0).values.flip(0)
    # Of several steps of equal height, the last is where the line falls.
    is_end = torch.ones_like(precision, dtype=torch.bool)
    is_end[:-1] = precision[:-1] != precision[1:]
    recall = n_right[is_rise] / n_truths
    return _thin(recall[is_end].numpy(), precision[is_end].numpy())


def cumulative_errors(measurements: Measurements, channel: int | None) -> Staircase:
    """Trace the share of the ground truths whose prediction is within a given distance.

    Args:
        measurements: measurements on a data set.
        channel: its index; None takes all together.

    Returns:
        Errors in image pixels as `x` and, from there on, the share as `y`, which missing predictions keep below 1; no
        steps if there is no prediction.
    """
    errors = measurements.errors_px
    if channel is not None:
        errors = errors[measurements.truths.channel == channel]
    found = errors[errors.isfinite()].sort().values.double().numpy()
    return _thin(found, np.arange(1, len(found) + 1) / max(1, len(errors)))


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> Staircase:
    """Drop some of the steps between the first and the last."""
    if len(x) > MAX_STEPS:
        kept = np.linspace(0, len(x) - 1, MAX_STEPS).round().astype(np.int64)
        x, y = x[kept], y[kept]
    return Staircase(x, y)
