"""Duplicate images: copies of a file, and frames that are nearly the same.

Copies are found by a hash of the files, near-duplicates by the correlation of small grey images: above 0.999 for a
photograph saved again in another size or quality, about 0.99 for neighbouring frames of a video, below 0.6 for
photographs of the same thing from elsewhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The side that thumbnails are reduced to for the search, fast enough even for 60,000 images.
SEARCH_SIDE_PX = 16
# Images compared at a time: 4 bytes per pair.
N_BLOCK = 2048
# Grey levels by which a pixel of a thumbnail must differ to count as different: more than JPEG compression changes it.
DIFFERENT_LEVELS = 12
# Below this standard deviation an image is a single colour, and looks like any other such image.
MIN_CONTRAST_LEVELS = 2.0


class Likeness(NamedTuple):
    """How alike two images must be: their minimum correlation, and the share of pixels that may differ."""

    correlation: float
    share_different: float


# Only a small part of the image has changed slightly, as between neighbouring frames.
NEARLY_SAME = Likeness(0.995, 0.03)
# Most of the image is the same: another frame from a camera that does not move.
SAME_SCENE = Likeness(0.9, 0.1)


class Neighbours(NamedTuple):
    """For each of N images, the most similar one among others.

    Attributes:
        nearest: (N,) its index; -1 if there is none.
        is_nearly_same: (N,) whether the two are nearly the same.
        is_same_scene: (N,) whether at least the scene is the same.
    """

    nearest: NDArray[np.int64]
    is_nearly_same: NDArray[np.bool_]
    is_same_scene: NDArray[np.bool_]


def find_copies(digests: Sequence[bytes]) -> list[list[int]]:
    """Group the indices of files with equal content; only groups of two or more, without empty digests."""
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest:
            groups.setdefault(digest, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def find_neighbours(thumbnails: NDArray[np.uint8], others: NDArray[np.uint8] | None) -> Neighbours:
    """Find the most similar image to each image.

    Args:
        thumbnails: (N, side, side) grey images; each side a multiple of 16.
        others: (M, side, side) images to search; None: the images themselves, except each one's own.
    """
    among = thumbnails if others is None else others
    vectors, vectors_among = _normalise(_reduce(thumbnails)), _normalise(_reduce(among))
    nearest = np.full(len(thumbnails), -1, dtype=np.int64)
    is_near, is_scene = np.zeros((2, len(thumbnails)), dtype=bool)
    if len(among) > (others is None):
        for start in range(0, len(thumbnails), N_BLOCK):
            rows = np.arange(start, min(start + N_BLOCK, len(thumbnails)))
            nearest[rows] = _find_best(vectors[rows], vectors_among, rows if others is None else None)
            likeness = _compare(thumbnails[rows], among[nearest[rows]])
            is_near[rows], is_scene[rows] = _is_like(likeness, NEARLY_SAME), _is_like(likeness, SAME_SCENE)
    return Neighbours(nearest, is_near, is_scene)


def _find_best(
    vectors: NDArray[np.float32], among: NDArray[np.float32], own: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return (N,) the index of the most similar vector; `own` is the one to ignore in each row."""
    best = np.zeros(len(vectors), dtype=np.int64)
    highest = np.full(len(vectors), -np.inf, dtype=np.float32)
    for start in range(0, len(among), N_BLOCK):
        products = vectors @ among[start : start + N_BLOCK].T
        if own is not None:
            here = np.flatnonzero((own >= start) & (own < start + products.shape[1]))
            products[here, own[here] - start] = -np.inf
        columns = products.argmax(axis=1)
        values = products[np.arange(len(vectors)), columns]
        is_better = values > highest
        best[is_better], highest[is_better] = columns[is_better] + start, values[is_better]
    return best


def _reduce(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    n, side = len(thumbnails), thumbnails.shape[-1]
    factor = side // SEARCH_SIDE_PX
    blocks = thumbnails.reshape(n, SEARCH_SIDE_PX, factor, SEARCH_SIDE_PX, factor)
    reduced: NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    return reduced


def _normalise(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to mean 0 and length 1, those without contrast to 0."""
    centred = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    is_flat = lengths < MIN_CONTRAST_LEVELS * np.sqrt(flat.shape[1])
    normalised: NDArray[np.float32] = np.where(is_flat, 0, centred / np.maximum(lengths, 1e-6)).astype(np.float32)
    return normalised


def _compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (N,) correlations and (N,) shares of pixels that differ once brightness and contrast are matched."""
    a, b = (images.reshape(len(images), -1).astype(np.float32) for images in (first, second))
    correlation = (_normalise(a) * _normalise(b)).sum(axis=1)
    a, b = (flat - flat.mean(axis=1, keepdims=True) for flat in (a, b))
    gain = (a * b).sum(axis=1) / np.maximum((b * b).sum(axis=1), 1e-6)
    share = (np.abs(a - gain[:, None] * b) > DIFFERENT_LEVELS).mean(axis=1, dtype=np.float32)
    return correlation, share


def _is_like(likeness: tuple[NDArray[np.float32], NDArray[np.float32]], at_least: Likeness) -> NDArray[np.bool_]:
    correlation, share = likeness
    like: NDArray[np.bool_] = (correlation >= at_least.correlation) & (share <= at_least.share_different)
    return like
