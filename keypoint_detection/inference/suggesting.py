"""Rank images without labels by how much a detector doubts its points in them, and choose varied ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.inference.predictor import Predictor
from keypoint_detection.inference.results import Result

Floats = NDArray[np.float32]

# Width and height of the thumbnails that distinguish near-duplicates from different images.
THUMBNAIL_SIZE = (32, 24)
# The margin added on each side of an image, as a share of its size, so that everything in it looks smaller.
MARGIN = 0.125
# Detections in an image and in a changed copy that are at least this share of its diagonal apart are unrelated.
REACH = 0.05
# A single doubtful channel counts, even if the detector is sure of all others.
WEIGHT_OF_WORST = 0.5
# Thumbnails closer than this are those of the same image.
COPY = 1e-6


class Impression(NamedTuple):
    """A detector's findings in an image, and how robust they are to small changes of it.

    Attributes:
        scores: (D,) scores of the points of each channel, descending.
        shifts: (D,) how far each point moves in changed copies of the image, as a share of the distance at which it
            counts as another point, 0 to 1: the mean over the copies.
        thumbnail: (P,) a small grey version of the image, 0 to 1.
    """

    scores: list[Floats]
    shifts: list[Floats]
    thumbnail: Floats


def take_impression(detector: Predictor, pixels: NDArray[np.uint8], mirrored: Sequence[int] | None) -> Impression:
    """Examine an image, a copy of it with a margin and, if it is known which channels swap, its mirror image.

    Args:
        detector: detector with a score threshold of 0, so that doubtful points are included, and continuous
            coordinates.
        pixels: (H, W, 3) uint8 RGB.
        mirrored: the channel that each channel becomes in a mirrored image; None if unknown.
    """
    height, width = pixels.shape[:2]
    rows, columns = round(MARGIN * height), round(MARGIN * width)
    with_margin = np.pad(pixels, [(rows, rows), (columns, columns), (0, 0)], constant_values=LETTERBOX_GREY)
    copies = [pixels, with_margin] + ([np.ascontiguousarray(pixels[:, ::-1])] if mirrored is not None else [])
    found, smaller, *flipped = (_as_lists(result, detector) for result in detector(copies))
    readings = [[points - (columns, rows) for points in smaller.points]]
    if mirrored is not None:
        readings.append([flipped[0].points[c] * (-1, 1) + (width, 0) for c in mirrored])
    reach = REACH * float(np.hypot(height, width))
    shifts = [
        np.stack([_find_shifts(points, reading[c], reach) for reading in readings]).mean(axis=0)
        for c, points in enumerate(found.points)
    ]
    return Impression(found.scores, shifts, make_thumbnail(pixels))


class _Lists(NamedTuple):
    points: list[Floats]
    scores: list[Floats]


def _as_lists(result: Result, detector: Predictor) -> _Lists:
    return _Lists([result.xy[name] for name in detector.channels], [result.scores[name] for name in detector.channels])


def _find_shifts(points: Floats, others: Floats, reach: float) -> Floats:
    """Return (D,) the distances from (D, 2) points to the nearest of (E, 2) others, as shares of the reach, up to 1."""
    if not len(others):
        return np.ones(len(points), np.float32)
    distances = np.linalg.norm(points[:, None] - others[None], axis=2).min(axis=1, initial=np.inf)
    return np.asarray(np.minimum(distances / reach, 1), np.float32)


def make_thumbnail(pixels: NDArray[np.uint8]) -> Floats:
    """Shrink an image to a few hundred grey values, 0 to 1."""
    small = Image.fromarray(pixels).convert("L").resize(THUMBNAIL_SIZE)
    return (np.asarray(small, np.float32) / np.float32(255)).ravel()


def measure_doubts(impressions: Sequence[Impression], score_threshold: float) -> NDArray[np.float64]:
    """Measure how much a detector doubts what it found in each image.

    The expected number of points of a channel is the median over all images of the number of points that count. Signs
    of doubt are low scores among that many points, a high score of the next one, and points that move when the image
    changes slightly.

    Args:
        impressions: the impressions of N images.
        score_threshold: the score from which points count.

    Returns: (N,) doubts; 0 means no doubt at all.
    """
    n_channels = len(impressions[0].scores)
    counted = [[(one.scores[c] >= score_threshold).sum() for c in range(n_channels)] for one in impressions]
    expected = np.maximum(np.median(counted, axis=0), 1).astype(int).tolist()
    doubts = []
    for one in impressions:
        by_channel = [_doubt(*entry) for entry in zip(one.scores, one.shifts, expected, strict=True)]
        doubts.append(np.mean(by_channel) + WEIGHT_OF_WORST * np.max(by_channel))
    return np.array(doubts)


def _doubt(scores: Floats, shifts: Floats, expected: int) -> float:
    first, following = scores[:expected], scores[expected : expected + 1]
    n_missing = expected - len(first)
    moved = (float(shifts[:expected].sum()) + n_missing) / expected
    return 1 - float(first.sum()) / expected + float(following.sum()) + moved


def choose_images(
    doubts: NDArray[np.float64] | None, thumbnails: NDArray[np.float32], known: NDArray[np.float32], n_images: int
) -> list[int]:
    """Choose the most doubtful images that resemble neither each other nor any labelled image.

    Args:
        doubts: (N,) from `measure_doubts`; None to choose only by difference: each time, the image farthest from those
            already chosen.
        thumbnails: (N, P) from `make_thumbnail`.
        known: (M, P) thumbnails of images that are labelled; M may be 0.
        n_images: how many to choose, at most N.

    Returns:
        Their indices, in the order in which to label them; fewer if the others are copies of these or of known ones.
    """
    distances = np.full(len(thumbnails), np.inf)
    for thumbnail in known:
        distances = np.minimum(distances, np.linalg.norm(thumbnails - thumbnail, axis=1))
    if len(known):
        usual = float(np.median(distances))
    else:
        # With nothing to compare with, the usual distance is that between images far apart in the list: neighbours may
        # be frames of one video.
        others = np.roll(thumbnails, len(thumbnails) // 2, axis=0)
        usual = float(np.median(np.linalg.norm(thumbnails - others, axis=1))) if len(thumbnails) > 1 else 1.0
    chosen: list[int] = []
    is_left = np.ones(len(thumbnails), dtype=bool)
    for _ in range(min(n_images, len(thumbnails))):
        novelty = np.minimum(distances / max(usual, np.finfo(np.float32).tiny), 1)
        is_left &= distances > COPY
        if not is_left.any():
            break
        worth = distances if doubts is None else doubts * novelty
        best = int(np.where(is_left, worth, -np.inf).argmax())
        chosen.append(best)
        is_left[best] = False
        distances = np.minimum(distances, np.linalg.norm(thumbnails - thumbnails[best], axis=1))
    return chosen
