"""Measure how large images and objects are, and propose an input size that suits them."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part, Requirements, measure_to_nearest

# Target size of small objects (the smallest tenth) in the network's input, and target distance between their points.
OBJECT_SIDE_PX = 48
SPACING_PX = 6
# timm's encoders halve the input five times.
MULTIPLE = 32
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 64, 1024
# Objects smaller than this in the input are hardly visible.
TINY_OBJECT_PX = 12
SMALL_SHARE = 0.1


class SizeStatistics(NamedTuple):
    """The sizes in a part, in pixels of the images.

    Attributes:
        images: number of images of each size, as `height x width`, the most frequent first.
        object_px: the 0.1, 0.5 and 0.9 quantiles of the longer side of the objects; NaN if none has two points or a
            box.
        spacing_px: the same quantiles of the distance from a point to the nearest one of its object.
        proposed_size: (height, width) for `data.image_size`; None if nothing is known.
    """

    images: dict[str, int]
    object_px: tuple[float, float, float]
    spacing_px: tuple[float, float, float]
    proposed_size: tuple[int, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, with null for what is unknown."""
        quantiles = {
            name: [None if math.isnan(value) else round(value, 2) for value in values]
            for name, values in (("object_px", self.object_px), ("spacing_px", self.spacing_px))
        }
        return {**self._asdict(), **quantiles}


def measure_sizes(part: Part) -> SizeStatistics:
    """Measure images and objects, and propose an input size at which the small ones are still visible."""
    sizes = part.sizes[part.sizes.all(axis=1)]
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    images = {f"{height}x{width}": int(n) for (height, width), n in zip(different[order], counts[order], strict=True)}
    sides, spacings = _measure_objects(part)
    object_px, spacing_px = _quantiles(sides), _quantiles(spacings)
    return SizeStatistics(images, object_px, spacing_px, _propose(sizes, object_px[0], spacing_px[0]))


def check_object_sizes(part: Part, requirements: Requirements) -> list[Finding]:
    """Find objects that are hardly visible in the network's input."""
    if requirements.image_size is None:
        return []
    sides, _ = _measure_objects(part, part.scales(requirements))
    n_tiny = int((sides < TINY_OBJECT_PX).sum())
    if n_tiny <= SMALL_SHARE * len(sides):
        return []
    proposed = measure_sizes(part).proposed_size
    text = (
        f"of {count_in_words(len(sides), 'object')} {agree(n_tiny, 'is', 'are')} smaller than {TINY_OBJECT_PX} px in "
        f"the network's input of {requirements.image_size[0]}x{requirements.image_size[1]} (height x width)."
    )
    if proposed is not None and proposed[0] * proposed[1] > requirements.image_size[0] * requirements.image_size[1]:
        text += f" Try --data.image_size='{list(proposed)}', or crop the images."
    return [Finding("warning", "small_objects", str(part.path), n_tiny, text)]


def _measure_objects(
    part: Part, scales: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the longer side of each object (its points or its box), and the distance of each point to its nearest."""
    table = part.table
    rows = np.flatnonzero(~part.is_outside)
    points = table.truths.points[rows] * (1 if scales is None else scales[part.owners[rows]])
    boxes = table.truths.box_sizes[rows] * (1 if scales is None else scales[part.owners[rows]].max(axis=1))
    objects = part.number_objects(rows)
    starts = np.flatnonzero(np.diff(objects, prepend=-1))
    if not len(starts):
        return np.zeros(0), np.zeros(0)
    spread = (np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts)).max(axis=1)
    sides = np.fmax(spread, boxes[starts])
    nearest = measure_to_nearest(points, objects)
    return sides[sides > 0].astype(np.float64), nearest[np.isfinite(nearest) & (nearest > 0)]


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    if not len(values):
        return math.nan, math.nan, math.nan
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9]).tolist()
    return low, middle, high


def _propose(sizes: NDArray[np.int64], small_object_px: float, small_spacing_px: float) -> tuple[int, int] | None:
    if not len(sizes) or math.isnan(small_object_px):
        return None
    height, width = np.median(sizes, axis=0).tolist()
    wanted = [OBJECT_SIDE_PX / small_object_px]
    if not math.isnan(small_spacing_px):
        wanted.append(SPACING_PX / small_spacing_px)
    scale = min(1.0, max(wanted), LARGEST_SIDE_PX / max(height, width))
    scale = max(scale, SMALLEST_SIDE_PX / min(height, width))
    rows, columns = (MULTIPLE * max(1, round(side * scale / MULTIPLE)) for side in (height, width))
    return rows, columns
