import json
import math
import pickle
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from metrics.batches import make_batch
from metrics.processes import CALIBRATION, fill, make_metric, run_rank

from keypoint_detection.metrics import EvaluationReport, KeypointMetrics
from keypoint_detection.types import DataError, Detections


def evaluate(*batches, thresholds=(2.0,), channels=("a", "b")) -> EvaluationReport:
    metric = KeypointMetrics(channels, thresholds)
    for detections, batch in batches:
        metric.update(detections, batch)
    return metric.compute()


def test_points_are_compared_in_pixels_of_the_original_image() -> None:
    # Input (5, 7) is image (20, 14); the detection is 3 px to the right of it.
    report = evaluate(make_batch([1], {(0, 0): [(5, 7)]}, {(0, 0): [(23, 14, 0.9)]}), thresholds=(2, 3))
    assert report.overall.error_px_mean == 3
    assert report.channels[0].average_precision == (0, 1)
    assert report.overall.nme == pytest.approx(3 / 20)


def test_channel_without_truth_is_named_and_left_out_of_the_mean() -> None:
    report = evaluate(make_batch([1], {(0, 0): [(5, 7)]}, {(0, 0): [(20, 14, 0.9)], (0, 1): [(1, 1, 0.9)]}))
    assert report.channels_without_truth == ("b",)
    assert math.isnan(report.channels[1].mean_average_precision)
    assert report.as_scalars()["mAP"] == 1


def test_false_positives_on_images_without_points_count() -> None:
    # The stray detection scores higher: precision 1/2 at recall 1.
    stray = make_batch([2], {}, {(0, 0): [(1, 1, 0.95)]})
    report = evaluate(make_batch([1], {(0, 0): [(5, 7)]}), stray)
    assert report.channels[0].average_precision == (0.5,)
    assert report.n_images == 2


def test_points_that_are_not_labelled_are_no_truth() -> None:
    detections, batch = make_batch([1], {(0, 0): [(5, 7), (8, 8)], (0, 1): [(1, 1)]})
    batch.visibility[0, 0, 1] = 0
    batch.visibility[0, 1, 0] = 1  # occluded ones are
    report = evaluate((detections, batch))
    assert [channel.n_truths for channel in report.channels] == [1, 1]
    assert report.channels[0].n_detections == 2


def test_nothing_detected() -> None:
    report = evaluate(make_batch([1], {(0, 0): [(5, 7)]}, {}))
    scalars = report.as_scalars()
    assert (scalars["mAP"], scalars["detection_rate"], scalars["PCK/d=2"], scalars["strict_success/d=2"]) == (0,) * 4
    assert math.isnan(scalars["error_px/mean"])
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["metrics"]["error_px/mean"] is None


def test_no_points_anywhere_leaves_map_undefined() -> None:
    report = evaluate(make_batch([1], {}, {(0, 0): [(5, 7, 0.5)]}))
    assert math.isnan(report.as_scalars()["mAP"])
    assert report.n_images == 1


def test_no_detection_slots_at_all() -> None:
    _, batch = make_batch([1], {(0, 0): [(5, 7)]})
    report = evaluate((Detections(torch.zeros(1, 2, 0, 2), torch.zeros(1, 2, 0)), batch))
    assert report.overall.mean_average_precision == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no images to evaluate"):
        KeypointMetrics(["a"], [2]).compute()


def test_repeated_images_count_once() -> None:
    first = make_batch([1, 2], {(0, 0): [(5, 7)], (1, 1): [(9, 9)]}, noise=1)
    again = make_batch([2, 2], {(0, 1): [(9, 9)], (1, 1): [(9, 9)]}, noise=1)
    assert evaluate(first, again).as_dict() == evaluate(first).as_dict()


