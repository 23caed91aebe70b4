from types import SimpleNamespace

import pytest
import torch

from keypoint_detection.metrics.curves import MAX_STEPS, cumulative_errors, interpolated_precision


def measured(scores, is_right, n_truths, errors=()):
    """Measurements of one channel at one threshold."""
    n = len(scores)
    return SimpleNamespace(
        detections=SimpleNamespace(channel=torch.zeros(n, dtype=torch.int64), scores=torch.tensor(scores)),
        is_true_positive=torch.tensor([is_right], dtype=torch.bool).view(1, n),
        truths=SimpleNamespace(channel=torch.zeros(n_truths, dtype=torch.int64)),
        errors_px=torch.tensor(errors, dtype=torch.float64),
    )


def test_precision_is_the_highest_at_that_recall_or_a_higher_one():
    # By hand: right, wrong, right, right of four truths: precision 1/1, 2/3, 3/4; 2/3 is lifted to 3/4.
    stairs = interpolated_precision(measured([0.9, 0.8, 0.7, 0.6], [True, False, True, True], 4), 0, 0)
    assert stairs.x.tolist() == [0.25, 0.75]
    assert stairs.y.tolist() == [1.0, 0.75]


@pytest.mark.parametrize(
    ("scores", "is_right", "n_truths"), [([], [], 3), ([0.9], [False], 0), ([0.9, 0.5], [False, False], 2)]
)
def test_there_is_no_step_where_nothing_is_right(scores, is_right, n_truths):
    assert len(interpolated_precision(measured(scores, is_right, n_truths), 0, 0).x) == 0


def test_errors_are_accumulated_over_all_points_and_missing_ones_keep_the_share_below_one():
    stairs = cumulative_errors(measured([], [], 4, [3.0, torch.inf, 0.5, 2.0]), 0)
    assert stairs.x.tolist() == [0.5, 2.0, 3.0]
    assert stairs.y.tolist() == [0.25, 0.5, 0.75]


def test_points_of_other_channels_count_only_together():
    both = measured([], [], 2, [1.0, 5.0])
    both.truths.channel = torch.tensor([0, 1])
    assert cumulative_errors(both, 1).x.tolist() == [5.0]
    assert cumulative_errors(both, None).y.tolist() == [0.5, 1.0]


def test_many_points_become_few_steps_that_keep_both_ends():
    stairs = cumulative_errors(measured([], [], 5000, list(range(1, 5001))), 0)
    assert len(stairs.x) == MAX_STEPS
    assert (stairs.x[0], stairs.x[-1], stairs.y[-1]) == (1.0, 5000.0, 1.0)
