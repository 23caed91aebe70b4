"""One part of a data set as the checks see it: labels, true image sizes, channels, and a detector's requirements."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.channels import types_in_channels
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.images import ResizeMode, fit_size
from keypoint_detection.types import VISIBLE


class Requirements(NamedTuple):
    """What a detector requires of its data.

    Attributes:
        image_size: (height, width) of its input; None: the image's own.
        resize_mode: how images are resized to it.
        visible_only: whether occluded points are ignored.
        max_keypoints: maximum number of points of a channel in one image; None: as many as there are.
        min_distance_px: minimum distance between two points of a channel in input pixels.
    """

    image_size: tuple[int, int] | None
    resize_mode: ResizeMode
    visible_only: bool
    max_keypoints: int | None
    min_distance_px: float


class Part(NamedTuple):
    """The labels of a file, and what is known about its images (I images, P labelled points, C channels).

    Attributes:
        name: `train`, `val` or `test`; empty for a single file.
        table: the labels.
        sizes: (I, 2) true (height, width) in pixels, upright; 0 if an image cannot be read.
        channels: channel name to the keypoint types it collects.
        owners: (P,) the image that each point belongs to.
        is_outside: (P,) whether a point is outside its image.
        in_channels: (P, C) whether each point counts in each channel.
    """

    name: str
    table: CocoKeypoints
    sizes: NDArray[np.int64]
    channels: Mapping[str, Sequence[str]]
    owners: NDArray[np.int64]
    is_outside: NDArray[np.bool_]
    in_channels: NDArray[np.bool_]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.table.path

    def describe_point(self, row: int) -> str:
        """Name a point for a message: type, coordinates, image."""
        x, y = self.table.truths.points[row]
        name = str(self.table.keypoint_types[self.table.types[row]])
        return f"{name} at ({x:g}, {y:g}) in {self.describe_image(int(self.owners[row]))}"

    def describe_image(self, index: int) -> str:
        """Name an image for a message: id and file."""
        return f"image {self.table.image_ids[index]} ({self.table.image_paths[index].decode()})"

    def number_objects(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (R,) a number that the points of one object share, which are adjacent."""
        instances = self.table.truths.instances[rows]
        numbers: NDArray[np.int64] = self.owners[rows] * (1 + int(instances.max(initial=0))) + instances
        return numbers

    def scales(self, requirements: Requirements) -> NDArray[np.float64]:
        """Return (I, 2) the width and height of an image pixel in input pixels; 1 if unknown."""
        if requirements.image_size is None:
            return np.ones((len(self.sizes), 2))
        scales = np.ones((len(self.sizes), 2))
        different, members = np.unique(self.sizes, axis=0, return_inverse=True)
        for number, (height, width) in enumerate(different.tolist()):
            if height and width:
                is_stretched = requirements.resize_mode == "stretch"
                inner = requirements.image_size if is_stretched else fit_size((height, width), requirements.image_size)
                scales[members.reshape(-1) == number] = inner[1] / width, inner[0] / height
        return scales


def make_part(
    name: str,
    table: CocoKeypoints,
    sizes: NDArray[np.int64],
    channels: Mapping[str, Sequence[str]],
    visible_only: bool,
) -> Part:
    """Join labels and sizes; points outside their image are not used; nor are occluded ones if they do not count."""
    owners = np.repeat(np.arange(len(table.image_ids)), np.diff(table.offsets))
    limits = sizes[owners][:, ::-1]
    is_known = limits.min(axis=1) > 0
    is_outside: NDArray[np.bool_] = ((table.truths.points < 0) | (table.truths.points > limits)).any(axis=1) & is_known
    is_used = ~is_outside & (table.truths.visibility == VISIBLE) if visible_only else ~is_outside
    in_channels = types_in_channels(table.keypoint_types, channels)[table.types] & is_used[:, None]
    return Part(name, table, sizes, channels, owners, is_outside, in_channels)


def pair_within_groups(groups: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of rows of one group, as (N,) first and (N,) second rows; those of a group must be adjacent."""
    # Each row with the next one, the next but one, and so on up to the largest group.
    for step in range(1, len(groups)):
        firsts = np.flatnonzero(groups[step:] == groups[:-step])
        if not len(firsts):
            return
        yield firsts, firsts + step


def measure_to_nearest(points: NDArray[np.floating[Any]], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (P,) the distance of each point (P, 2) to the nearest one of its group; infinite if it is alone."""
    nearest = np.full(len(points), np.inf)
    for pair in pair_within_groups(groups):
        apart = np.linalg.norm(points[pair[1]] - points[pair[0]], axis=1)
        for rows in pair:
            nearest[rows] = np.minimum(nearest[rows], apart)
    return nearest
