"""Objects in results, files and exported detectors."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from grouping_detector import image_of_objects, make_grouping_checkpoint
from PIL import Image
from pycocotools.coco import COCO
from spot_detector import make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.inference.results import NotGroupedError

# Two objects whose points alternate from left to right, so that nearness does not tell them apart.
OBJECTS = [((35.0, 10.0), [(20.5, 15.5), (50.5, 15.5)]), ((40.0, 50.0), [(35.5, 40.5), (65.5, 42.5)])]
ALONE = ((9.0, 52.0), [(10.5, 45.5)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_grouping_checkpoint(tmp_path_factory.mktemp("grouping"))


@pytest.fixture(scope="module")
def exported(checkpoint):
    path = checkpoint.with_suffix(".onnx")
    run(["export", f"--ckpt_path={checkpoint}", f"--output={path}"])
    return path


@pytest.mark.parametrize("kind", ["checkpoint", "onnx"])
def test_points_of_an_object_are_together(kind, checkpoint, exported):
    predictor = Predictor.from_checkpoint(checkpoint) if kind == "checkpoint" else Predictor.from_onnx(exported)
    result = predictor(image_of_objects([*OBJECTS, ALONE]))
    found = {tuple(sorted(map(tuple, one.xy["corner"].round(1).tolist()))) for one in result.objects}
    assert found == {tuple(sorted(points)) for _, points in (*OBJECTS, ALONE)}
    assert [one.score for one in result.objects] == sorted((one.score for one in result.objects), reverse=True)
    # One point of two that an object can have.
    assert result.objects[-1].score == pytest.approx(float(result.objects[-1].scores["corner"][0]) / 2)
    pair = next(one for one in result.objects if len(one.xy["corner"]) == 2 and one.box[1] < 20)
    assert pair.box == pytest.approx((20.5, 15.5, 30, 0), abs=0.05)
    assert len(result) == 5
    for point in result:
        of_object = result.objects[point.object]
        assert [point.x, point.y] in of_object.xy["corner"].tolist()
        assert point.belonging in of_object.belonging["corner"].tolist()
    # The centres are 30 and more px apart, which is as certain as the validation says it can be.
    assert min(point.belonging for point in result) > 0.99


def test_images_of_an_odd_number_of_cells_are_grouped_alike(checkpoint):
    result = Predictor.from_checkpoint(checkpoint)(image_of_objects([*OBJECTS, ALONE], size=(61, 81)))
    found = {tuple(sorted(map(tuple, one.xy["corner"].round(1).tolist()))) for one in result.objects}
    assert found == {tuple(sorted(points)) for _, points in (*OBJECTS, ALONE)}


def test_points_below_the_threshold_are_in_no_object(checkpoint):
    image = image_of_objects([*OBJECTS, ALONE])
    image[35:, :, 0] //= 2  # the lower object and the lone point become too dark
    (only,) = Predictor.from_checkpoint(checkpoint, score_threshold=0.9)(image).objects
    assert sorted(only.xy["corner"][:, 0].round(1).tolist()) == [20.5, 50.5]


def test_an_image_without_points_has_no_objects(checkpoint):
    assert Predictor.from_checkpoint(checkpoint)(image_of_objects([])).objects == []


def test_objects_of_a_detector_without_grouping_are_an_error_with_a_way_out(tmp_path):
    result = Predictor.from_checkpoint(make_checkpoint(tmp_path))(np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(NotGroupedError, match=r"--model\.group=true"):
        _ = result.objects
    assert all(point.object is None for point in result)


def test_objects_in_files(checkpoint, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    save(image_of_objects([*OBJECTS, ALONE]), images / "a.png")
    save(image_of_objects([]), images / "b.png")
    out = tmp_path / "out"
    words = [f"--ckpt_path={checkpoint}", f"--data.predict={images}", f"--output.folder={out}"]
    formats = "--output.format=[csv, jsonl, coco, coco_labels]"
    run(["predict", *words, formats, "--output.overlays=true", "--trainer.accelerator=cpu", "--trainer.logger=false"])

    rows = list(csv.DictReader((out / "predictions.csv").open()))
    first, second = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert (second["points"], second["objects"]) == ([], [])
    assert [row["object"] for row in rows] == [str(point["object"]) for point in first["points"]]
    by_object = {}
    for row in rows:
        by_object.setdefault(row["object"], []).append((round(float(row["x"]), 1), round(float(row["y"]), 1)))
    assert {tuple(sorted(points)) for points in by_object.values()} == {
        tuple(sorted(points)) for _, points in (*OBJECTS, ALONE)
    }
    assert len(first["objects"]) == 3

    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(out / "coco_labels.json")
    assert len(labels.anns) == 3
    annotations = labels.loadAnns(labels.getAnnIds())
    assert [one["num_keypoints"] for one in annotations] == [2, 2, 1]
    assert [one["score"] for one in annotations] == [one["score"] for one in first["objects"]]
    assert annotations[0]["bbox"] == pytest.approx(first["objects"][0]["box"])
    assert len(json.loads((out / "coco_results.json").read_text())) == 3

    # A line between the two points of the upper object, half-way, where there is no mark.
    drawn = np.asarray(Image.open(out / "overlays" / "a.png"))
    factor = drawn.shape[1] // 80
    assert drawn[int(15.5 * factor), int(35.5 * factor), 0] > 80
