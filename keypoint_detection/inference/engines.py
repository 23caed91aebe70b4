"""Run a detector with PyTorch or onnxruntime, behind one interface in NumPy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco_keypoints import MAX_KEYPOINT_TYPES, Coordinates
from keypoint_detection.types import DataError

# Maximum number of distances that a detector is calibrated for.
MAX_THRESHOLDS = 1000


class Found(NamedTuple):
    """The detections in one image.

    Attributes:
        points: (C, D, 2) float32 in continuous pixels of the image as given.
        scores: (C, D) float32, descending; 0 marks an unused slot.
        covariances: (C, D, 2, 2) float32 of the errors, square pixels of the image; None without a calibration.
        probabilities: (C, D, T) float32, of being right within each threshold; None without a calibration.
        objects: (C, D) int64, the object of each point; -1 for none. None if the detector does not group points.
        object_scores: (O,) float32 in [0, 1], descending; 0 marks an unused slot. None likewise.
        belonging: (C, D) float32, the probability that a right point belongs to its object; None if unknown.
        heatmaps: (C, h, w) float32 in [0, 1]; None unless requested.
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    covariances: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None
    objects: NDArray[np.int64] | None
    object_scores: NDArray[np.float32] | None
    belonging: NDArray[np.float32] | None
    heatmaps: NDArray[np.float32] | None


def as_found(outputs: Mapping[str, NDArray[Any]]) -> Found:
    """Name the outputs of an exported detector for one image; those it was exported without are None."""
    return Found(*(outputs.get(name) for name in Found._fields))  # type: ignore[arg-type]


class Metadata(NamedTuple):
    """The description of a detector in its exported file; for the other attributes, see `Engine`.

    Attributes:
        outputs: the names of its outputs, in order; empty if the format names them itself.
    """

    channels: list[str]
    coordinates: Coordinates
    lowest_score: float
    best_f1: float | None
    thresholds_px: tuple[float, ...]
    outputs: list[str]


def read_metadata(text: str, path: str) -> Metadata:
    """Read what `kpd export` wrote into a file about its detector.

    Args:
        text: a JSON object.
        path: path of the file, for the messages.

    Raises:
        DataError: it was not written by `kpd export`, or has been changed since.
    """
    try:
        content = json.loads(text)
        # Files from earlier versions have no calibration and no list of outputs.
        distances = (content.get("calibration") or {}).get("thresholds_px", [])
        outputs = content.get("outputs", [])
        keys = ("channels", "coordinates", "score_threshold", "best_f1")
        channels, coordinates, lowest_score, best_f1 = (content[key] for key in keys)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} was not written by `kpd export`: it does not name its channels.") from error
    is_valid = {
        "channels": _are_names(channels) and len(channels) > 0,
        "coordinates": coordinates in get_args(Coordinates),
        "score_threshold": _is_number(lowest_score, 0, 1),
        "best_f1": best_f1 is None or _is_number(best_f1, 0, 1),
        "thresholds_px": isinstance(distances, list)
        and len(distances) <= MAX_THRESHOLDS
        and all(_is_number(distance, 0, float("inf")) for distance in distances),
        "outputs": _are_names(outputs),
    }
    wrong = [key for key, valid in is_valid.items() if not valid]
    if wrong:
        raise DataError(
            f"{path}: its metadata has been changed since `kpd export` wrote it ({', '.join(wrong)}); export it again."
        )
    return Metadata(channels, coordinates, lowest_score, best_f1, tuple(distances), outputs)


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_KEYPOINT_TYPES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_number(value: Any, lowest: float, highest: float) -> bool:
    return type(value) in (int, float) and lowest <= value <= highest and value != float("inf")


class Engine(Protocol):
    """Run a detector.

    Attributes:
        channels: the names of the channels.
        coordinates: the convention of the labels it was trained on.
        lowest_score: minimum score of the points that it returns.
        best_f1: the score with the best F1 in the validation; None without a validation.
        thresholds_px: distances for which there are probabilities, ascending; empty without a calibration.
    """

    channels: list[str]
    coordinates: Coordinates
    lowest_score: float
    best_f1: float | None
    thresholds_px: tuple[float, ...]

    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
