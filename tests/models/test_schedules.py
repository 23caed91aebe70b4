import math

import pytest

from keypoint_detection.models.schedules import warmup_cosine


def test_the_rate_rises_then_falls_to_a_hundredth():
    factors = [warmup_cosine(step, 200) for step in range(201)]
    peak = factors.index(max(factors))
    assert 9 <= peak <= 10
    assert factors[peak] == 1.0
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] == pytest.approx(0.01)


def test_the_middle_of_the_descent_is_half_way():
    assert warmup_cosine(105, 200) == pytest.approx((1 + 0.01) / 2)


def test_a_training_without_end_keeps_its_rate():
    assert warmup_cosine(10**6, math.inf) == 1.0


@pytest.mark.parametrize("step", [0, 1, 2, 50])
def test_very_short_and_overlong_trainings_stay_in_range(step):
    assert 0 < warmup_cosine(step, 1) <= 1
