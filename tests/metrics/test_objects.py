"""Metrics of objects: hand-made images, and what becomes of them in reports, intervals and pools."""

import math

import pytest
import torch
from ground_truths import make_truths

from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.metrics.objects import FoundObjects, ObjectMatches, choose_radius
from keypoint_detection.types import Batch, Detections, Grouping

THRESHOLDS = (2.0, 8.0)


def make_metric() -> KeypointMetrics:
    return KeypointMetrics(["corner", "handle"], THRESHOLDS, group=True)


def make_batch(image_id: int, points, instances, centres) -> Batch:
    """One image of 100 x 100 pixels whose input pixels are half as large."""
    truths = make_truths(
        torch.tensor(points)[None] * 2,
        instances=torch.tensor(instances)[None],
        centres=torch.tensor(centres)[None].float() * 2,
    )
    scaled = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    return Batch(
        images=torch.zeros(1, 3, 200, 200, dtype=torch.uint8),
        truths=truths,
        image_ids=torch.tensor([image_id]),
        input_to_image=scaled[None],
        image_sizes=torch.tensor([[100, 100]]),
    )


# Two objects: two corners and a handle each.
TRUTHS = [
    [[10.0, 10.0], [10.0, 30.0], [60.0, 10.0], [60.0, 30.0]],
    [[20.0, 20.0], [70.0, 20.0], [0.0, 0.0], [0.0, 0.0]],
]
INSTANCES = [[0, 0, 1, 1], [0, 1, -1, -1]]
LEFT, RIGHT = [15.0, 20.0], [65.0, 20.0]
CENTRES = [[LEFT, LEFT, RIGHT, RIGHT], [LEFT, RIGHT, LEFT, LEFT]]


def truth_batch(image_id: int = 1) -> Batch:
    batch = make_batch(image_id, TRUTHS, INSTANCES, CENTRES)
    visibility = batch.visibility.clone()
    visibility[0, 1, 2:] = 0
    return batch._replace(truths=batch.truths._replace(visibility=visibility))


def detect(objects, scores=(0.9, 0.4), moved: float = 0.0, vote_error: float = 0.0) -> Detections:
    """Find all points, moved in image pixels, in the given objects."""
    points = torch.tensor(TRUTHS)[None] * 2 + torch.tensor([2 * moved, 0.0])
    found = torch.tensor([[[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.0, 0.0]]])
    votes = torch.tensor(CENTRES)[None] * 2 + torch.tensor([0.0, vote_error])
    grouping = Grouping(torch.tensor(objects)[None], torch.tensor([scores]), votes, torch.ones(1, 2, 4))
    return Detections(points, found, grouping=grouping)


def report_of(*detections: Detections):
    metric = make_metric()
    for image_id, one in enumerate(detections, start=1):
        metric.update(one, truth_batch(image_id))
    return metric.compute()


RIGHT_OBJECTS = [[1, 1, 0, 0], [1, 0, -1, -1]]


def test_points_in_the_right_objects_whatever_their_numbers():
    report = report_of(detect(RIGHT_OBJECTS))
    assert report.objects.grouping_accuracy == 1
    assert report.objects.half == report.objects.whole == (1, 1)


def test_only_objects_that_share_most_points_are_matched():
    # Object 0 has two points of the left one and one of the right one; object 1 the other two of the right one.
    report = report_of(detect([[0, 0, 0, 1], [-1, 1, -1, -1]]))
    # Right are two points of the left and two of the right object; one is in the wrong one, and one in none.
    assert report.objects.grouping_accuracy == pytest.approx(4 / 6)
    # Two of three are at least half.
    assert report.objects.half == (1, 1)
    assert report.objects.whole == (0, 0)


def test_one_object_is_not_right_twice():
    # The points of the left object are in two; only the better one is right.
    report = report_of(detect([[0, 1, 2, 2], [0, 2, -1, -1]], scores=(0.9, 0.3, 0.6)))
    assert report.objects.half == (1, 1)
    report = report_of(detect([[0, 1, 2, 2], [1, 2, -1, -1]], scores=(0.9, 0.3, 0.6)))
    # In order of score: one of three points is not enough (wrong), three of three (right), two of three (right); the
    # precision at the first is that of the second, which is higher.
    assert report.objects.half == (pytest.approx(2 / 3),) * 2


def test_points_beyond_the_threshold_are_not_right():
    report = report_of(detect(RIGHT_OBJECTS, moved=5.0))
    assert report.objects.grouping_accuracy == 1
    assert report.objects.whole == (0, 1)


