import json
import math

import numpy as np
import pytest
import torch
from metrics.batches import make_batch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.metrics.oks import (
    COCO17_SIGMAS,
    OksPredictions,
    OksTruths,
    oks_average_precision,
    resolve_sigmas,
)


def single(distance: float, area: float, n_found: int = 1) -> dict[str, float]:
    """One instance of two keypoints; the first is off by a distance, the second exact or not found."""
    truths = OksTruths(
        torch.tensor([5]), torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor([area])
    )
    points = torch.tensor([[[distance, 0.0], [0.0, 0.0]]])
    is_found = torch.tensor([[True, n_found > 1]])
    predictions = OksPredictions(torch.tensor([5]), points, is_found, torch.tensor([0.9]))
    return oks_average_precision(truths, predictions, torch.tensor([5]), [0.1, 0.1])


def test_similarity_by_hand() -> None:
    # k = 0.2, area 100: exp(-d² / (2 * 100 * 0.04)) = exp(-d² / 8); with the exact second point the mean is
    # (exp(-d² / 8) + 1) / 2, which passes 0.75 as long as d² <= 8 ln 2.
    limit = math.sqrt(8 * math.log(2))
    assert single(limit - 1e-3, 100.0, 2)["OKS-AP75"] == pytest.approx(1)
    assert single(limit + 1e-3, 100.0, 2)["OKS-AP75"] == 0
    # 0.50, 0.55, ..., 0.70 of the ten similarities are passed.
    assert single(limit + 1e-3, 100.0, 2)["OKS-AP"] == pytest.approx(0.5)


def test_point_not_found_has_no_similarity() -> None:
    assert single(0.0, 100.0, n_found=1)["OKS-AP50"] == pytest.approx(1)  # (1 + 0) / 2 is just 0.50
    assert single(0.0, 100.0, n_found=1)["OKS-AP75"] == 0


def test_sigmas_of_coco_are_those_of_pycocotools() -> None:
    np.testing.assert_allclose(
        resolve_sigmas("coco17", list(COCO17_SIGMAS)), Params(iouType="keypoints").kpt_oks_sigmas
    )


def test_agrees_with_pycocotools_on_files(tmp_path, capsys) -> None:
    """The usual way: JSON files, loadRes and summarize; several instances an image."""
    rng = np.random.default_rng(0)
    N, C = 40, 17
    points, is_labelled = rng.random((N, C, 2)) * 100, rng.random((N, C)) < 0.8
    is_labelled[:, 0] = True
    areas, image_ids = rng.random(N) * 9000 + 1000, rng.integers(1, 15, N)
    predicted = points + rng.normal(0, 4, points.shape)
    scores = rng.random(N)
    truth_file, result_file = tmp_path / "truth.json", tmp_path / "result.json"
    annotations = [
        {
            "id": n + 1, "image_id": int(image_ids[n]), "category_id": 1, "iscrowd": 0, "area": areas[n],
            "bbox": [0, 0, 100, 100], "num_keypoints": int(is_labelled[n].sum()),
            "keypoints": np.c_[points[n], 2 * is_labelled[n]].flatten().tolist(),
        }
        for n in range(N)
    ]  # fmt: skip
    images = [{"id": image_id} for image_id in range(1, 16)]
    truth_file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1}]}))
    results = [
        {
            "image_id": int(image_ids[n]), "category_id": 1, "score": scores[n],
            "keypoints": np.c_[predicted[n], np.ones(C)].flatten().tolist(),
        }
        for n in range(N)
    ]  # fmt: skip
    result_file.write_text(json.dumps(results))
    coco = COCO(str(truth_file))
    evaluation = COCOeval(coco, coco.loadRes(str(result_file)), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    actual = oks_average_precision(
        OksTruths(*(torch.from_numpy(array) for array in (image_ids, points, is_labelled, areas))),
        OksPredictions(
            torch.from_numpy(image_ids), torch.from_numpy(predicted), torch.ones(N, C, dtype=torch.bool),
            torch.from_numpy(scores),
        ),
        torch.arange(1, 16),
        list(COCO17_SIGMAS.values()),
    )  # fmt: skip
    assert 0.2 < evaluation.stats[0] < 0.99
    expected = [evaluation.stats[index] for index in (0, 1, 2, 5)]
    assert list(actual.values()) == pytest.approx(expected, abs=1e-12)
    assert capsys.readouterr().out == ""


def test_metric_computes_it_for_single_instances() -> None:
    metric = KeypointMetrics(["a", "b"], [2], oks_sigmas=[0.1, 0.1])
    metric.update(*make_batch([1, 2], {(0, 0): [(10, 10)], (0, 1): [(20, 10)]}, noise=0))
    assert metric.compute().as_scalars()["OKS-AP"] == pytest.approx(1)


def test_metric_without_truth_is_undefined() -> None:
    metric = KeypointMetrics(["a", "b"], [2], oks_sigmas=[0.1, 0.1])
    metric.update(*make_batch([1], {}))
    assert math.isnan(metric.compute().as_scalars()["OKS-AP"])


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ({(0, 0): [(1, 1), (2, 2)]}, {}, "at most one point of a channel in an image, found 2 in image 7"),
        ({(0, 0): [(1, 1)], (0, 1): [(2, 2)]}, {"instances": {(0, 1): 1}}, "at most one annotated instance .* image 7"),
        ({(0, 0): [(1, 1)]}, {"area": math.nan}, "needs the area of every instance, found nan in image 7"),
    ],
)
def test_data_that_do_not_define_it_are_refused(points, options, message: str) -> None:
    metric = KeypointMetrics(["a", "b"], [2], oks_sigmas=[0.1, 0.1])
    metric.update(*make_batch([7], points, **options))
    with pytest.raises(ValueError, match=message):
        metric.compute()


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ("coco", "'coco17' is the only set known by name, found 'coco'"),
        ("coco17", r"for the channels \['nose', .* found \['a', 'b'\]"),
        ([0.1], "expected 2, one per channel, found 1"),
        ([0.1, 0.0], "positive and finite"),
    ],
)
def test_bad_sigmas_are_refused(sigmas, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_sigmas(sigmas, ["a", "b"])


def test_predictions_without_images_are_refused() -> None:
    truths = OksTruths(torch.tensor([1]), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), torch.ones(1))
    predictions = OksPredictions(torch.tensor([2]), torch.zeros(1, 1, 2), truths.is_labelled, torch.ones(1))
    with pytest.raises(ValueError, match="1 images have predictions but are not among the 1 evaluated ones"):
        oks_average_precision(truths, predictions, torch.tensor([1]), [0.1])
