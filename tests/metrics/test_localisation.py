import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keypoint_detection.metrics.localisation import (
    correct_share,
    error_statistics,
    normalised_mean_error,
    reference_lengths,
    strict_success,
)

ERRORS = torch.tensor([3.0, 1.0, math.inf, 2.0], dtype=torch.float64)


def test_missing_predictions_lower_the_detection_rate_and_not_the_error() -> None:
    statistics = error_statistics(ERRORS)
    assert (statistics.mean.item(), statistics.median.item()) == (2.0, 2.0)
    assert statistics.p95.item() == pytest.approx(2.9)  # 2 + 0.9 of the way to 3
    assert statistics.detection_rate.item() == 0.75


def test_nothing_found_is_undefined() -> None:
    statistics = error_statistics(torch.tensor([math.inf]))
    assert statistics.mean.isnan()
    assert statistics.median.isnan()
    assert statistics.detection_rate.item() == 0
    assert error_statistics(torch.zeros(0)).detection_rate.isnan()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_weights_equal_repeated_truths(seed: int, M: int) -> None:
    rng = np.random.default_rng(seed)
    errors, lengths, weights = rng.random(M), rng.random(M) + 0.5, rng.integers(0, 4, (M, 3))
    errors[rng.random(M) < 0.2] = np.inf
    statistics = error_statistics(torch.from_numpy(errors), torch.from_numpy(weights))
    nme = normalised_mean_error(torch.from_numpy(errors), torch.from_numpy(lengths), torch.from_numpy(weights))
    pck = correct_share(
        torch.from_numpy(errors), torch.tensor([0.3, 0.6]), torch.from_numpy(lengths), torch.from_numpy(weights)
    )
    for r in range(3):
        repeated, repeated_lengths = errors.repeat(weights[:, r]), lengths.repeat(weights[:, r])
        found = repeated[np.isfinite(repeated)]
        if len(repeated) == 0:
            assert pck[r].isnan().all()
            continue
        thresholds = np.float32([0.3, 0.6])[:, None]
        np.testing.assert_allclose(pck[r], (repeated / repeated_lengths <= thresholds).mean(1))
        assert statistics.detection_rate[r].item() == pytest.approx(len(found) / len(repeated))
        if len(found) > 0:
            assert statistics.mean[r].item() == pytest.approx(found.mean())
            assert statistics.median[r].item() == pytest.approx(np.median(found))
            assert statistics.p95[r].item() == pytest.approx(np.percentile(found, 95))
            assert nme[r].item() == pytest.approx((found / repeated_lengths[np.isfinite(repeated)]).mean())


def test_pck_counts_a_missing_prediction_as_wrong_and_the_threshold_as_right() -> None:
    assert correct_share(ERRORS, torch.tensor([0.5, 1.0, 3.0])).tolist() == [[0, 0.25, 0.75]]


def test_relative_pck_by_hand() -> None:
    lengths = torch.tensor([100.0, 10.0, 10.0, 20.0], dtype=torch.float64)
    assert correct_share(ERRORS, torch.tensor([0.03, 0.1], dtype=torch.float64), lengths).tolist() == [[0.25, 0.75]]
    assert normalised_mean_error(ERRORS, lengths).item() == pytest.approx((0.03 + 0.1 + 0.1) / 3)


def test_diagonal_stands_in_for_a_missing_box() -> None:
    sizes = torch.tensor([[3, 4], [3, 4], [30, 40]])
    assert reference_lengths(torch.tensor([7.0, math.nan, 0.0]), sizes).tolist() == [7.0, 5.0, 50.0]


def test_strict_success_wants_every_point_and_leaves_out_images_without() -> None:
    image = torch.tensor([0, 0, 2, 3])  # image 1 has no point
    success = strict_success(torch.tensor([1.0, 3.0, math.inf, 2.0]), image, 4, torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(success, torch.tensor([[0, 1 / 3, 2 / 3]], dtype=torch.float64))


def test_strict_success_without_any_point_is_undefined() -> None:
    assert strict_success(torch.zeros(0), torch.zeros(0, dtype=torch.long), 2, torch.ones(1)).isnan().all()


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected weights \(4, R\) for 4 values, found \(3, 1\)"):
        error_statistics(ERRORS, torch.ones(3, 1))
