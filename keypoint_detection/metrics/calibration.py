"""How far scores and shapes of peaks can be trusted: fitted on a validation, checked on other images.

Two questions are answered separately: the probability says whether a detection is right, the covariance how far off it
is if it is right. For the covariance, right means within the largest distance threshold; each threshold has its own
probability.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from keypoint_detection.confidence import Calibration, log_odds_terms
from keypoint_detection.metrics.evaluation import Measurements

# The meaning of "within one standard deviation" in two dimensions: inside the ellipse that contains as much of a normal
# distribution as one standard deviation either way does in one dimension.
ONE_SIGMA_MASS = math.erf(1 / math.sqrt(2))
# The squared Mahalanobis radius of that ellipse, from the chi-squared distribution with two degrees of freedom: 2.30.
_SQUARED_RADIUS = -2 * math.log1p(-ONE_SIGMA_MASS)
# With fewer right detections, a validation says nothing about probabilities and errors.
MIN_RIGHT = 10
# The prior, that the log-odds of being right are those of the score, and its strength.
PRIOR_MEAN = (1.0, 1.0, 0.0)
PRIOR_DEVIATION = (2.0, 2.0, 5.0)
N_NEWTON_STEPS = 50
N_BINS = 10


class ReliabilityCurve(NamedTuple):
    """Claimed and true shares of right detections, in bins of the claimed probability; empty bins are left out.

    Attributes:
        threshold_px: distance within which a detection counts as right.
        probabilities: mean claimed probability in each bin, ascending.
        shares: share of the detections in each bin that are right.
        counts: detections in each bin.
    """

    threshold_px: float
    probabilities: tuple[float, ...]
    shares: tuple[float, ...]
    counts: tuple[int, ...]


class ConfidenceReport(NamedTuple):
    """How well a calibration holds on images that it was not fitted on.

    Attributes:
        curves: one per distance threshold that both the calibration and the evaluation have.
        coverage: of the detections that are right at the calibration's largest threshold, the share whose error is
            within one standard deviation; 0.683 is ideal, NaN if none is right.
    """

    curves: tuple[ReliabilityCurve, ...]
    coverage: float


def fit_calibration(measurements: Measurements) -> Calibration | None:
    """Fit a calibration of the scores and shapes of peaks to a validation.

    Args:
        measurements: with the covariances of the peaks.

    Returns:
        The calibration; None if fewer than ten detections are right, or the peaks were not measured.
    """
    detections, is_right = measurements.detections, measurements.is_true_positive
    is_right_at_all = is_right[-1]
    if int(is_right_at_all.sum()) < MIN_RIGHT or bool(detections.covariances_input.isnan().any()):
        return None
    terms = torch.stack([*log_odds_terms(detections.scores.double()), torch.ones_like(is_right_at_all).double()], 1)
    rows = [fit_log_odds(terms, right).tolist() for right in is_right]
    slopes, rest_slopes, intercepts = zip(*rows, strict=True)
    return Calibration(
        thresholds_px=tuple(measurements.thresholds_px.tolist()),
        of_log_score=slopes,
        of_log_rest=rest_slopes,
        intercepts=intercepts,
        peak_factor=fit_peak_factor(_squared_distances(measurements)[is_right_at_all]),
    )


def fit_log_odds(terms: Tensor, is_right: Tensor) -> Tensor:
    """Fit the beta calibration of Kull et al. 2017, https://proceedings.mlr.press/v54/kull17a.html, section 4.

    On detectors of the openfield mouse, fitted on 29 to 39 images and tested on as many others, its log loss was 2 %
    below that of Platt's method and 9 % below that of isotonic regression, which overfits; its calibration error was
    that of a perfect calibration on so few points. We differ in two ways. A Gaussian prior around "the score is the
    probability" keeps the fit stable with the few dozen points that a validation may have; and of several equally good
    ways to keep the curve rising, we set to 0 a slope that would be negative.

    Args:
        terms: (M, 3) log s, -log(1 - s), and 1.
        is_right: (M,) bool.

    Returns:
        (3,) weights of the terms, the first two not negative.
    """
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (PRIOR_MEAN, PRIOR_DEVIATION))
    is_free = torch.ones(3, dtype=torch.bool)
    while True:
        weights = torch.zeros(3, dtype=torch.float64)
        prior = (mean[is_free], deviation[is_free] ** -2)
        weights[is_free] = _fit_logistic(terms[:, is_free].double(), is_right.double(), *prior)
        falls = weights[:2] < 0
        if not falls.any():
            return weights
        is_free[:2] &= ~falls


def _fit_logistic(terms: Tensor, targets: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Fit a logistic regression with a Gaussian prior by Newton's method; the problem is convex."""

    def loss(weights: Tensor) -> Tensor:
        logits = terms @ weights
        likelihood = torch.nn.functional.softplus(logits).sum() - targets @ logits
        return likelihood + 0.5 * (precision * (weights - mean) ** 2).sum()

    weights = mean.clone()
    for _ in range(N_NEWTON_STEPS):
        probabilities = torch.sigmoid(terms @ weights)
        gradient = terms.T @ (probabilities - targets) + precision * (weights - mean)
        curvature = (terms.T * (probabilities * (1 - probabilities))) @ terms + torch.diag(precision)
        step = torch.linalg.solve(curvature, gradient)
        if float(step.abs().max()) < 1e-10:
            break
        before = loss(weights)
        # Far from the optimum, a full step can overshoot.
        while loss(weights - step) > before + 1e-9:
            step = step / 2
        weights = weights - step
    return weights


