"""Average precision from scored, matched detections, and the operating points on its curve.

A curve can hold R resamples of the images: weights give how often each detection counts in each of them, so one sort
serves a whole bootstrap. Without weights, R is 1 and every detection counts once.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class OperatingPoint(NamedTuple):
    """The result at a score threshold; each field (R,), NaN where undefined.

    Attributes:
        score: detections with at least this score are kept. NaN if there is no detection.
        precision: share of the kept detections that are right. NaN if none is kept.
        recall: share of the ground truths that are found. NaN if there is no ground truth.
        f1: harmonic mean of precision and recall. NaN if there is no ground truth.
    """

    score: Tensor
    precision: Tensor
    recall: Tensor
    f1: Tensor


class PrecisionRecallCurve(NamedTuple):
    """The operating points that can matter, P of them by descending score, in each of R resamples.

    A score at which no detection is right lowers precision and leaves recall unchanged: it affects neither the
    interpolated precision at a right one nor the best F1, and is left out. The highest score is always kept.

    Attributes:
        scores: (P,) distinct.
        n_right: (P, T, R) detections of this score and above that are right, at each distance threshold.
        n_kept: (P, R) detections of this score and above.
    """

    scores: Tensor
    n_right: Tensor
    n_kept: Tensor


def trace_curve(scores: Tensor, is_true_positive: Tensor, weights: Tensor | None = None) -> PrecisionRecallCurve:
    """Accumulate matched detections by descending score; equal scores are one operating point.

    Args:
        scores: (M,) scores of all detections of the channel in all images, including those without ground truth.
        is_true_positive: (T, M) bool, from `match_detections`.
        weights: (M, R) multiplicities of the detections. The curve is computed in their precision: float32 counts
            exactly up to 16 million detections, which suffices for intervals. Without weights: R is 1, float64.

    Returns:
        The curve; it has no points if there is no detection.
    """
    T, M = is_true_positive.shape
    if scores.shape != (M,) or (weights is not None and (weights.ndim != 2 or len(weights) != M)):
        found = "no weights" if weights is None else f"weights {tuple(weights.shape)}"
        raise ValueError(
            f"expected scores (M,), matches (T, M) and weights (M, R), found scores {tuple(scores.shape)}, matches "
            f"{(T, M)} and {found}; give each detection one entry in each."
        )
    if M == 0:
        nothing = torch.zeros(0, 1, dtype=torch.float64, device=scores.device) if weights is None else weights
        return PrecisionRecallCurve(scores, nothing[:, None].expand(-1, T, -1), nothing)
    # Only the detections that are right at some threshold need sorting; the others are counted.
    right = functools.reduce(torch.logical_or, is_true_positive).nonzero()[:, 0]
    right = right[scores[right].argsort(descending=True, stable=True)]
    levels = torch.cat([scores.amax()[None], scores[right]])
    is_last = torch.ones_like(levels, dtype=torch.bool)  # of its score
    is_last[:-1] = levels[1:] != levels[:-1]
    levels = levels[is_last]  # (P,)
    n_right_detections = is_last.nonzero()[:, 0]  # at each level and above; the highest score was prepended
    n_kept = _count_kept(scores, levels, weights)
    of_right = n_kept.new_ones(len(right), 1) if weights is None else weights[right]
    n_right = (of_right[:, None] * is_true_positive.index_select(1, right).T[..., None]).cumsum(0)  # (right, T, R)
    n_right = torch.cat([n_right.new_zeros(1, *n_right.shape[1:]), n_right])[n_right_detections]
    return PrecisionRecallCurve(levels, n_right, n_kept)


def _count_kept(scores: Tensor, levels: Tensor, weights: Tensor | None) -> Tensor:
    """Count the weighted detections at or above each of P descending scores, (P, R); R is 1 without weights."""
    if weights is None:
        # NumPy sorts plain numbers many times faster than torch.
        on_cpu = scores.device.type == "cpu"
        rising = torch.from_numpy(np.sort(scores.numpy())) if on_cpu else scores.sort().values
        return (len(scores) - torch.searchsorted(rising, levels)).double()[:, None]
    n_above = torch.searchsorted(-levels, -scores)  # levels above each detection's score
    counts = weights.new_zeros(len(levels) + 1, weights.shape[1]).index_add_(0, n_above, weights)
    return counts[:-1].cumsum(0)


def average_precision(curve: PrecisionRecallCurve, n_truths: Tensor | int) -> Tensor:
    """Integrate the interpolated precision-recall curve of one channel exactly.

    Precision at a recall is the highest precision at that or a higher recall, and the area under this staircase is
    taken at every point: PASCAL VOC since 2010 (Everingham et al. 2015, section 2.3,
    https://doi.org/10.1007/s11263-014-0733-5), not the 11-point or the 101-point sampling.

    Args:
        curve: from `trace_curve`.
        n_truths: ground truths of the channel in all images: a number, or (R,) for each resample.

    Returns:
        (R, T) in [0, 1]; NaN where there is no ground truth.

    >>> curve = trace_curve(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([[True, False, True]]))
    >>> average_precision(curve, n_truths=2)
    tensor([[0.8333]], dtype=torch.float64)
    """
    truths = _by_resample(n_truths, curve)  # (R,)
    if len(curve.scores) == 0:
        area = torch.zeros_like(curve.n_right.sum(0))  # (T, R)
    else:
        precision = curve.n_right / curve.n_kept[:, None].clamp(min=1)
        envelope = precision.flip(0).cummax(0).values.flip(0)
        step = torch.diff(curve.n_right, dim=0, prepend=torch.zeros_like(curve.n_right[:1]))
        area = step.mul_(envelope).sum(0) / truths.clamp(min=1)
    return area.masked_fill(truths == 0, math.nan).T


def mean_average_precision(average_precisions: Tensor) -> Tensor:
    """Average over channels and thresholds, leaving out channels without ground truth.

    Args:
        average_precisions: (R, C, T), NaN for a channel without ground truth.

    Returns:
        (R,); NaN where no channel has ground truth.
    """
    return average_precisions.flatten(1).nanmean(dim=1)


def best_f1(curve: PrecisionRecallCurve, n_truths: Tensor | int) -> OperatingPoint:
    """Find the score threshold with the highest F1 at the last, the largest, distance threshold.

    Among equally good scores, the highest wins: the one with the fewest detections. So if nothing is right (F1 is 0
    everywhere), it is the highest score of all.

    Args:
        curve: from `trace_curve`.
        n_truths: ground truths in all images: a number, or (R,) for each resample.

    Returns:
        The operating point, each field (R,).
    """
    truths = _by_resample(n_truths, curve)  # (R,)
    if len(curve.scores) == 0:
        undefined = torch.full_like(truths, math.nan)
        nothing_found = torch.zeros_like(truths).masked_fill(truths == 0, math.nan)
        return OperatingPoint(undefined, undefined, nothing_found, nothing_found)
    n_right = curve.n_right[:, -1]
    f1 = 2 * n_right / (curve.n_kept + truths).clamp(min=1)
    best = f1.max(dim=0)  # the first of equals
    right, kept = (counts.gather(0, best.indices[None])[0] for counts in (n_right, curve.n_kept))
    return OperatingPoint(
        score=curve.scores[best.indices].to(f1),
        precision=right / kept,  # 0 / 0, NaN, in a resample without detections
        recall=right / truths,  # 0 / 0, NaN, without ground truth
        f1=best.values.masked_fill(truths == 0, math.nan),
    )


def _by_resample(n_truths: Tensor | int, curve: PrecisionRecallCurve) -> Tensor:
    """Return the number of ground truths in each resample: (R,) in the precision of the curve."""
    return torch.as_tensor(n_truths).to(curve.n_kept).expand(curve.n_kept.shape[1])
