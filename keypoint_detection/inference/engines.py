"""What runs a detector: PyTorch or onnxruntime, behind one interface in NumPy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco import Coordinates

__all__ = ["Engine", "Found", "as_found"]


class Found(NamedTuple):
    """What was found in one image.

    Attributes:
        points: (C, D, 2) float32 in continuous pixels of the image as it was given.
        scores: (C, D) float32, descending; 0 marks an unused slot.
        covariances: (C, D, 2, 2) float32 of the errors, square pixels of the image; None without a calibration.
        probabilities: (C, D, T) float32, of being right within each threshold; None without a calibration.
        heatmaps: (C, h, w) float32 in [0, 1]; None unless they were asked for.
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    covariances: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None
    heatmaps: NDArray[np.float32] | None


def as_found(outputs: Mapping[str, NDArray[np.float32]]) -> Found:
    """Name what an exported detector gives of one image; what it was exported without is None."""
    return Found(*(outputs.get(name) for name in Found._fields))  # type: ignore[arg-type]


class Engine(Protocol):
    """Run a detector.

    Attributes:
        channels: the names of the channels.
        coordinates: the convention of the labels that it was trained on.
        lowest_score: from which on it gives points at all.
        best_f1: the score with the best F1 of the validation; None where there was none.
        thresholds_px: distances that probabilities are given for, ascending; empty without a calibration.
    """

    channels: list[str]
    coordinates: Coordinates
    lowest_score: float
    best_f1: float | None
    thresholds_px: tuple[float, ...]

    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
