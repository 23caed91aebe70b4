import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from keypoint_detection.metrics.matching import check_thresholds, match_detections, pair_nearest


def match_by_loop(points, scores, truths, is_truth, threshold):
    """The definition, one row at a time: greedy by score, nearest free truth within the threshold."""
    flags = np.zeros(scores.shape, dtype=bool)
    for n in range(len(scores)):
        free = [g for g in range(truths.shape[1]) if is_truth[n, g]]
        for d in sorted(range(scores.shape[1]), key=lambda d: -scores[n, d]):
            if scores[n, d] == 0 or not free:
                continue
            distances = [math.sqrt(sum((points[n, d, i] - truths[n, g, i]) ** 2 for i in (0, 1))) for g in free]
            nearest = int(np.argmin(distances))
            if distances[nearest] <= threshold:
                flags[n, d] = True
                del free[nearest]
    return flags


def pair_by_loop(points, scores, truths, is_truth):
    errors = np.full(is_truth.shape, np.nan)
    for n in range(len(scores)):
        open_truths = [g for g in range(truths.shape[1]) if is_truth[n, g]]
        errors[n, open_truths] = np.inf
        best = [d for d in sorted(range(scores.shape[1]), key=lambda d: -scores[n, d]) if scores[n, d] > 0]
        pairs = sorted(
            (float(np.sqrt(((points[n, d] - truths[n, g]) ** 2).sum())), d, g)
            for d in best[: len(open_truths)]
            for g in open_truths
        )
        used = set()
        for distance, d, g in pairs:
            if ("d", d) not in used and ("g", g) not in used:
                errors[n, g] = distance
                used |= {("d", d), ("g", g)}
    return errors


def random_rows(seed: int, N: int, D: int, G: int, grid: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    # Whole coordinates and few different scores make ties, in distance and in score, the rule.
    points, truths = (rng.integers(0, 6, (N, n, 2)).astype(float) for n in (D, G))
    scores = rng.integers(0, 4, (N, D)) / 4
    if not grid:
        points, truths, scores = (
            points + rng.random(points.shape),
            truths + rng.random(truths.shape),
            rng.random((N, D)),
        )
    is_truth = rng.random((N, G)) < 0.7
    truths[~is_truth] = np.nan
    return tuple(torch.from_numpy(array) for array in (points, scores, truths, is_truth))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 6), st.integers(0, 5), st.booleans())
def test_matches_equal_a_plain_loop(seed: int, N: int, D: int, G: int, grid: bool) -> None:
    points, scores, truths, is_truth = random_rows(seed, N, D, G, grid)
    thresholds = [1.0, math.sqrt(2), 3.0]
    matched = match_detections(points, scores, truths, is_truth, torch.tensor(thresholds, dtype=torch.float64))
    assert matched.shape == (3, N, D)
    for flags, threshold in zip(matched, thresholds, strict=True):
        expected = match_by_loop(points.numpy(), scores.numpy(), truths.numpy(), is_truth.numpy(), threshold)
        np.testing.assert_array_equal(flags.numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 6), st.integers(0, 5))
def test_pairs_equal_a_plain_loop(seed: int, N: int, D: int, G: int) -> None:
    rows = random_rows(seed, N, D, G, grid=False)
    np.testing.assert_allclose(pair_nearest(*rows).numpy(), pair_by_loop(*(row.numpy() for row in rows)), rtol=1e-12)


def match_row(points, scores, truths, thresholds=(2.0,)) -> list[list[bool]]:
    points = torch.tensor(points, dtype=torch.float32).view(1, -1, 2)
    truths = torch.tensor(truths, dtype=torch.float32).view(1, -1, 2)
    is_truth = torch.ones(truths.shape[:2], dtype=torch.bool)
    return match_detections(points, torch.tensor([scores]), truths, is_truth, torch.tensor(thresholds))[:, 0].tolist()


def test_second_detection_of_one_truth_is_false() -> None:
    assert match_row([(0, 0), (1, 0)], [0.9, 0.8], [(0.6, 0)]) == [[True, False]]


def test_higher_score_takes_the_truth_though_farther() -> None:
    assert match_row([(0, 0), (1, 0)], [0.8, 0.9], [(0, 0)]) == [[False, True]]


def test_equal_scores_go_by_slot() -> None:
    assert match_row([(1, 0), (0, 0)], [0.5, 0.5], [(0, 0)]) == [[True, False]]


def test_point_near_two_truths_takes_the_nearest_and_leaves_the_other() -> None:
    # Had the first taken (0, 0), which stands first in the list, the second would be 4 px from what is left.
    assert match_row([(1.5, 0), (-1, 0)], [0.9, 0.8], [(0, 0), (3, 0), (1, 0)]) == [[True, True]]
    assert match_row([(1.5, 0), (-1, 0)], [0.9, 0.8], [(0, 0), (2, 0)]) == [[True, True]]


def test_taken_truth_leaves_the_second_nearest() -> None:
    assert match_row([(0, 0), (0.1, 0)], [0.9, 0.8], [(0, 0), (1.5, 0)]) == [[True, True]]


def test_truth_exactly_at_the_threshold_is_within() -> None:
    assert match_row([(3, 4)], [0.5], [(0, 0)], (4.999, 5.0)) == [[False], [True]]


def test_unused_slots_match_nothing() -> None:
    assert match_row([(0, 0), (0, 0)], [0.0, 0.4], [(0, 0)]) == [[False, True]]


def test_detections_without_truths_are_false() -> None:
    assert match_row([(0, 0)], [0.9], []) == [[False]]


def test_only_as_many_predictions_as_truths_are_paired() -> None:
    # One truth: the best detection is the prediction, though a worse one lies nearer.
    points = torch.tensor([[[5.0, 0.0], [0.0, 0.0]]])
    ones = torch.ones(1, 1, dtype=torch.bool)
    assert pair_nearest(points, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 1, 2), ones).tolist() == [[5.0]]


def test_missing_prediction_is_infinite_and_padding_nan() -> None:
    truths = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]]])
    is_truth = torch.tensor([[True, True, False]])
    errors = pair_nearest(torch.tensor([[[9.0, 0.0], [1.0, 1.0]]]), torch.tensor([[0.9, 0.0]]), truths, is_truth)
    assert errors[0, :2].tolist() == [math.inf, 1.0]
    assert errors[0, 2].isnan()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected points \(N, D, 2\).* found \(1, 2, 2\), \(1, 3\)"):
        pair_nearest(torch.zeros(1, 2, 2), torch.zeros(1, 3), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([4, 2], r"must ascend without repeats, found \[4, 2\]; write \[2, 4\]"),
        ([2, 2], r"must ascend without repeats, found \[2, 2\]; write \[2\]"),
        ([0, 2], "positive and finite"),
        ([1, math.inf], "positive and finite"),
        ([math.nan], "positive and finite"),
    ],
)
def test_bad_thresholds_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_thresholds("thresholds_px", values)