def test_losses_are_means_over_images_by_channel() -> None:
    metric = KeypointMetrics(["a", "b"], [2])
    metric.update(*make_batch([1, 2], {}), losses=torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    metric.update(*make_batch([3], {}), losses=torch.tensor([[6.0, 3.0]]))
    scalars = metric.compute().as_scalars()
    assert (scalars["loss/a"], scalars["loss/b"], scalars["loss"]) == (3, 1, 2)
    assert "loss" not in evaluate(make_batch([1], {})).as_scalars()


def test_losses_for_some_images_only_are_refused() -> None:
    metric = KeypointMetrics(["a", "b"], [2])
    metric.update(*make_batch([1], {}), losses=torch.zeros(1, 2))
    metric.update(*make_batch([2], {}))
    with pytest.raises(ValueError, match="losses for all of 2 images or for none, found 1"):
        metric.compute()


def test_batches_and_order_do_not_matter() -> None:
    batches = [[0, 1, 4], [5, 6], [2, 3, 7], [8, 9, 10]]
    expected = fill(make_metric(), batches).compute().as_dict()
    singly = [[image_id] for ids in batches[::-1] for image_id in ids[::-1]]
    actual = fill(make_metric(), singly).compute().as_dict()
    assert actual["metrics"] == pytest.approx(expected["metrics"], abs=1e-9, nan_ok=True)
    assert actual["n_images"] == 11


def test_pickle_reset_and_second_epoch() -> None:
    metric = fill(make_metric(), [[0, 1], [2]])
    expected = metric.compute().as_dict()
    assert pickle.loads(pickle.dumps(metric)).compute().as_dict() == expected
    metric.reset()
    assert fill(metric, [[5]]).compute().n_images == 1
    metric.reset()
    assert fill(metric, [[0, 1], [2]]).compute().as_dict() == expected


def test_report_passes_torchmetrics_unchanged() -> None:
    report = evaluate(make_batch([1], {(0, 0): [(5, 7)]}))
    # torchmetrics squeezes tensors of one element in what a metric returns.
    assert report.measurements.errors_px.shape == (1,)
    assert isinstance(report, EvaluationReport)


def test_forward_evaluates_the_batch_and_keeps_the_rest() -> None:
    metric = KeypointMetrics(["a", "b"], [2])
    metric(*make_batch([1], {(0, 0): [(5, 7)]}))
    assert metric(*make_batch([2], {(0, 0): [(5, 7)]}, {})).as_scalars()["mAP"] == 0
    assert metric.compute().as_scalars()["mAP"] == 0.5


def test_two_processes_equal_one(tmp_path: Path) -> None:
    # This process is rank 0: starting only one more halves the time, which is all imports.
    other = torch.multiprocessing.get_context("spawn").Process(target=run_rank, args=(1, 2, str(tmp_path)), daemon=True)
    other.start()
    run_rank(0, 2, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    alone = fill(make_metric(), [[image_id] for image_id in range(11)])
    expected = {
        "uneven": alone.compute().with_intervals(20, seed=3).with_calibration(CALIBRATION).as_dict(),
        "later": fill(alone, [[100, 101]]).compute().as_dict(),
        "one without images": fill(make_metric(), [[0, 1, 4, 5, 6]]).compute().as_dict(),
    }
    assert [report["n_images"] for report in expected.values()] == [11, 13, 5]
    assert [report["n_unreadable"] for report in expected.values()] == [3, 4, 2]
    for rank in range(2):
        actual = json.loads((tmp_path / f"{rank}.json").read_text())
        assert actual.keys() == expected.keys()
        for name, report in actual.items():
            assert_reports_equal(report, expected[name])


def assert_reports_equal(actual: dict, expected: dict) -> None:
    assert actual["n_images"] == expected["n_images"]
    assert actual["n_unreadable"] == expected["n_unreadable"]
    assert actual["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    assert actual["intervals"].keys() == expected["intervals"].keys()
    for name, interval in actual["intervals"].items():
        assert interval == pytest.approx(expected["intervals"][name], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [2]), "at least one name and none twice"),
        ((["a", "a"], [2]), "at least one name and none twice"),
        ((["a"], []), "expected at least one distance in pixels, found none"),
        ((["a"], [4, 2]), "thresholds_px: thresholds must ascend"),
        ((["a"], [2], [0.0]), "relative_thresholds: every threshold must be positive"),
        ((["a"], [2], [0.1], [0.1, 0.2]), "expected 1, one per channel, found 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeypointMetrics(*arguments)


def test_mismatched_shapes_are_refused() -> None:
    detections, batch = make_batch([1], {})
    metric = KeypointMetrics(["a", "b"], [2])
    with pytest.raises(ValueError, match=r"expected ground truth .* for 1 images and 3 channels, found \(1, 2, 1, 2\)"):
        KeypointMetrics(["a", "b", "c"], [2]).update(detections, batch)
    with pytest.raises(ValueError, match=r"expected detections .* for 1 images .* together with its own predictions"):
        metric.update(make_batch([1, 2], {})[0], batch)
    with pytest.raises(ValueError, match=r"expected losses \(1, 2\).* found \(1,\)"):
        metric.update(detections, batch, torch.zeros(1))


def test_names_are_stable() -> None:
    expected = {
        "mAP", "strict_success/d=2", "AP/d=2", "PCK/d=2", "PCK/r=0.05", "PCK/r=0.1", "PCK/r=0.2", "error_px/mean",
        "error_px/median", "error_px/p95", "NME", "detection_rate", "precision", "recall", "F1", "score_threshold",
    }  # fmt: skip
    for name in ("a", "b"):
        expected |= {
            f"AP/{name}/d=2", f"AP/{name}/mean", f"PCK/{name}/d=2", f"PCK/{name}/r=0.05", f"PCK/{name}/r=0.1",
            f"PCK/{name}/r=0.2", f"error_px/{name}/mean", f"error_px/{name}/median", f"error_px/{name}/p95",
            f"NME/{name}", f"detection_rate/{name}", f"precision/{name}", f"recall/{name}", f"F1/{name}",
            f"score_threshold/{name}",
        }  # fmt: skip
    full = evaluate(make_batch([1], {(0, 0): [(5, 7)]}))
    assert set(full.as_scalars()) == expected
    assert set(evaluate(make_batch([1], {}, {})).as_scalars()) == expected
    assert set(full.with_intervals(5, seed=0).intervals) == expected


def test_images_that_could_not_be_read_are_counted_and_change_no_number():
    points = {(0, 0): [(1.0, 1.0)], (1, 1): [(2.0, 2.0)]}
    detections, batch = make_batch([1, 2], points, noise=1.0)
    whole, part = (KeypointMetrics(["a", "b"], [2.0, 8.0]) for _ in range(2))
    losses = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    whole.update(detections, batch, losses)
    part.update(detections, batch._replace(failures=((7, "gone"), (5, "gone"))), losses)
    # A distributed sampler repeats images: one that another process could read is not missing.
    none, empty = make_batch([], {})
    part.update(none, empty._replace(failures=((7, "gone"), (2, "gone"))), torch.zeros(0, 2))
    expected, found = whole.compute(), part.compute()
    assert expected.n_images == found.n_images == 2
    assert (expected.n_unreadable, found.n_unreadable) == (0, 2)
    assert found.as_scalars() == expected.as_scalars()
    pooled = part.pool([found.measurements.rows])
    assert pooled.n_unreadable == 2
    assert pooled.as_scalars() == expected.as_scalars()
    assert found.as_dict()["n_unreadable"] == 2


def test_a_measurement_without_a_single_readable_image_says_so():
    metric = KeypointMetrics(["a", "b"], [2.0])
    none, empty = make_batch([], {})
    metric.update(none, empty._replace(failures=((7, "gone"),)))
    with pytest.raises(DataError, match="of 1 image, none could be read"):
        metric.compute()
