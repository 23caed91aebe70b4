"""Calibration against scikit-learn, loops, and errors whose distribution is known."""

import math

import numpy as np
import pytest
import torch
from metrics.batches import make_batch
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from keypoint_detection.confidence import Calibration, log_odds_terms
from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.metrics.calibration import (
    ONE_SIGMA_MASS,
    ReliabilityCurve,
    bin_reliability,
    expected_calibration_error,
    fit_log_odds,
    fit_peak_factor,
)


def make_terms(scores: np.ndarray) -> torch.Tensor:
    return torch.stack([*log_odds_terms(torch.from_numpy(scores)), torch.ones(len(scores)).double()], 1)


def test_with_many_detections_the_fit_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, 20_000)
    truth = 1 / (1 + np.exp(-(1.5 * np.log(scores) - 0.6 * np.log(1 - scores) + 0.4)))
    is_right = rng.random(len(scores)) < truth
    terms = make_terms(scores)
    other = LogisticRegression(C=1e9, tol=1e-10).fit(terms[:, :2].numpy(), is_right)
    found = fit_log_odds(terms, torch.from_numpy(is_right))
    assert found.tolist() == pytest.approx([*other.coef_[0], *other.intercept_], abs=0.01)
    assert found.tolist() == pytest.approx([1.5, 0.6, 0.4], abs=0.15)


def test_a_slope_is_never_negative() -> None:
    scores = np.linspace(0.02, 0.98, 200)
    found = fit_log_odds(make_terms(scores), torch.from_numpy(scores < 0.5))
    assert found[:2].tolist() == [0, 0]
    assert 1 / (1 + math.exp(-float(found[2]))) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("is_right", [True, False])
def test_a_few_detections_that_agree_do_not_make_certainty(is_right: bool) -> None:
    scores = np.array([0.3, 0.5, 0.7])
    weights = fit_log_odds(make_terms(scores), torch.full((3,), is_right))
    probabilities = torch.sigmoid(make_terms(scores) @ weights)
    assert float(probabilities.min()) > 0.002
    assert float(probabilities.max()) < 0.998


def test_one_standard_deviation_is_that_of_a_normal_distribution_in_the_plane() -> None:
    rng = np.random.default_rng(1)
    root = np.array([[2.0, 0.5], [0.0, 1.0]])
    errors = rng.normal(size=(50_000, 2)) @ root.T
    squared = torch.from_numpy((errors * np.linalg.solve(root @ root.T, errors.T).T).sum(1))
    assert fit_peak_factor(squared) == pytest.approx(1, abs=0.02)
    assert fit_peak_factor(9 * squared) == pytest.approx(9, abs=0.2)
    inside = float((squared <= chi2.ppf(ONE_SIGMA_MASS, 2)).double().mean())
    assert inside == pytest.approx(0.6827, abs=0.01)


def test_outliers_do_not_widen_the_errors_of_the_others() -> None:
    squared = torch.from_numpy(np.random.default_rng(2).chisquare(2, 1000))
    with_outliers = squared.clone()
    with_outliers[:50] = 1e6
    assert fit_peak_factor(with_outliers) == pytest.approx(fit_peak_factor(squared), rel=0.15)


def test_bins_and_their_mean_gap_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities = np.append(rng.random(500) ** 2, [0.0, 1.0])
    is_right = rng.random(502) < probabilities
    curve = bin_reliability(4.0, torch.from_numpy(probabilities), torch.from_numpy(is_right))
    assert sum(curve.counts) == 502
    assert len(curve.counts) == 10
    gap = 0.0
    for number in range(10):
        upper = 2.0 if number == 9 else (number + 1) / 10
        inside = [(p, y) for p, y in zip(probabilities, is_right, strict=True) if number / 10 <= p < upper]
        claimed, share = np.mean(inside, axis=0)
        assert (curve.probabilities[number], curve.shares[number]) == pytest.approx((claimed, share))
        gap += abs(claimed - share) * len(inside) / 502
    assert expected_calibration_error(curve) == pytest.approx(gap)


def test_without_detections_the_error_is_undefined() -> None:
    nothing = torch.zeros(0)
    curve = bin_reliability(4.0, nothing, nothing.bool())
    assert curve == ReliabilityCurve(4.0, (), (), ())
    assert math.isnan(expected_calibration_error(curve))


def make_report(n_images: int, factor: float, seed: int):
    """Peaks of 1 px² on images twice as large; errors of `factor` times that; a fifth of the detections is wrong."""
    rng = np.random.default_rng(seed)
    metric = KeypointMetrics(["a", "b"], [2.0, 20.0])
    points = {(image, 0): [(20.0, 20.0)] for image in range(n_images)}
    detections = {}
    for image in range(n_images):
        x, y = rng.normal([50, 40], 2 * math.sqrt(factor))  # (20, 20) in the input lies at (50, 40) in the image
        detections[image, 0] = [(x, y, 0.8), (200.0, 200.0, 0.3)] if image % 4 == 0 else [(x, y, 0.8)]
    found, batch = make_batch(list(range(n_images)), points, detections)
    metric.update(found._replace(covariances=torch.eye(2).expand(*found.points.shape, 2)), batch)
    return metric.compute()


def test_a_report_learns_a_calibration_that_holds_on_other_images() -> None:
    calibration = make_report(400, factor=0.49, seed=0).fit_calibration()
    assert calibration is not None
    assert calibration.thresholds_px == (2.0, 20.0)
    assert calibration.peak_factor == pytest.approx(0.49, rel=0.1)
    sure, unsure = calibration.probabilities(torch.tensor([0.8, 0.3])).tolist()
    assert sure[1] > 0.98
    assert unsure[1] < 0.05
    other = make_report(300, factor=0.49, seed=1).with_calibration(calibration)
    scalars = other.as_scalars()
    assert 0.62 < scalars["coverage"] < 0.75
    assert scalars["ECE/d=20"] < 0.02
    assert scalars["ECE/d=2"] < 0.1
    assert [curve.threshold_px for curve in other.reliability_curves] == [2.0, 20.0]
    assert "coverage" not in other.with_intervals(5, seed=0).intervals


def test_thresholds_that_the_calibration_lacks_are_left_out() -> None:
    calibration = Calibration((2.0, 5.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), 1.0)
    scalars = make_report(20, factor=1, seed=0).with_calibration(calibration).as_scalars()
    assert "ECE/d=2" in scalars
    assert "ECE/d=5" not in scalars
    assert math.isnan(scalars["coverage"])


@pytest.mark.parametrize(("n_images", "is_enough"), [(9, False), (10, True)])
def test_too_few_right_detections_make_no_calibration(n_images: int, is_enough: bool) -> None:
    assert (make_report(n_images, factor=0.1, seed=0).fit_calibration() is not None) == is_enough


def test_peaks_that_were_not_measured_make_no_calibration() -> None:
    metric = KeypointMetrics(["a", "b"], [2.0])
    metric.update(*make_batch(list(range(20)), {(image, 0): [(5.0, 5.0)] for image in range(20)}))
    assert metric.compute().fit_calibration() is None
