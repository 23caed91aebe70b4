import math

import pytest

from keypoint_detection.inference.thresholds import choose_threshold, read_best_f1


def test_the_point_whose_score_is_the_best_threshold_is_in_whatever_its_last_digits() -> None:
    score = 0.445634
    threshold = choose_threshold("best_f1", score, 0.01)
    assert score * (1 - 1e-3) <= threshold < score * (1 - 1e-5)
    assert choose_threshold(0.3, score, 0.01) == 0.3
    assert choose_threshold("best_f1", None, 0.01) == 0.01
    with pytest.raises(ValueError, match="from 0 to 1"):
        choose_threshold(1.5, score, 0.01)


@pytest.mark.parametrize(("score", "expected"), [(0.25, 0.25), (math.nan, None)])
def test_a_validation_without_a_point_has_no_best_threshold(score, expected) -> None:
    assert read_best_f1({"report": {"overall": {"score_threshold": score}}}) == expected
    assert read_best_f1(None) is None
