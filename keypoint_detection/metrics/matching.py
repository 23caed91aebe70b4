"""Pair detections with ground truths: greedily under a gate for AP, nearest first without one for localisation."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_thresholds", "match_detections", "pair_nearest"]


def check_thresholds(name: str, thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return the thresholds as floats, or say what is wrong with them.

    Args:
        name: What the user calls them; the error begins with it.
        thresholds: Must be positive, finite and strictly ascending. May be empty: the caller decides about that.

    Raises:
        ValueError: A threshold is not positive and finite, or they are not strictly ascending.
    """
    values = tuple(float(threshold) for threshold in thresholds)
    listed = ", ".join(f"{value:g}" for value in values)
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"{name}: every threshold must be positive and finite, found [{listed}]; remove the others.")
    if any(first >= second for first, second in itertools.pairwise(values)):
        fixed = ", ".join(f"{value:g}" for value in sorted(set(values)))
        raise ValueError(f"{name}: thresholds must ascend without repeats, found [{listed}]; write [{fixed}].")
    return values


def match_detections(points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor, thresholds_px: Tensor) -> Tensor:
    """Tell which detections are true positives, at all distance thresholds in one pass.

    A row is one channel of one image. In order of score (equal scores: in order of their slots) each detection takes
    the nearest ground truth that is still free and lies within the threshold; of equally near ones the first. This is
    the greedy assignment of PASCAL VOC (Everingham et al. 2010, section 4.2, https://doi.org/10.1007/s11263-009-0275-4)
    with distance for overlap. We differ in one thing: VOC looks at the nearest truth only, taken or not; here a
    detection may take the second nearest when the nearest is taken, since the points of a channel may lie close.

    Args:
        points: (N, D, 2) detections, in the frame and unit of the thresholds.
        scores: (N, D); 0 marks an unused slot.
        truths: (N, G, 2) ground truths.
        is_truth: (N, G) bool; False marks padding.
        thresholds_px: (T,) distances; a truth exactly that far away is within.

    Returns:
        (T, N, D) bool, False for unused slots.

    >>> points, truths = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    >>> ones = torch.ones(1, 1, dtype=torch.bool)
    >>> match_detections(points, torch.tensor([[0.5, 0.9]]), truths, ones, torch.tensor([1.0, 2.0])).tolist()
    [[[True, False]], [[False, True]]]
    """
    check_row_shapes(points, scores, truths, is_truth)
    N, D = scores.shape
    G, T = truths.shape[1], len(thresholds_px)
    is_true_positive = torch.zeros(T, N, D, dtype=torch.bool, device=points.device)
    if 0 in (N, D, G):
        return is_true_positive
    order = scores.argsort(dim=1, descending=True, stable=True)  # (N, D)
    # G comes first: the minimum over it is then vectorised over the T * N rows.
    truth_x, truth_y = truths.masked_fill(~is_truth[..., None], 0).permute(2, 1, 0).contiguous()  # (G, N) each
    taken = torch.zeros_like(truth_x).masked_fill_(~is_truth.T, math.inf).repeat(T, 1, 1)  # (T, G, N): 0 free, inf not
    limits = thresholds_px.to(points)[:, None]
    candidate = torch.empty_like(taken)
    for rank in range(D):
        slot = order[:, rank : rank + 1]  # (N, 1)
        x, y = points.gather(1, slot[..., None].expand(-1, -1, 2)).permute(2, 1, 0)  # (1, N) each
        distance = ((truth_x - x).square_().add_((truth_y - y).square_())).sqrt_()
        nearest = torch.add(taken, distance, out=candidate).min(dim=1)  # (T, N)
        is_hit = (nearest.values <= limits) & (scores.gather(1, slot).T > 0)
        taken.scatter_add_(1, nearest.indices[:, None], torch.where(is_hit, math.inf, 0.0).to(taken)[:, None])
        is_true_positive.scatter_(2, slot.expand(T, -1, -1), is_hit[..., None])
    return is_true_positive


def pair_nearest(points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor) -> Tensor:
    """Measure how far each ground truth is from the detection that is meant for it.

    A row is one channel of one image. Of a row with n ground truths the n detections of highest score are taken and
    paired one-to-one, the nearest pair first, at any distance: nothing is hidden by a gate. Where a row has fewer
    detections than ground truths, those left over have no prediction.

    Args:
        points: (N, D, 2) detections.
        scores: (N, D); 0 marks an unused slot.
        truths: (N, G, 2) ground truths, in the frame of the detections.
        is_truth: (N, G) bool; False marks padding.

    Returns:
        (N, G) distances: inf where the prediction is missing, NaN for padding.
    """
    check_row_shapes(points, scores, truths, is_truth)
    N, G = is_truth.shape
    errors = torch.where(is_truth, math.inf, math.nan).to(truths)
    width = min(scores.shape[1], G)
    if N == 0 or width == 0:
        return errors
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :width]
    chosen = points.gather(1, order[..., None].expand(-1, -1, 2))
    is_chosen = (scores.gather(1, order) > 0) & (torch.arange(width, device=scores.device) < is_truth.sum(1)[:, None])
    offset = chosen[:, :, None] - truths[:, None]
    distance = offset.square().sum(-1).sqrt().nan_to_num(nan=math.inf)  # (N, width, G)
    distance.masked_fill_(~(is_chosen[:, :, None] & is_truth[:, None]), math.inf)
    rows = torch.arange(N, device=points.device)
    for _ in range(width):
        nearest = distance.flatten(1).min(dim=1)
        detection, truth = nearest.indices // G, nearest.indices % G
        # A row that is used up has only inf left: writing that back changes neither a missing truth nor padding.
        is_pair = nearest.values.isfinite()
        errors[rows, truth] = torch.where(is_pair, nearest.values, errors[rows, truth])
        distance[rows, detection] = math.inf
        distance[rows, :, truth] = math.inf
    return errors


def check_row_shapes(points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor) -> None:
    """Raise ValueError unless the shapes are (N, D, 2), (N, D), (N, G, 2) and (N, G)."""
    matches = (
        scores.ndim == is_truth.ndim == 2
        and points.shape == (*scores.shape, 2)
        and truths.shape == (*is_truth.shape, 2)
        and len(scores) == len(is_truth)
    )
    if not matches:
        raise ValueError(
            "expected points (N, D, 2), scores (N, D), truths (N, G, 2) and is_truth (N, G), found "
            f"{tuple(points.shape)}, {tuple(scores.shape)}, {tuple(truths.shape)} and {tuple(is_truth.shape)}; "
            "pad the rows to the same length."
        )
