"""The annotations of a COCO keypoint file as flat arrays, many of them at a time."""

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco_file import AnnotationEntry, CocoFile
from keypoint_detection.data.coco_images import CocoImages
from keypoint_detection.data.problems import Problems
from keypoint_detection.types import NOT_LABELLED, OCCLUDED, VISIBLE, GroundTruths

logger = logging.getLogger(__name__)

# No labelled point is further from an image than this.
COORDINATE_LIMIT = 1e9
# Annotations converted to arrays together: enough to keep NumPy's overhead small, few enough to need little memory.
N_TOGETHER = 2048
# No labelled box or object is larger than this, in pixels or square pixels.
EXTENT_LIMIT = COORDINATE_LIMIT**2
# The types of JSON values that are numbers, which its true and false are not.
NUMBERS = {int, float}
IDENTIFIERS = {int, str}


class CocoCategory(NamedTuple):
    """A category with keypoints.

    Attributes:
        name: the name of the category.
        type_indices: the keypoint type of each of its keypoints.
    """

    name: str
    type_indices: list[int]


class LabelledPoints(NamedTuple):
    """All labelled points, ordered by image and then as in the file (P points, I images).

    Attributes:
        n_points: (I,) int64, how many points each image has.
        types: (P,) int64.
        truths: (P,), with coordinates as in the file.
    """

    n_points: NDArray[np.int64]
    types: NDArray[np.int64]
    truths: GroundTruths[NDArray[Any]]


class _Annotation(NamedTuple):
    position: int  # in the file
    entry: AnnotationEntry
    category: CocoCategory
    image: int


class _Part(NamedTuple):
    """Some annotations (A) and their labelled points (P), in the order of the file."""

    images: NDArray[np.int32]  # (A,)
    extents: NDArray[np.float32]  # (A, 4) box size, area, and x and y of the box's centre
    n_points: NDArray[np.int32]  # (A,)
    points: NDArray[np.float32]  # (P, 2)
    visibility: NDArray[np.int8]  # (P,)
    types: NDArray[np.int32]  # (P,)


def is_identifier(value: Any) -> bool:
    """Whether a value can identify a category or an image in a COCO file."""
    return type(value) in IDENTIFIERS


def read_annotations(
    file: CocoFile, images: CocoImages, categories: Mapping[Any, CocoCategory | None], problems: Problems
) -> LabelledPoints:
    """Read the labelled points of a file; the log says how many annotations have no keypoints.

    Args:
        file: the content of the file.
        images: the images of the result; annotations of those that are skipped are left out too.
        categories: the categories by id; None for those without keypoints.
        problems: collects what is wrong; if there is anything, the points are not usable.
    """
    indices = {identifier: index for index, identifier in enumerate(images.ids)}
    parts: list[_Part] = []
    pending: list[_Annotation] = []

    def finish() -> None:
        parts.append(_read_part(pending, problems))
        pending.clear()

    n_without_keypoints = 0
    for position, entry in enumerate(file.read_annotations()):
        category_id, image_id = entry.category_id, entry.image_id
        if type(category_id) not in IDENTIFIERS or category_id not in categories:
            finish()  # so that problems are recorded in the order of the file
            problems.add(
                "category",
                f"{_call(entry, position)} has category {category_id!r:.80}, which is not in 'categories'.",
            )
            continue
        category = categories[category_id]
        if category is None or entry.keypoints is None or entry.keypoints == []:
            n_without_keypoints += 1
            continue
        if type(image_id) in IDENTIFIERS and image_id in images.skipped:
            continue
        if type(image_id) not in IDENTIFIERS or image_id not in indices:
            finish()
            problems.add("image", f"{_call(entry, position)} has image {image_id!r:.80}, which is not in 'images'.")
            continue
        pending.append(_Annotation(position, entry, category, indices[image_id]))
        if len(pending) == N_TOGETHER:
            finish()
    finish()
    if n_without_keypoints:
        annotations = count_in_words(n_without_keypoints, "annotation")
        logger.info("Left out, as without keypoints or of another category: %s.", annotations)
    return _join(parts, len(images.ids))


def _call(entry: AnnotationEntry, position: int) -> str:
    return f"annotation {f'number {position}' if entry.id is msgspec.UNSET else entry.id!s:.80}"


def _read_part(annotations: Sequence[_Annotation], problems: Problems) -> _Part:
    n_keypoints = np.array([len(one.category.type_indices) for one in annotations], dtype=np.int32)
    triples = _read_together([one.entry.keypoints for one in annotations], n_keypoints)
    if triples is None:
        triples = np.array(
            [triple for one in annotations for triple in _read_triples(one, problems)], dtype=np.float64
        ).reshape(-1, 3)
    types = np.fromiter(chain.from_iterable(one.category.type_indices for one in annotations), np.int32)
    is_labelled = triples[:, 2] != NOT_LABELLED
    owners = np.repeat(np.arange(len(annotations)), n_keypoints)
    return _Part(
        images=np.array([one.image for one in annotations], dtype=np.int32),
        extents=np.array([_read_extent(one.entry) for one in annotations], dtype=np.float32).reshape(-1, 4),
        n_points=np.bincount(owners[is_labelled], minlength=len(annotations)).astype(np.int32),
        points=triples[is_labelled, :2].astype(np.float32),
        visibility=triples[is_labelled, 2].astype(np.int8),
        types=types[is_labelled],
    )