def test_nothing_found_is_undefined_and_no_object_is_right():
    nothing = detect(RIGHT_OBJECTS)
    report = report_of(nothing._replace(scores=nothing.scores * 0))
    assert math.isnan(report.objects.grouping_accuracy)
    assert report.objects.half == (0, 0)
    assert report.measurements.objects.radius_input is None


@pytest.mark.parametrize(("spread", "apart"), [(0.5, 100.0), (6.0, 100.0), (0.5, 12.0)])
def test_the_radius_is_wide_enough_for_one_object_and_too_narrow_for_two(spread, apart):
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(4).repeat(10)
    votes = true[:, None] * torch.tensor([apart, 0.0]) + spread * torch.randn(40, 2, generator=generator)
    images, scores = torch.arange(2).repeat_interleave(20), torch.rand(40, generator=generator) + 0.1
    found = FoundObjects(true, scores, votes, torch.zeros(40), scores)
    radius = choose_radius(images, scores, found, true, 2)
    assert 4 * spread < radius < apart - 4 * spread
    # One object, and objects of one point each, tell nothing.
    assert choose_radius(images, scores, found, torch.zeros_like(true), 2) is None
    assert choose_radius(images, scores, found, true.masked_fill(torch.arange(40) % 20 > 3, -1), 2) is None


def test_margins_say_how_likely_a_point_belongs_to_its_object():
    generator = torch.Generator().manual_seed(0)
    margins = 20 * torch.rand(4000, generator=generator)
    is_grouped = torch.rand(4000, generator=generator) < torch.sigmoid(0.4 * margins - 2)
    nothing = torch.zeros(0)
    matches = ObjectMatches(*[nothing] * 6, None, margins, is_grouped)
    assert matches.fit_margins() == pytest.approx((0.4, -2), rel=0.15)
    # Nothing is learned from few points, and of margins that say nothing, the share remains.
    assert matches._replace(margins=margins[:19], is_grouped=is_grouped[:19]).fit_margins() is None
    slope, intercept = matches._replace(is_grouped=margins < 5).fit_margins()
    assert slope == 0
    assert 1 / (1 + math.exp(-intercept)) == pytest.approx(float((margins < 5).float().mean()), abs=0.01)
    all_right = matches._replace(is_grouped=torch.ones(4000, dtype=torch.bool)).fit_margins()
    assert all(map(math.isfinite, all_right))


def test_only_images_of_several_objects_tell_about_margins():
    objects = report_of(detect(RIGHT_OBJECTS)).measurements.objects
    assert objects.is_grouped.tolist() == [True] * 6
    assert objects.margins.tolist() == [1.0] * 6


def test_objects_have_names_intervals_and_a_sentence():
    from keypoint_detection.metrics.catalogue import find_better
    from keypoint_detection.metrics.table import describe_objects

    metric = make_metric()
    wrong = [[0, 0, 0, 0], [0, 0, -1, -1]]
    for image_id in range(1, 13):
        metric.update(detect(wrong if image_id % 2 else RIGHT_OBJECTS), truth_batch(image_id))
    report = metric.compute()
    names = {"grouping_accuracy", *(f"object_AP/{kind}/d={d}" for kind in ("half", "all") for d in (2, 8))}
    assert names <= report.as_scalars().keys() & metric.names(with_losses=False)
    assert {find_better(name) for name in names} == {"max"}
    assert report.as_scalars()["grouping_accuracy"] == pytest.approx((6 + 3) / 12)
    bounded = report.with_intervals(200, seed=0)
    low, high = bounded.intervals["grouping_accuracy"]
    assert 0.5 <= low < 0.75 < high <= 1
    assert "objects: 0.750 (0." in describe_objects(bounded)
    restored = type(report).from_state(report.as_state())
    assert restored.objects == report.objects
    pooled = metric.pool([report.measurements.rows])
    assert pooled.objects == report.objects


def test_without_grouping_nothing_is_said_of_objects():
    metric = KeypointMetrics(["corner", "handle"], THRESHOLDS)
    metric.update(detect(RIGHT_OBJECTS), truth_batch())
    report = metric.compute()
    assert report.objects is None
    assert not any("object" in name or "grouping" in name for name in report.as_scalars())
    assert set(report.measurements.rows) == {
        *("image_rows", "affine_rows", "truth_rows", "truth_values", "detection_rows", "detection_values", "loss_rows")
    }
