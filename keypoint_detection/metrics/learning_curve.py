"""Fit the error against the number of training images by a power law with a floor, and forecast twice the labels.

error(n) = a n^-b + c describes learning curves over a wide range (Hestness et al. 2017, "Deep Learning Scaling is
Predictable, Empirically", section 3). A few small runs can seldom determine all three parameters, so every number here
comes with its interval.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The exponents tried. Above 2, an error falls to its floor immediately; below 0.05, it hardly changes.
EXPONENTS = np.linspace(0.05, 2, 40)
# With fewer sizes, the floor and the exponent cannot be distinguished at all.
MIN_SIZES = 3
LEVEL = 0.95
# A forecast whose interval spans more than this share of the error is too vague to plan with.
MAX_SPAN = 0.25


class CurvePoint(NamedTuple):
    """One training.

    Attributes:
        part: the part of the images used, as a fraction; runs on the same part belong together.
        n_images: number of training images; because groups stay whole, equal parts differ slightly.
        error: its error on held-out images.
        resampled: (R,) the error in each resample of those images; all runs share the resamples.
    """

    part: float
    n_images: float
    error: float
    resampled: Floats


class PowerLaw(NamedTuple):
    """error(n) = a n^-b + c, for R curves at once.

    Attributes:
        a: (R,) at least 0.
        b: (R,) above 0.
        c: (R,) at least 0, the error below which it never falls, however many images there are.
    """

    a: Floats
    b: Floats
    c: Floats

    def at(self, n_images: float) -> Floats:
        """Compute the error (R,) of training on a given number of images."""
        value: Floats = self.a * n_images**-self.b + self.c
        return value


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class LearningCurve(NamedTuple):
    """The results of runs on growing parts of the images.

    Attributes:
        sizes: number of images of each part, averaged over its runs, ascending.
        n_runs: number of runs of each size.
        errors: the mean error at each size.
        fell: how much the error fell from the smallest size to the largest, as a share of the former.
        law: the fit to `errors`, with one row; None if there are too few sizes.
        laws: the fits in each resample.
        forecast: the error with twice the images of the largest size; None without a fit.
        gain: how much lower the forecast is, as a share of the error at the largest size.
    """

    sizes: list[float]
    n_runs: list[int]
    errors: list[Estimate]
    fell: Estimate
    law: PowerLaw | None
    laws: PowerLaw | None
    forecast: Estimate | None
    gain: Estimate | None

    @property
    def shows_a_fall(self) -> bool:
        """Whether more images reduced the error by more than chance."""
        return self.fell.low > 0

    @property
    def determines_gain(self) -> bool:
        """Whether the forecast is narrow enough to plan with."""
        return self.shows_a_fall and self.gain is not None and self.gain.high - self.gain.low <= MAX_SPAN


def fit_power_law(sizes: Sequence[float], errors: Floats) -> PowerLaw:
    """Fit a power law with a floor to each row, by least squares of the relative deviations, with a and c at least 0.

    Args:
        sizes: (N,) numbers of images, at least three different ones.
        errors: (R, N) positive.
    """
    n = np.asarray(sizes, dtype=np.float64)
    rows = np.arange(len(errors))
    # With weights 1 / error the target is 1 everywhere: c w + a (w n^-b) = 1.
    floor = 1 / errors  # (R, N)
    best = PowerLaw(*np.zeros((3, len(errors))))
    best_residual = np.full(len(errors), np.inf)
    for b in EXPONENTS:
        slope = floor * n**-b
        ss, sf, ff = (slope**2).sum(1), (slope * floor).sum(1), (floor**2).sum(1)
        s1, f1 = slope.sum(1), floor.sum(1)
        determinant = ss * ff - sf**2
        a, c = (s1 * ff - f1 * sf) / determinant, (ss * f1 - sf * s1) / determinant
        # If the optimum is outside the allowed quadrant, the best allowed point is on one of its borders.
        candidates = np.array([[a, c], [s1 / ss, np.zeros_like(a)], [np.zeros_like(a), f1 / ff]])  # (3, 2, R)
        residuals = ((candidates[:, :1] * slope.T + candidates[:, 1:] * floor.T).transpose(0, 2, 1) - 1) ** 2
        residual = np.where((candidates >= 0).all(1), residuals.sum(2), np.inf)  # (3, R)
        choice = residual.argmin(0)
        is_better = residual[choice, rows] < best_residual
        best_residual = np.where(is_better, residual[choice, rows], best_residual)
        new = (candidates[choice, 0, rows], np.full(len(errors), b), candidates[choice, 1, rows])
        best = PowerLaw(*(np.where(is_better, one, old) for one, old in zip(new, best, strict=True)))
    return best


def trace_learning_curve(points: Sequence[CurvePoint], seed: int) -> LearningCurve:
    """Summarise training runs by their number of images.

    Intervals are percentile bootstraps over the held-out images and, at each size, over the runs.

    Args:
        points: one per run, of at least two parts.
        seed: seed for drawing the runs.
    """
    generator = np.random.default_rng(seed)
    by_part: dict[float, list[CurvePoint]] = {}
    for point in sorted(points, key=lambda point: point.part):
        by_part.setdefault(point.part, []).append(point)
    sizes = [float(np.mean([point.n_images for point in group])) for group in by_part.values()]
    means = np.array([[np.mean([point.error for point in group]) for group in by_part.values()]])  # (1, N)
    resampled = np.stack([_draw_trainings(group, generator) for group in by_part.values()], axis=1)  # (R, N)
    resampled = resampled[np.isfinite(resampled).all(1) & (resampled > 0).all(1)]
    fell = _estimate(1 - means[:, -1] / means[:, 0], 1 - resampled[:, -1] / resampled[:, 0])
    law = laws = forecast = gain = None
    if len(set(sizes)) >= MIN_SIZES:
        law, laws = fit_power_law(sizes, means), fit_power_law(sizes, resampled)
        twice = 2 * sizes[-1]
        forecast = _estimate(law.at(twice), laws.at(twice))
        gain = _estimate(1 - law.at(twice) / law.at(sizes[-1]), 1 - laws.at(twice) / laws.at(sizes[-1]))
    return LearningCurve(
        sizes=sizes,
        n_runs=[len(group) for group in by_part.values()],
        errors=[_estimate(means[:, index], resampled[:, index]) for index in range(len(sizes))],
        fell=fell,
        law=law,
        laws=laws,
        forecast=forecast,
        gain=gain,
    )


def _draw_trainings(points: Sequence[CurvePoint], generator: np.random.Generator) -> Floats:
    """Average over the runs of one size, redrawn in each resample of the images."""
    values = np.stack([point.resampled for point in points])  # (trainings, R)
    drawn = generator.integers(len(points), size=values.shape)
    mean: Floats = np.take_along_axis(values, drawn, axis=0).mean(0)
    return mean


def _estimate(value: Floats, resampled: Floats) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
    return Estimate(float(value[0]), float(low), float(high))