def _read_together(values: list[Any], n_keypoints: NDArray[np.int32]) -> NDArray[np.float64] | None:
    """Return the (x, y, v) of several annotations, (N, 3); None if any of them needs a closer look."""
    if not all(type(one) is list for one in values) or [len(one) for one in values] != (3 * n_keypoints).tolist():
        return None
    numbers = list(chain.from_iterable(values))
    if not set(map(type, numbers)) <= NUMBERS:
        return None
    try:
        triples = np.fromiter(numbers, np.float64, len(numbers)).reshape(-1, 3)
    except OverflowError:  # an integer larger than any float
        return None
    visibility = triples[:, 2]
    is_known = (visibility == NOT_LABELLED) | (visibility == OCCLUDED) | (visibility == VISIBLE)
    is_near = (np.abs(triples[:, :2]) < COORDINATE_LIMIT).all(axis=1)
    return triples if bool((is_known & (is_near | (visibility == NOT_LABELLED))).all()) else None


def _read_triples(annotation: _Annotation, problems: Problems) -> list[tuple[float, float, int]]:
    """Return the (x, y, v) of one annotation, with zeros for points that are unlabelled, unusable or missing."""
    values, category = annotation.entry.keypoints, annotation.category
    name = _call(annotation.entry, annotation.position)
    nothing = (0.0, 0.0, NOT_LABELLED)
    n_expected = len(category.type_indices)
    if type(values) is not list or not set(map(type, values)) <= NUMBERS:
        problems.add("no numbers", f"{name}: 'keypoints' is not a flat list of numbers: {values!r:.80}.")
        return [nothing] * n_expected
    if len(values) != 3 * n_expected:
        problems.add(
            "length",
            f"{name} has {len(values)} keypoint values; category '{category.name}' has "
            f"{count_in_words(n_expected, 'keypoint')}, "
            f"so {3 * n_expected} are expected (x, y, v each).",
        )
        return [nothing] * n_expected
    triples = [nothing] * n_expected
    for index, (x, y, visibility) in enumerate(zip(values[0::3], values[1::3], values[2::3], strict=True)):
        if visibility not in (NOT_LABELLED, OCCLUDED, VISIBLE):
            problems.add("visibility", f"{name} has the visibility {visibility!r}; 0, 1 or 2 is expected.")
        elif visibility != NOT_LABELLED and not (abs(x) < COORDINATE_LIMIT and abs(y) < COORDINATE_LIMIT):
            problems.add(
                "not finite", f"{name} has the labelled point ({x!s:.40}, {y!s:.40}); pixel coordinates are expected."
            )
        elif visibility != NOT_LABELLED:
            triples[index] = (float(x), float(y), int(visibility))
    return triples


def _read_extent(entry: AnnotationEntry) -> tuple[float, float, float, float]:
    """Return the longer side of the box, the area, and the box's centre; NaN if the annotation has no usable one."""
    box, area = entry.bbox, entry.area
    left, top, width, height = box if type(box) is list and len(box) == 4 else (0, 0, 0, 0)
    is_box = (
        type(width) in NUMBERS and type(height) in NUMBERS and 0 < width < EXTENT_LIMIT and 0 < height < EXTENT_LIMIT
    )
    is_area = type(area) in NUMBERS and 0 < area < EXTENT_LIMIT
    is_placed = is_box and type(left) in NUMBERS and type(top) in NUMBERS and max(abs(left), abs(top)) < EXTENT_LIMIT
    return (
        float(max(width, height)) if is_box else math.nan,
        float(area) if is_area else math.nan,
        float(left + width / 2) if is_placed else math.nan,
        float(top + height / 2) if is_placed else math.nan,
    )


def _join(parts: list[_Part], n_images: int) -> LabelledPoints:
    """Join the parts, with the annotations of each image together."""

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    images, n_points = column("images"), column("n_points")
    order = np.argsort(images, kind="stable")
    n_annotations = np.bincount(images, minlength=n_images)
    instances = np.empty(len(images), dtype=np.int64)
    instances[order] = _count_up(n_annotations[n_annotations > 0])
    owners = np.repeat(order, n_points[order])  # the annotation of every point of the result
    first = np.cumsum(n_points) - n_points
    rows = first[owners] + _count_up(n_points[order])
    extents, points = column("extents"), column("points")
    # Of annotations without a box, the mean of their points.
    sums = np.stack([np.bincount(owners, points[rows, axis], minlength=len(images)) for axis in (0, 1)], axis=1)
    means = (sums / np.maximum(n_points, 1)[:, None]).astype(np.float32)
    centres = np.where(np.isnan(extents[:, 2:]), means, extents[:, 2:])
    return LabelledPoints(
        n_points=np.bincount(images[owners], minlength=n_images),
        types=column("types")[rows].astype(np.int64),
        truths=GroundTruths(
            points=points[rows],
            visibility=column("visibility")[rows].astype(np.int64),
            instances=instances[owners],
            centres=centres[owners],
            box_sizes=extents[owners, 0],
            areas=extents[owners, 1],
        ),
    )


def _count_up(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Number the members of consecutive groups from 0, (sum of counts,).

    >>> _count_up(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    starts = np.cumsum(counts) - counts
    numbers: NDArray[np.int64] = np.arange(counts.sum()) - np.repeat(starts, counts)
    return numbers