def fit_peak_factor(squared_distances: Tensor) -> float:
    """Find the factor on the peaks' covariances at which one standard deviation covers its share of the errors.

    Unlike the mean, the quantile is not affected by a few points that are far off. As in conformal prediction, a
    slightly higher quantile is used, since among n + 1 points the new one can have any rank.

    Args:
        squared_distances: (M,) squared Mahalanobis distances of the errors, by the covariances of their peaks.
    """
    n = len(squared_distances)
    share = min(1.0, ONE_SIGMA_MASS * (n + 1) / n)
    return float(squared_distances.quantile(share)) / _SQUARED_RADIUS


def measure_confidence(measurements: Measurements, calibration: Calibration) -> ConfidenceReport:
    """Check a calibration; unweighted, since every image counts once.

    Args:
        measurements: from images other than those it was fitted on.
        calibration: the calibration to check.
    """
    thresholds = measurements.thresholds_px.tolist()
    probabilities = calibration.probabilities(measurements.detections.scores.double())
    curves = [
        bin_reliability(threshold, probabilities[:, index], measurements.is_true_positive[thresholds.index(threshold)])
        for index, threshold in enumerate(calibration.thresholds_px)
        if threshold in thresholds
    ]
    largest = calibration.thresholds_px[-1]
    if largest not in thresholds or bool(measurements.detections.covariances_input.isnan().any()):
        return ConfidenceReport(tuple(curves), math.nan)
    is_right = measurements.is_true_positive[thresholds.index(largest)]
    distances = _squared_distances(measurements)[is_right] / calibration.peak_factor
    return ConfidenceReport(tuple(curves), float((distances <= _SQUARED_RADIUS).double().mean()))


def bin_reliability(threshold_px: float, probabilities: Tensor, is_right: Tensor) -> ReliabilityCurve:
    """Sort detections into ten bins of equal width by their claimed probability.

    Args:
        threshold_px: distance within which they count as right.
        probabilities: (M,) in [0, 1].
        is_right: (M,) bool.
    """
    index = (probabilities * N_BINS).long().clamp(max=N_BINS - 1)
    counts = torch.bincount(index, minlength=N_BINS)
    claimed, right = (torch.bincount(index, values.double(), minlength=N_BINS) for values in (probabilities, is_right))
    is_used = counts > 0
    claimed, right, counts = claimed[is_used], right[is_used], counts[is_used]
    return ReliabilityCurve(
        threshold_px, tuple((claimed / counts).tolist()), tuple((right / counts).tolist()), tuple(counts.tolist())
    )


def expected_calibration_error(curve: ReliabilityCurve) -> float:
    """Average the gaps between claimed and true shares over the detections; NaN without any.

    See Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599.

    >>> round(expected_calibration_error(ReliabilityCurve(4.0, (0.2, 0.9), (0.25, 1.0), (20, 60))), 4)
    0.0875
    """
    total = sum(curve.counts)
    if total == 0:
        return math.nan
    gaps = (
        count * abs(claimed - share)
        for claimed, share, count in zip(curve.probabilities, curve.shares, curve.counts, strict=True)
    )
    return sum(gaps) / total


def _squared_distances(measurements: Measurements) -> Tensor:
    """Squared Mahalanobis distances (M,) of the nearest ground truths by the covariances of the peaks.

    They are invariant to an affine map of both, so they are computed in input pixels.
    """
    detections = measurements.detections
    offsets = torch.linalg.solve(detections.to_image, measurements.offsets_px)  # (M, 2)
    squared: Tensor = (offsets * torch.linalg.solve(detections.covariances_input, offsets)).sum(1)
    return squared
