import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from keypoint_detection.metrics.average_precision import (
    average_precision,
    best_f1,
    mean_average_precision,
    trace_curve,
)


def curve_by_loop(scores, flags):
    """Number kept, number right at each distinct score, falling."""
    return [
        (score, int((scores >= score).sum()), int(flags[scores >= score].sum()))
        for score in sorted(set(scores.tolist()), reverse=True)
    ]


def ap_by_loop(scores, flags, n_truths):
    points = [(right / n_truths, right / kept) for _, kept, right in curve_by_loop(scores, flags)]
    area, recall_before = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - recall_before) * max(precision for _, precision in points[i:])
        recall_before = recall
    return area


def ap_of(scores, flags, n_truths) -> float:
    return average_precision(
        trace_curve(torch.tensor(scores), torch.tensor(np.array([flags]), dtype=torch.bool)), n_truths
    ).item()


random_detections = given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 5), st.booleans())


def draw(seed: int, M: int, extra: int, ties: bool):
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 6, M) / 5 if ties else rng.random(M)
    flags = rng.random((2, M)) < 0.5
    flags[1] |= flags[0]
    return scores, flags, int(flags[1].sum()) + extra


@settings(max_examples=100, deadline=None)
@random_detections
def test_average_precision_equals_a_plain_loop(seed: int, M: int, extra: int, ties: bool) -> None:
    scores, flags, n_truths = draw(seed, M, extra, ties)
    actual = average_precision(trace_curve(torch.from_numpy(scores), torch.from_numpy(flags)), n_truths)
    assert actual.shape == (1, 2)
    if n_truths == 0:
        assert actual.isnan().all()
    else:
        np.testing.assert_allclose(actual[0].numpy(), [ap_by_loop(scores, row, n_truths) for row in flags], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@random_detections
def test_result_does_not_depend_on_the_order(seed: int, M: int, extra: int, ties: bool) -> None:
    scores, flags, _ = draw(seed, M, extra, ties)
    shuffled = np.random.default_rng(seed + 1).permutation(M)
    first = trace_curve(torch.from_numpy(scores), torch.from_numpy(flags))
    second = trace_curve(torch.from_numpy(scores[shuffled]), torch.from_numpy(flags[:, shuffled]))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@settings(max_examples=50, deadline=None)
@random_detections
def test_weights_equal_repeated_detections(seed: int, M: int, extra: int, ties: bool) -> None:
    scores, flags, _ = draw(seed, M, extra, ties)
    weights = np.random.default_rng(seed).integers(0, 4, (M, 3))
    n_truths = flags[1] @ weights + extra
    curve = trace_curve(torch.from_numpy(scores), torch.from_numpy(flags), torch.from_numpy(weights).double())
    weighted, points = average_precision(curve, torch.from_numpy(n_truths)), best_f1(curve, torch.from_numpy(n_truths))
    for r in range(3):
        repeated = trace_curve(
            torch.from_numpy(scores.repeat(weights[:, r])), torch.from_numpy(flags.repeat(weights[:, r], axis=1))
        )
        n = int(n_truths[r])
        torch.testing.assert_close(weighted[r : r + 1], average_precision(repeated, n), equal_nan=True)
        torch.testing.assert_close(points.f1[r : r + 1], best_f1(repeated, n).f1, equal_nan=True)
        torch.testing.assert_close(points.recall[r : r + 1], best_f1(repeated, n).recall, equal_nan=True)


def test_scikit_learn_agrees_where_precision_only_falls() -> None:
    # scikit-learn does not interpolate; where precision falls monotonically there is nothing to interpolate.
    scores, flags = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, False, False, False])
    assert ap_of(scores, flags, 2) == pytest.approx(average_precision_score(flags, scores))
    flags = np.array([True, True, True, False, True])
    interpolated, plain = ap_of(scores, flags, 4), average_precision_score(flags, scores)
    assert interpolated == pytest.approx(plain) == pytest.approx(0.75 + 0.25 * 4 / 5)


def test_interpolation_only_raises_the_area() -> None:
    rng = np.random.default_rng(0)
    scores, flags = rng.random(200), rng.random(200) < 0.4
    curve = [(kept, right) for _, kept, right in curve_by_loop(scores, flags)]
    before = [0] + [right for _, right in curve[:-1]]
    plain = sum((right - b) / flags.sum() * right / kept for (kept, right), b in zip(curve, before, strict=True))
    assert plain == pytest.approx(average_precision_score(flags, scores))
    assert plain < ap_of(scores, flags, int(flags.sum())) < plain + 0.1


def test_envelope_by_hand() -> None:
    # Right, wrong, right of 2: precision 1 up to recall 1/2, then 2/3.
    assert ap_of([0.9, 0.8, 0.7], [True, False, True], 2) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_equal_scores_are_one_operating_point() -> None:
    assert ap_of([0.5, 0.5], [True, False], 1) == ap_of([0.5, 0.5], [False, True], 1) == 0.5


def test_missed_truths_lower_the_area() -> None:
    assert ap_of([0.9], [True], 4) == 0.25


def test_truths_without_detections_give_zero() -> None:
    assert ap_of([], [], 3) == 0


def test_channel_without_truth_is_undefined_and_left_out_of_the_mean() -> None:
    assert math.isnan(ap_of([0.9], [False], 0))
    assert mean_average_precision(torch.tensor([[[0.2, 0.4], [math.nan, math.nan]]])).item() == pytest.approx(0.3)


@settings(max_examples=50, deadline=None)
@random_detections
def test_best_f1_equals_a_plain_loop(seed: int, M: int, extra: int, ties: bool) -> None:
    scores, flags, n_truths = draw(seed, M, extra, ties)
    point = best_f1(trace_curve(torch.from_numpy(scores), torch.from_numpy(flags)), n_truths)
    if n_truths == 0:
        assert point.f1.isnan()
        assert point.recall.isnan()
        return
    candidates = [
        (2 * right / (kept + n_truths), score, right / kept, right / n_truths)
        for score, kept, right in curve_by_loop(scores, flags[1])
    ]
    if not candidates:
        assert (point.f1.item(), point.recall.item()) == (0, 0)
        assert point.score.isnan()
        return
    expected = max(candidates)  # of equals the highest score
    actual = (point.f1.item(), point.score.item(), point.precision.item(), point.recall.item())
    assert actual == pytest.approx(expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found scores \(2,\), matches \(1, 3\) and no weights"):
        trace_curve(torch.zeros(2), torch.zeros(1, 3, dtype=torch.bool))
