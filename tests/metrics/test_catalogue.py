from collections import Counter

import pytest
from metrics.processes import CALIBRATION, fill, make_metric

from keypoint_detection.metrics import ChannelReport
from keypoint_detection.metrics.catalogue import (
    COLUMNS,
    DEFINITIONS,
    DIRECTIONS,
    FURTHER_COLUMNS,
    METRICS,
    find_better,
)


def test_every_number_of_a_channel_is_declared_once() -> None:
    assert METRICS
    assert Counter(metric.field for metric in METRICS) == Counter(set(ChannelReport._fields) - {"name"})
    assert Counter(COLUMNS + FURTHER_COLUMNS) == Counter({*COLUMNS, *FURTHER_COLUMNS})


def test_every_logged_number_has_a_direction() -> None:
    scalars = fill(make_metric(), [list(range(11))]).compute().with_calibration(CALIBRATION).as_scalars()
    assert {"mAP", "coverage", "ECE/d=2", "strict_success/d=2", "loss/b"} <= set(scalars)
    assert [name for name in scalars if not name.startswith(tuple(DIRECTIONS))] == []


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("mAP_smoothed", "max"), ("AP/nose/d=4", "max"), ("PCK/r=0.1", "max"), ("OKS-AP50", "max"), ("OKS-AR", "max"),
        ("error_px/nose/p95", "min"), ("ECE/d=2", "min"), ("loss", "min"), ("NME", "min"),
        ("coverage", None), ("score_threshold/nose", None), ("lr-AdamW", None),
    ],
)  # fmt: skip
def test_the_direction_of_a_number_follows_from_its_name(name: str, better: str | None) -> None:
    assert find_better(name) == better


def test_every_number_is_explained() -> None:
    assert len(DIRECTIONS) >= 15
    for start in DIRECTIONS:
        assert any(name.startswith(start) or start in text for name, text in DEFINITIONS.items()), start
