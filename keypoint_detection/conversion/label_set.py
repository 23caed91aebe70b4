"""Labels on their way between formats: what every reader returns and every writer takes, and how a format is described.

Coordinates are continuous here, (0, 0) being the outer corner of the top-left pixel, whatever the format uses.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.data.image_bounds import ImageBounds, MissingImages, OutsideImages
from keypoint_detection.types import NOT_LABELLED

Pixels = NDArray[np.uint8]

SPLITS = ("train", "val", "test")
# Names that other programs use for them, as at the end of the file name person_keypoints_val2017.
SPLIT_NAME = re.compile(r"(?:^|[_\W])(?:(train)(?:ing)?|(val)(?:id|idation)?|(test)(?:ing)?)\d*$", re.IGNORECASE)
# Decimals of pixels in text: a millionth is far below anything visible, and hides the noise of binary fractions.
DECIMALS = 6


@dataclass
class Category:
    """A kind of object and its keypoint types.

    Attributes:
        name: the name of the kind.
        keypoints: names of its keypoint types.
        skeleton: pairs of keypoints to join by a line, counted from 0.
    """

    name: str
    keypoints: list[str]
    skeleton: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Instance:
    """One object in an image.

    Attributes:
        category: index of its category.
        points: (K, 2) float64, continuous pixels, a row per keypoint type of the category; (0, 0) if not labelled.
        visibility: (K,) int64, the flags of COCO: 0 not labelled, 1 occluded, 2 visible.
        box: (left, top, width, height) in continuous pixels, if one was drawn.
    """

    category: int
    points: NDArray[np.float64]
    visibility: NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(K,) whether each point is labelled."""
        return np.asarray(self.visibility != NOT_LABELLED)

    def enclose(self) -> tuple[float, float, float, float]:
        """Return the box, or the smallest one around the labelled points: (left, top, width, height) in pixels."""
        if self.box is not None or not self.is_labelled.any():
            return self.box or (0.0, 0.0, 0.0, 0.0)
        labelled = self.points[self.is_labelled]
        (left, top), (width, height) = labelled.min(0).tolist(), np.ptp(labelled, axis=0).tolist()
        return left, top, width, height


@dataclass
class LabelledImage:
    """An image and its labels.

    Attributes:
        name: relative path that the source uses as its name, with forward slashes.
        size: (height, width) in pixels, upright.
        path: its file; None for a video frame that has not been written yet.
        read: returns the pixels if there is no file.
        group: what it was taken from, such as a video; empty if the format does not say.
        split: its part of the data set in the source, such as `val`; empty if there are no parts.
        instances: the objects; empty for a negative.
    """

    name: str
    size: tuple[int, int]
    path: Path | None
    read: Callable[[], Pixels] | None = None
    group: str = ""
    split: str = ""
    instances: list[Instance] = field(default_factory=list)


@dataclass
class LabelSet:
    """The labels of a data set.

    Attributes:
        categories: the kinds of objects.
        images: the images, in the source's order.
        notes: what was in the source but is not here, to report to the user.
        info: where the labels come from, for formats that describe themselves.
    """

    categories: list[Category]
    images: list[LabelledImage]
    notes: list[str] = field(default_factory=list)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Reading:
    """What the user specifies about a source besides its path.

    Attributes:
        image_root: the folder of the images; None: beside the labels.
        keypoints: names of the keypoint types, in order, for formats that leave them or their order open; can be empty.
        missing_images: whether images whose file is missing are an error, or left out.
        outside_images: whether images outside the folder of the labels are an error, or allowed.
    """

    image_root: Path | None
    keypoints: list[str]
    missing_images: MissingImages
    outside_images: OutsideImages

    def bound_images(self, file: Path, info: Any = None) -> ImageBounds:
        """Return which images a label file may name; `info` is its description of itself."""
        return ImageBounds.of_file(file, self.image_root, self.outside_images, info)


class Format(NamedTuple):
    """How a format of labels is recognised, read and written, and what it can represent.

    Attributes:
        title: its usual name.
        coordinates: convention of its coordinates: in `continuous`, (0, 0) is the corner of the top-left pixel, in
            `pixel_index` its centre.
        recognises: whether a file or folder is of this format, by its name, its first line and what is beside it.
        read: returns the labels in the format's own coordinates.
        write: writes labels in the format's own coordinates to a file or folder, and returns notes for the user, e.g.
            on what to do next; None: it is only read.
        recognises_json: whether the content of a JSON file is of this format.
        source_suffix: how the name of a label file ends, by which it is found in a folder; can be empty.
        output_suffix: how the name of a single output file ends; empty: the format is written to a folder.
        parts: how training, validation and test images are distinguished: not at all (`none`), by separate `files`, or
            by marks `inside` the labels.
        skeletons: which categories can have lines between their points: `all`, `one` (if it is the only one) or `none`.
        has_occluded: whether occluded points differ from visible ones.
        has_equal_names: whether several categories can have the same name.
        image_folder: the folder that the images of a written data set are in; empty: the images stay where they are.
        place_image: where in that folder an image is, from its part of the data set and the parts of its name.
        label_file: the label file of an image, which no other image may share; None: images have no files of their own.
    """

    title: str
    coordinates: Coordinates
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Reading], LabelSet]
    write: Callable[[LabelSet, Path], list[str]] | None = None
    recognises_json: Callable[[Any], bool] = lambda content: False
    source_suffix: str = ""
    output_suffix: str = ""
    parts: Literal["none", "files", "inside"] = "none"
    skeletons: Literal["all", "one", "none"] = "all"
    has_occluded: bool = True
    has_equal_names: bool = True
    image_folder: str = ""
    place_image: Callable[[str, tuple[str, ...]], Path] = lambda split, parts: Path(*parts)
    label_file: Callable[[Path], Path] | None = None


def name_split(name: str) -> str:
    """Return the part of a data set that a name stands for; empty if it does not.

    >>> name_split("Validation"), name_split("person_keypoints_train2017"), name_split("mice")
    ('val', 'train', '')
    """
    match = SPLIT_NAME.search(name)
    return next(filter(None, match.groups())).lower() if match else ""


def read_edges(entries: Any, n_keypoints: int, start: int) -> list[tuple[int, int]]:
    """Read the lines of a skeleton, ignoring invalid ones: they are only for drawing.

    Args:
        entries: pairs of integers, if the file is valid.
        n_keypoints: number of keypoints of the category.
        start: the number of the first keypoint.

    >>> read_edges([[1, 2], [2, 9], None], n_keypoints=2, start=1)
    [(0, 1)]
    """
    pairs = [one for one in entries if isinstance(one, list) and len(one) == 2] if isinstance(entries, list) else []
    places = range(start, start + n_keypoints)
    return [(a - start, b - start) for a, b in pairs if type(a) is type(b) is int and a in places and b in places]


def make_instance(category: int, n_keypoints: int) -> Instance:
    """Make an object without labelled points."""
    return Instance(category, np.zeros((n_keypoints, 2)), np.zeros(n_keypoints, dtype=np.int64))


def round_px(value: float) -> float:
    """Round a coordinate for a text file."""
    return round(float(value), DECIMALS)
