import json
import math

import numpy as np
import pytest
import torch
from metrics.batches import make_batch
from metrics.processes import fill, join, make_metric

from keypoint_detection.metrics import ChannelReport, EvaluationReport, KeypointMetrics
from keypoint_detection.metrics.bootstrap import expand_level, resample_images
from keypoint_detection.metrics.catalogue import OVERALL_METRICS


def test_a_report_names_every_value_of_a_channel() -> None:
    measurements = fill(make_metric(), [[0]]).compute().measurements
    (values, *_) = measurements.channel_values(measurements.every_image_once())
    assert set(ChannelReport._fields) - {"name", "n_truths", "n_detections"} == set(values)


def test_intervals_equal_resampling_by_hand() -> None:
    # Evaluate each resample anew, its images copied under new ids.

    n_images, n_resamples = 8, 6
    report = fill(make_metric(), [list(range(n_images))]).compute().with_intervals(n_resamples, seed=4)
    counts = resample_images(n_images, n_resamples, torch.Generator().manual_seed(4)).long()
    values = []
    for r in range(n_resamples):
        drawn = torch.arange(n_images).repeat_interleave(counts[:, r]).tolist()
        detections, batch, losses = join(drawn)
        metric = make_metric()
        metric.update(detections, batch._replace(image_ids=torch.arange(n_images)), losses)
        values.append(metric.compute().as_scalars())
    assert len(report.intervals) > 50
    tail = (1 - expand_level(0.95, n_images)) / 2
    for name, (low, high) in report.intervals.items():
        resampled = [value[name] for value in values]
        if np.isnan(resampled).all():
            assert math.isnan(low)
            continue
        assert (low, high) == pytest.approx(np.nanquantile(resampled, [tail, 1 - tail]), abs=1e-5), name


def test_intervals_hold_the_number_and_follow_the_seed() -> None:
    report = fill(make_metric(), [list(range(40))]).compute()
    first, same, other = (report.with_intervals(200, seed).intervals for seed in (0, 0, 1))
    assert first == same
    assert first != other
    for name in ("mAP", "error_px/median", "PCK/d=4", "loss", "recall/a"):
        low, high = first[name]
        assert low < report.as_scalars()[name] < high, name


def test_report_goes_into_a_file() -> None:
    report = fill(make_metric(), [[0, 2]]).compute().with_intervals(5, seed=0)
    written = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert written["n_images"] == 2
    assert written["thresholds_px"] == [2, 4, 8]
    assert len(written["intervals"]["mAP"]) == 2
    assert "nearest free ground truth" in written["definitions"]["AP"]


def test_a_report_is_read_back_from_plain_values() -> None:
    report = fill(make_metric(), [list(range(6))]).compute()
    again = EvaluationReport.from_state(json.loads(json.dumps(report.as_state())))
    assert again.as_scalars() == pytest.approx(report.as_scalars(), nan_ok=True)
    assert [channel.name for channel in again.channels] == [channel.name for channel in report.channels]
    assert again.measurements is None


def test_worst_images_come_first() -> None:
    metric = KeypointMetrics(["a", "b"], [2])
    good = {(0, 0): [(5, 7)]}  # (20, 14) in the image
    metric.update(*make_batch([1], good))
    metric.update(*make_batch([2], good, {(0, 0): [(30, 14, 0.9)]}))
    metric.update(*make_batch([3], good, {}))
    metric.update(*make_batch([4], {}, {(0, 0): [(30, 14, 0.9)]}))
    metric.update(*make_batch([5], good, {(0, 0): [(20, 14, 0.9), (1, 1, 0.1)]}))
    rows = metric.compute().per_image_errors()
    assert [row.image_id for row in rows] == [3, 2, 1, 5, 4]
    assert [row.n_missing for row in rows] == [1, 0, 0, 0, 0]
    assert rows[1].max_error_px == rows[1].mean_error_px == 10
    # The detection of score 0.1 lies below the best score threshold and is not held against its image.
    assert {row.image_id: row.n_false_positives for row in rows} == {1: 0, 2: 1, 3: 0, 4: 1, 5: 0}


def test_the_share_of_resamples_in_which_one_report_is_better_is_that_of_the_differences():
    images, metric = [0, 1, 5, 6, 9], OVERALL_METRICS["error_px/mean"]
    one, other = make_metric(), make_metric()
    for image_id in images:
        detections, batch, losses = join([image_id])
        one.update(detections, batch, losses)
        # Worse in most images, better in none.
        other.update(detections._replace(points=detections.points + 4.0 * (image_id > 1)), batch, losses)
    reports = [one.compute(), other.compute()]
    assert reports[0].share_surpassing(reports[0], metric, 200, seed=0) == 0
    resamples = resample_images(5, 200, torch.Generator().manual_seed(0))
    errors = [
        [float(report.overall_in_resamples(column[:, None])[metric.field]) for column in resamples.T]
        for report in reports
    ]
    expected = sum(a < b for a, b in zip(*errors, strict=True)) / 200
    assert 0.5 < expected < 1
    assert reports[0].share_surpassing(reports[1], metric, 200, seed=0) == pytest.approx(expected)


def test_without_relative_thresholds_there_are_still_intervals() -> None:
    metric = fill(KeypointMetrics(["a", "b", "c"], [2, 4], relative_thresholds=()), [[0, 1, 5, 6]])
    intervals = metric.compute().with_intervals(20, seed=0).intervals
    assert "error_px/mean" in intervals
    assert not [name for name in intervals if "r=" in name]
