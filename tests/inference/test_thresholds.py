import pytest

from keypoint_detection.inference.thresholds import choose_threshold


def test_the_point_whose_score_is_the_best_threshold_is_in_whatever_its_last_digits() -> None:
    score = 0.445634
    threshold = choose_threshold("best_f1", score, 0.01)
    assert score * (1 - 1e-3) <= threshold < score * (1 - 1e-5)
    assert choose_threshold(0.3, score, 0.01) == 0.3
    assert choose_threshold("best_f1", None, 0.01) == 0.01
    with pytest.raises(ValueError, match="from 0 to 1"):
        choose_threshold(1.5, score, 0.01)
