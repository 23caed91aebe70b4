"""Compare an exported detector with PyTorch, point by point."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.inference.engines import Engine, Found
from keypoint_detection.inference.results import spread_of

# Maximum distance between points of an exported detector and those of PyTorch, in pixels of the original images.
MAX_DIFFERENCE_PX = 0.05
# Points further apart than this are not the same point.
MATCH_RADIUS_PX = 1.0
# Rounding can decide whether a point reaches the minimum score.
SCORE_MARGIN = 0.01
N_TIMED = 5


class Parity(NamedTuple):
    """How far an exported detector deviates from PyTorch.

    Attributes:
        n_images: images compared.
        min_score: minimum score of the points that count: the one with the best F1 in the validation, or the lowest
            found.
        n_points: points that count and were found by both.
        n_unmatched: points found by only one of the two and at least a hundredth above `min_score`.
        max_difference_px: maximum distance between points that count, in pixels of the images.
        median_difference_px: median of the same.
        max_weak_difference_px: maximum for the other points, which a change of one level in one pixel can move.
        max_score_difference: maximum over all points found by both.
        max_spread_difference_px: maximum for points that count; 0 without a calibration.
        max_probability_difference: maximum over all points found by both; 0 without a calibration.
        n_regrouped: points that count and share their object with other points than in PyTorch; 0 without objects.
        reference_ms: median time per image in PyTorch, excluding reading.
        exported_ms: the same for the exported detector.
    """

    n_images: int
    min_score: float
    n_points: int
    n_unmatched: int
    max_difference_px: float
    median_difference_px: float
    max_weak_difference_px: float
    max_score_difference: float
    max_spread_difference_px: float
    max_probability_difference: float
    n_regrouped: int
    reference_ms: float
    exported_ms: float

    @property
    def holds(self) -> bool:
        """Whether the two are interchangeable."""
        largest = max(self.max_difference_px, self.max_spread_difference_px)
        return self.n_unmatched == self.n_regrouped == 0 and largest < MAX_DIFFERENCE_PX


def compare(reference: Engine, exported: Engine, images: Sequence[NDArray[np.uint8]]) -> Parity:
    """Compare an exported detector with PyTorch, point by point.

    Args:
        reference: the detector in PyTorch.
        exported: the exported detector.
        images: the images to compare on, each (H, W, 3).
    """
    min_score = reference.best_f1 or reference.lowest_score
    pairs, n_unmatched, n_regrouped = [np.zeros((0, 7))], 0, 0
    for image in images:
        (a,), (b,) = reference.detect([image], False), exported.detect([image], False)
        of_image = [np.zeros((0, 7))]
        for channel in range(len(a.scores)):
            found = [Points.of_channel(each, channel) for each in (a, b)]
            matched, unmatched = match_points(*found)
            of_image.append(matched)
            n_unmatched += int((unmatched >= min_score + SCORE_MARGIN).sum())
        pairs += of_image
        n_regrouped += count_regrouped(np.concatenate(of_image), min_score)
    gaps, score_gaps, spread_gaps, probability_gaps, scores = np.concatenate(pairs)[:, :5].T
    counts = scores >= min_score
    return Parity(
        n_images=len(images),
        min_score=min_score,
        n_points=int(counts.sum()),
        n_unmatched=n_unmatched,
        max_difference_px=float(gaps[counts].max(initial=0)),
        median_difference_px=float(np.median(gaps[counts])) if counts.any() else 0.0,
        max_weak_difference_px=float(gaps[~counts].max(initial=0)),
        max_score_difference=float(score_gaps.max(initial=0)),
        max_spread_difference_px=float(spread_gaps[counts].max(initial=0)),
        max_probability_difference=float(probability_gaps.max(initial=0)),
        n_regrouped=n_regrouped,
        reference_ms=_time(reference, images[0]),
        exported_ms=_time(exported, images[0]),
    )


class Points(NamedTuple):
    """(n, 2) points of one channel of one image, their (n,) scores, spreads and probabilities; 0 where unknown.

    And their objects (n,), -1 for none.
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    spreads: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    objects: NDArray[np.int64]

    @classmethod
    def of_channel(cls, found: Found, channel: int) -> "Points":
        """Select the points of a channel, without unused slots."""
        scores = found.scores[channel]
        spreads, probabilities = np.zeros_like(scores), np.zeros_like(scores)
        if found.covariances is not None and found.probabilities is not None:
            spreads = spread_of(found.covariances[channel])
            probabilities = found.probabilities[channel, :, -1]
        objects = np.full(len(scores), -1) if found.objects is None else found.objects[channel]
        is_real = scores > 0
        return cls(*(values[is_real] for values in (found.points[channel], scores, spreads, probabilities, objects)))


def match_points(one: Points, other: Points) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Pair points less than a pixel apart one to one, the nearest pair first.

    Returns:
        (n, 7) distance, differences of scores, spreads and probabilities, score in `one`, and the objects in `one` and
        `other` of each pair; and the scores of all points without a partner.
    """
    gaps = np.linalg.norm(one.points[:, None].astype(float) - other.points[None], axis=2)  # (n, m)
    rows, columns = np.nonzero(gaps < MATCH_RADIUS_PX)
    pairs: list[tuple[int, int]] = []
    for candidate in np.argsort(gaps[rows, columns], kind="stable"):
        row, column = int(rows[candidate]), int(columns[candidate])
        if all(row != taken and column != other_taken for taken, other_taken in pairs):
            pairs.append((row, column))
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    others = [np.abs(a[rows] - b[columns]) for a, b in zip(one[1:4], other[1:4], strict=True)]
    objects = one.objects[rows], other.objects[columns]
    matched = np.stack([gaps[rows, columns], *others, one.scores[rows], *objects], axis=1)
    return matched, np.concatenate([np.delete(one.scores, rows), np.delete(other.scores, columns)])


def count_regrouped(matched: NDArray[np.float64], min_score: float) -> int:
    """Count the points of one image, as of `match_points`, that are with others in their object than before."""
    scores, *objects = matched[:, 4:].T
    is_together = [(each[:, None] == each) & (each >= 0) for each in objects]
    counts = scores >= min_score
    differs = (is_together[0] != is_together[1]) & counts[:, None] & counts
    return int(differs.any(axis=1).sum())


def _time(engine: Engine, image: NDArray[np.uint8]) -> float:
    durations = []
    for _ in range(N_TIMED):
        start = time.perf_counter()
        engine.detect([image], False)
        durations.append(1000 * (time.perf_counter() - start))
    return float(np.median(durations))
