import json
import math

import pytest
import torch

from keypoint_detection.confidence import Calibration, calibrate
from keypoint_detection.types import Detections

CALIBRATION = Calibration(
    thresholds_px=(2.0, 4.0), of_log_score=(1.0, 2.0), of_log_rest=(1.0, 0.5), intercepts=(-1.0, 0.5), peak_factor=0.25
)


def test_probabilities_are_those_of_the_formula():
    found = CALIBRATION.probabilities(torch.tensor([[0.2, 0.7]], dtype=torch.float64))
    assert found.shape == (1, 2, 2)
    for row, score in zip(found[0].tolist(), (0.2, 0.7), strict=True):
        first = 1 / (1 + math.exp(-(math.log(score) - math.log(1 - score) - 1)))
        second = 1 / (1 + math.exp(-(2 * math.log(score) - 0.5 * math.log(1 - score) + 0.5)))
        assert row == pytest.approx([first, max(first, second)])


def test_probabilities_rise_with_the_score_and_the_threshold_and_stay_within_bounds():
    scores = torch.linspace(0, 1, 1001)
    found = CALIBRATION._replace(intercepts=(-1.0, -1.2)).probabilities(scores)
    assert (found.diff(dim=0) >= 0).all()
    assert (found.diff(dim=1) >= 0).all()
    assert found.min() == 0
    assert 0.99 < found.max() <= 1


def test_an_unused_slot_has_no_probability():
    assert CALIBRATION.probabilities(torch.zeros(3)).tolist() == [[0, 0]] * 3


def test_covariances_are_those_of_the_peaks_times_a_factor():
    detections = Detections(torch.ones(1, 1, 1, 2), torch.full((1, 1, 1), 0.5), 4 * torch.eye(2).expand(1, 1, 1, 2, 2))
    found = calibrate(detections, CALIBRATION)
    assert found.covariances is not None
    assert found.covariances[0, 0, 0].tolist() == [[1, 0], [0, 1]]
    assert found.probabilities is not None
    assert found.probabilities.shape == (1, 1, 1, 2)


def test_without_a_calibration_peaks_are_not_taken_for_errors():
    detections = Detections(torch.ones(1, 1, 1, 2), torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 1, 2, 2))
    assert calibrate(detections, None)[2:] == (None,) * 3


def test_a_calibration_is_read_back_from_plain_values():
    assert Calibration.from_state(json.loads(json.dumps(CALIBRATION.as_state()))) == CALIBRATION
