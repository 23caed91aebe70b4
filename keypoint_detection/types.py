"""The vocabulary and the tensors that every other module uses.

Letters in shapes, throughout the package:

======  ==================================================================
letter  meaning
======  ==================================================================
B       images of a batch
C       channels: output heatmaps, each collecting one or more keypoint types
K       keypoint slots of a channel in one image (padded)
D       detections of a channel in one image (padded)
G       ground truths
T       distance thresholds
N       rows of any other kind; the docstring says which
H, W    height and width of the network's input, in pixels
h, w    height and width of a heatmap, in cells; a cell is `stride` input pixels wide
======  ==================================================================

Points are (x, y); sizes are (height, width). Coordinates are continuous: (0, 0) is the outer corner of the top-left
pixel and (0.5, 0.5) its centre. A name states its frame where it could be mistaken: `points_input` are in pixels of the
network's input, `points_image` in pixels of the original image.
"""

from collections.abc import Callable
from math import nan
from typing import TYPE_CHECKING, Generic, TypeVar

# With type parameters, which the one of `typing` takes only from Python 3.11 on.
from typing_extensions import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Values = TypeVar("Values")
Changed = TypeVar("Changed")

# The visibility flag of the COCO keypoint format. Padding is marked NOT_LABELLED too.
NOT_LABELLED = 0
OCCLUDED = 1
VISIBLE = 2

# A detector's maximum per channel and image where no training file tells; a minimum distance that the checks use, too.
MAX_KEYPOINTS = 20
MIN_DISTANCE_PX = 2.0


class DataError(ValueError):
    """The user's data cannot be used; the message lists everything wrong with it."""


class DataFiles(NamedTuple):
    """The COCO files of a data set; None for missing ones."""

    train: "Path | None"
    val: "Path | None"
    test: "Path | None"


class GroundTruths(NamedTuple, Generic[Values]):
    """Points and all that is known of each: tensors or NumPy arrays of one leading shape (...).

    They are the rows of a file or an image, (P,), or padded, (B, C, K). Whatever passes them on treats all attributes
    alike, so that a new one concerns only this class, `PADDING`, and the modules that read and use it.

    Attributes:
        points: (..., 2) float32; the holder tells the frame.
        visibility: (...) int64; 0 padding or not labelled, 1 occluded, 2 visible.
        instances: (...) int64, the index in the image of the annotation that a point belongs to; -1 for padding.
        centres: (..., 2) float32, the centre of that annotation in the frame of the points: of its box, or, if it has
            none, the mean of its labelled points.
        box_sizes: (...) float32, the longer side of that annotation's box in image pixels; NaN if it has none.
        areas: (...) float32, the area of that annotation in square image pixels; NaN if it has none.
    """

    points: Values
    visibility: Values
    instances: Values
    centres: Values
    box_sizes: Values
    areas: Values

    def map(self, change: Callable[[Values], Changed]) -> "GroundTruths[Changed]":
        """Change every attribute in the same way."""
        return GroundTruths(*map(change, self))


# What fills the slots of a batch that hold no point.
PADDING = GroundTruths(points=0.0, visibility=NOT_LABELLED, instances=-1, centres=0.0, box_sizes=nan, areas=nan)


class Batch(NamedTuple):
    """Images and their ground truth, as the loaders deliver them.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        truths: (B, C, K), padded; the points and centres are in input pixels.
        image_ids: (B,) int64, the ids in the COCO file; unique in a data set.
        input_to_image: (B, 2, 3) float32, the affine map from input pixels to pixels of the original image.
        image_sizes: (B, 2) int64, (height, width) of the original image in pixels.
        failures: the id of each image that could not be read, and why. In training another one replaces it; in
            measuring the batch lacks it.
    """

    images: "Tensor"
    truths: "GroundTruths[Tensor]"
    image_ids: "Tensor"
    input_to_image: "Tensor"
    image_sizes: "Tensor"
    failures: tuple[tuple[int, str], ...] = ()

    @property
    def points(self) -> "Tensor":
        """The true points, (B, C, K, 2) input pixels; padded."""
        return self.truths.points

    @property
    def visibility(self) -> "Tensor":
        """The visibility of the points, (B, C, K)."""
        return self.truths.visibility


class Failure(NamedTuple):
    """An image, a frame of a video or a whole video that could not be read.

    Attributes:
        place: the position of the file, and the number of the frame in it; 0 for an image and for a whole video.
        is_frame: whether it is a frame.
        reason: why; names the file, unless it is a frame.
    """

    place: tuple[int, int]
    is_frame: bool
    reason: str


class ImageBatch(NamedTuple):
    """Images without ground truth.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        input_to_image: (B, 2, 3) float32, the affine map from input pixels to pixels of the original image.
        image_sizes: (B, 2) int64, (height, width) of the original image in pixels.
        indices: (B, 2) int64, the position of each image's file among the files to predict on, and the number of the
            frame in a video; 0 for an image.
        failures: the images, frames and videos that could not be read.
    """

    images: "Tensor"
    input_to_image: "Tensor"
    image_sizes: "Tensor"
    indices: "Tensor"
    failures: "tuple[Failure, ...]"


class Maps(NamedTuple):
    """The output of a network.

    Attributes:
        logits: (B, C, h, w) of the heatmaps; `sigmoid` makes them probabilities.
        votes: (B, C, 2, h, w), the way in input pixels from each cell to the centre of the object whose point is
            there; None if points are not grouped.
    """

    logits: "Tensor"
    votes: "Tensor | None" = None


class Grouping(NamedTuple):
    """Which points belong to one object.

    Attributes:
        objects: (B, C, D) int64, the object of each point; -1 for unused slots and points of no object.
        object_scores: (B, O) float32 in [0, 1], descending; 0 marks an unused slot.
        votes: (B, C, D, 2) float32, where each point sees the centre of its object; in the frame of the points.
        margins: (B, C, D) float32, how much nearer the vote is to the centre of its object than to that of any other,
            in units of how far votes of such points may differ; limited to 8.
        belonging: (B, C, D) float32, the probability that a right point belongs to its object; 0 for points of none.
            None if no validation has measured what margins say.
    """

    objects: "Tensor"
    object_scores: "Tensor"
    votes: "Tensor"
    margins: "Tensor"
    belonging: "Tensor | None" = None


class Detections(NamedTuple):
    """Detected points; the field names are those of the exported model's outputs.

    Attributes:
        points: (B, C, D, 2) float32; the caller's variable name gives the frame.
        scores: (B, C, D) float32 in [0, 1], descending along D; 0 marks an unused slot.
        covariances: (B, C, D, 2, 2) float32, square pixels of that frame: those of the peaks after decoding, those of
            the points' errors after calibration; None if not requested.
        probabilities: (B, C, D, T) float32, of being right within each threshold; None without a calibration.
        grouping: the objects; None if points are not grouped.
    """

    points: "Tensor"
    scores: "Tensor"
    covariances: "Tensor | None" = None
    probabilities: "Tensor | None" = None
    grouping: Grouping | None = None
