"""Pair detections with ground truths: greedily within a threshold for AP, nearest first at any distance for errors."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def check_thresholds(name: str, thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return the thresholds as floats, or raise an error that says what is wrong with them.

    Args:
        name: their name in the error message.
        thresholds: must be positive, finite and strictly ascending. An empty list is allowed, and left to the caller.

    Raises:
        ValueError: a threshold is not positive and finite, or they are not strictly ascending.
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
    """Determine which detections are true positives: those that get a ground truth from `assign_truths`.

    Args: those of `assign_truths`.

    Returns:
        (T, N, D) bool, False for unused slots.

    >>> points, truths = torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    >>> ones = torch.ones(1, 1, dtype=torch.bool)
    >>> match_detections(points, torch.tensor([[0.5, 0.9]]), truths, ones, torch.tensor([1.0, 2.0])).tolist()
    [[[True, False]], [[False, True]]]
    """
    return assign_truths(points, scores, truths, is_truth, thresholds_px) >= 0


def assign_truths(points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor, thresholds_px: Tensor) -> Tensor:
    """Assign at most one ground truth to each detection, at all distance thresholds in one pass.

    A row is one channel of one image. In order of score (equal scores: in order of their slots) each detection takes
    the nearest ground truth that is still free and within the threshold; among equally near ones, the first. This is
    the greedy assignment of PASCAL VOC (Everingham et al. 2010, section 4.2, https://doi.org/10.1007/s11263-009-0275-4)
    with distance instead of overlap. We differ in one way: VOC considers only the nearest truth, taken or not; here a
    detection can take the second nearest if the nearest is taken, since the points of a channel can be close together.

    Args:
        points: (N, D, 2) detections, in the frame and unit of the thresholds.
        scores: (N, D); 0 marks an unused slot.
        truths: (N, G, 2) ground truths.
        is_truth: (N, G) bool; False marks padding.
        thresholds_px: (T,) distances; a truth at exactly that distance counts as within.

    Returns:
        (T, N, D) int64, the slot of the ground truth; -1 for false positives and unused slots.
    """
    check_row_shapes(points, scores, truths, is_truth)
    N, D = scores.shape
    G, T = truths.shape[1], len(thresholds_px)
    assigned = torch.full((T, N * D), -1, device=points.device)
    if 0 in (N, D, G, T):
        return assigned.view(T, N, D)
    order = _order_by_score(scores)
    pairs = _find_near_pairs(points, scores, truths, is_truth, order, float(thresholds_px.max()))
    is_near = pairs.distance <= thresholds_px.to(pairs.distance)[:, None]  # (T, P)
    cell = pairs.row * G + pairs.truth
    is_free = torch.ones(T, N * G, dtype=torch.bool, device=points.device)
    ends = torch.bincount(pairs.rank, minlength=D).cumsum(0).tolist()
    for begin, end in itertools.pairwise([0, *ends]):
        # One detection per row, so no ground truth occurs twice; of a detection's pairs, the first free one counts.
        now = cell[begin:end]
        is_free_now = is_free.index_select(1, now)
        is_candidate = is_near[:, begin:end].logical_and_(is_free_now)
        count = is_candidate.cumsum(1, dtype=torch.int32)
        count_before = (count - is_candidate.int()).index_select(1, pairs.first[begin:end] - begin)
        is_hit = is_candidate.logical_and_(count - count_before == 1)
        is_free.index_copy_(1, now, is_free_now & ~is_hit)
    slot = pairs.row * D + order.reshape(-1).index_select(0, pairs.row * D + pairs.rank)
    for truth, is_hit in zip(assigned, is_near, strict=True):
        truth.index_copy_(0, slot[is_hit], pairs.truth[is_hit])
    return assigned.view(T, N, D)


def _order_by_score(scores: Tensor) -> Tensor:
    """Return the slots (N, D) of each row by descending score, ties in order of slots."""
    if bool(
        (scores[:, 1:] <= scores[:, :-1]).all()
    ):  # detectors return them sorted, and checking is cheaper than sorting
        return torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return scores.argsort(dim=1, descending=True, stable=True)


class _Pairs(NamedTuple):
    """Detections and ground truths near each other, P pairs by rank, then row, then distance.

    Attributes:
        rank: (P,) rank of the detection in its row, by score.
        row: (P,).
        truth: (P,) slot of the ground truth.
        distance: (P,).
        first: (P,) position of the first pair of the same detection.
    """

    rank: Tensor
    row: Tensor
    truth: Tensor
    distance: Tensor
    first: Tensor


def _find_near_pairs(
    points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor, order: Tensor, limit_px: float
) -> _Pairs:
    """List the pairs that any threshold could match; in real data they are few."""
    G = truths.shape[1]
    # Unused slots become NaN: every comparison with NaN is False.
    points = points.masked_fill((scores <= 0)[..., None], math.nan).gather(1, order[..., None].expand(-1, -1, 2))
    truths = truths.masked_fill(~is_truth[..., None], math.nan).to(points)
    x, y = points.permute(2, 1, 0)[..., None].contiguous()  # (D, N, 1) each
    truth_x, truth_y = truths.permute(2, 0, 1).contiguous()  # (N, G) each
    # Buffers are reused for every rank: new ones would cost more than the arithmetic.
    across, down = torch.empty_like(truth_x), torch.empty_like(truth_x)
    is_near = torch.empty_like(truth_x, dtype=torch.bool)
    # Slightly more than the threshold: the caller makes the exact comparison, on the square root.
    limit_squared = limit_px**2 * (1 + 1e-5)
    found = []
    for place in range(len(x)):
        torch.sub(truth_x, x[place], out=across)
        torch.sub(truth_y, y[place], out=down)
        torch.addcmul(across.square_(), down, down, out=across)
        found.append(torch.le(across, limit_squared, out=is_near).flatten().nonzero()[:, 0])
    rank = torch.arange(len(x), device=x.device).repeat_interleave(
        torch.tensor([len(cell) for cell in found]).to(x.device)
    )
    cell = torch.cat(found)
    row, truth = cell // G, cell % G
    detection = rank * len(truths) + row
    across = truth_x.flatten().index_select(0, cell) - x.flatten().index_select(0, detection)
    down = truth_y.flatten().index_select(0, cell) - y.flatten().index_select(0, detection)
    distance = across.square_().add_(down.square_()).sqrt_()
    is_first = torch.ones_like(rank, dtype=torch.bool)
    is_first[1:] = detection[1:] != detection[:-1]
    group = is_first.cumsum(0) - 1
    first = is_first.nonzero()[:, 0].index_select(0, group)
    # Only detections near several ground truths need sorting, within the positions that their pairs already occupy.
    several = (torch.bincount(group).index_select(0, group) > 1).nonzero()[:, 0]
    by_distance = several[distance[several].argsort(stable=True)]
    by_group = by_distance[group[by_distance].argsort(stable=True)]
    truth[several], distance[several] = truth[by_group], distance[by_group]
    return _Pairs(rank, row, truth, distance, first)


def pair_nearest(points: Tensor, scores: Tensor, truths: Tensor, is_truth: Tensor) -> Tensor:
    """Measure the distance of each ground truth to the detection paired with it.

    A row is one channel of one image. In a row with n ground truths, the n detections of highest score are paired with
    them one-to-one, the nearest pair first, at any distance: no threshold hides large errors. If a row has fewer
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
    order = _order_by_score(scores)[:, :width]
    chosen = points.gather(1, order[..., None].expand(-1, -1, 2))
    is_chosen = (scores.gather(1, order) > 0) & (torch.arange(width, device=scores.device) < is_truth.sum(1)[:, None])
    offset = chosen[:, :, None] - truths[:, None]
    distance = offset.square().sum(-1).sqrt().nan_to_num(nan=math.inf)  # (N, width, G)
    distance.masked_fill_(~(is_chosen[:, :, None] & is_truth[:, None]), math.inf)
    rows = torch.arange(N, device=points.device)
    for _ in range(width):
        nearest = distance.flatten(1).min(dim=1)
        detection, truth = nearest.indices // G, nearest.indices % G
        # An exhausted row contains only inf: writing that back changes neither a missing truth nor padding.
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
