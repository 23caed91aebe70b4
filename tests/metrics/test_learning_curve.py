import numpy as np
import pytest

from keypoint_detection.metrics.learning_curve import CurvePoint, fit_power_law, trace_learning_curve

SIZES = [10, 20, 40, 80]


def law(n: float, a: float = 20.0, b: float = 0.6, c: float = 1.5) -> float:
    return a * n**-b + c


def points_of(noise: float, n_runs: int = 3, floor: float = 1.5, a: float = 20.0) -> list[CurvePoint]:
    """Trainings whose errors follow a power law, each off by a factor; 400 resamples each."""
    rng = np.random.default_rng(0)
    points = []
    for n in SIZES:
        for _ in range(n_runs):
            error = law(n, a=a, c=floor) * np.exp(noise * rng.normal())
            points.append(CurvePoint(n / 80, n, error, error * np.exp(noise * rng.normal(size=400))))
    return points


def test_an_exact_power_law_is_found() -> None:
    fitted = fit_power_law(SIZES, np.array([[law(n) for n in SIZES]]))
    assert (fitted.a[0], fitted.b[0], fitted.c[0]) == pytest.approx((20, 0.6, 1.5), rel=1e-6)
    assert fitted.at(160)[0] == pytest.approx(law(160), rel=1e-6)


def test_several_curves_are_fitted_as_each_alone() -> None:
    curves = np.array([[9.0, 5.0, 4.0, 3.9], [3.0, 3.0, 3.0, 3.0], [8.0, 6.0, 3.0, 1.0]])
    together = fit_power_law(SIZES, curves)
    for index, curve in enumerate(curves):
        alone = fit_power_law(SIZES, curve[None])
        assert [one[index] for one in together] == [one[0] for one in alone]


def test_an_error_that_rises_is_fitted_by_a_constant_and_never_below_zero() -> None:
    rising = fit_power_law(SIZES, np.array([[2.0, 2.5, 3.0, 4.0]]))
    assert rising.a[0] == 0
    assert 2 < rising.c[0] < 4
    falling = fit_power_law(SIZES, np.array([[100.0, 20.0, 4.0, 0.8]]))
    assert falling.c[0] == 0
    assert falling.at(1e6)[0] >= 0


def test_a_grid_search_finds_no_better_fit() -> None:
    errors = np.array([9.0, 6.5, 5.2, 4.1])
    fitted = fit_power_law(SIZES, errors[None])
    n = np.array(SIZES)
    residual = ((fitted.a * n**-fitted.b + fitted.c) / errors - 1) ** 2
    a, b, c = np.meshgrid(np.linspace(0, 100, 101), np.linspace(0.05, 2, 40), np.linspace(0, 5, 51), indexing="ij")
    others = sum(((a * size**-b + c) / error - 1) ** 2 for size, error in zip(SIZES, errors, strict=True))
    assert residual.sum() <= others.min() + 1e-12


def test_steady_trainings_give_a_narrow_forecast() -> None:
    curve = trace_learning_curve(points_of(noise=0.005), seed=0)
    assert curve.sizes == SIZES
    assert curve.n_runs == [3, 3, 3, 3]
    assert curve.shows_a_fall
    assert curve.determines_gain
    assert curve.forecast is not None
    assert curve.gain is not None
    assert curve.forecast.low < law(160) < curve.forecast.high
    assert curve.gain.low < 1 - law(160) / law(80) < curve.gain.high


def test_trainings_that_scatter_do_not_determine_the_gain() -> None:
    curve = trace_learning_curve(points_of(noise=0.5), seed=0)
    assert not curve.determines_gain


def test_a_flat_curve_shows_no_fall() -> None:
    curve = trace_learning_curve(points_of(noise=0.1, a=0.0), seed=0)
    assert not curve.shows_a_fall
    assert curve.fell.low < 0 < curve.fell.high


def test_two_sizes_show_a_fall_but_give_no_forecast() -> None:
    points = [point for point in points_of(noise=0.01) if point.n_images in (10, 80)]
    curve = trace_learning_curve(points, seed=0)
    assert curve.shows_a_fall
    assert curve.forecast is None
    assert not curve.determines_gain


def test_the_spread_of_the_trainings_is_part_of_the_interval() -> None:
    same = np.full(200, 1.0)
    points = [CurvePoint(0.5, n, error, error * same) for n, error in ((9, 2.0), (11, 4.0))]
    points.append(CurvePoint(1.0, 20, 1.0, same))
    curve = trace_learning_curve(points, seed=0)
    assert curve.sizes == [10, 20]
    assert curve.n_runs == [2, 1]
    assert curve.errors[0] == (3.0, 2.0, 4.0)
    assert curve.errors[1] == (1.0, 1.0, 1.0)
