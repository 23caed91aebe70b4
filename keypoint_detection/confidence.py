"""What the score and the shape of a peak say of its point: how probably it is right, and how far off it may be."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.types import Detections

__all__ = ["Calibration", "logit_of_scores"]

# Scores nearer than this to 0 or 1 say no more: float32 does not tell them from 0 and 1.
_SMALLEST_SCORE = 1e-6


class Calibration(NamedTuple):
    """What a validation has found out about scores and shapes of peaks, as plain numbers.

    Attributes:
        thresholds_px: distances in pixels of the original image within which a point counts as right; ascending.
        slopes: of each threshold; see `probabilities`.
        intercepts: of each threshold.
        scale: what the covariance of a peak is multiplied by; see `covariances`.
        floor_px2: variance that every point has besides, in square input pixels.
    """

    thresholds_px: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    scale: float
    floor_px2: float
