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
        points: (C, D, 2) float32 in continuous pixels of the image as given.
        scores: (C, D) float32, descending; 0 marks an unused slot.
        covariances: (C, D, 2, 2) float32 of the errors, square pixels of the image; None without a calibration.
        probabilities: (C, D, T) float32, of being right within each threshold; None without a calibration.
        heatmaps: (C, h, w) float32 in [0, 1]; None unless requested.
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    covariances: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None
    heatmaps: NDArray[np.float32] | None


def as_found(outputs: Mapping[str, NDArray[np.float32]]) -> Found:
    """Name the outputs of an exported detector for one image; those it was exported without are None."""
    return Found(*(outputs.get(name) for name in Found._fields))  # type: ignore[arg-type]


class Engine(Protocol):
    """Run a detector.

    Attributes:
        channels: the names of the channels.
        coordinates: the convention of the labels it was trained on.
        lowest_score: minimum score of the points that it returns.
        best_f1: the score with the best F1 in the validation; None if there was none.
        thresholds_px: distances for which there are probabilities, ascending; empty without a calibration.
    """

    channels: list[str]
    coordinates: Coordinates
    lowest_score: float
    best_f1: float | None
    thresholds_px: tuple[float, ...]

    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
