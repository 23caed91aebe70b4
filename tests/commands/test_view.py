import json
import sys
from types import SimpleNamespace

import pytest
from grouping_detector import image_of_objects, make_grouping_checkpoint
from PIL import Image
from spot_detector import blob_image, save

from keypoint_detection.cli import run
from keypoint_detection.commands.view import name_fields


class Sample(dict):
    def __init__(self, filepath):
        super().__init__()
        self.filepath = filepath


class FiftyOne(SimpleNamespace):
    """What the command uses of FiftyOne, without its database and its browser."""

    def __init__(self):
        super().__init__(Sample=Sample, Keypoint=SimpleNamespace, Keypoints=SimpleNamespace, samples=[], n_waits=0)

    def Dataset(self):
        return SimpleNamespace(add_samples=self.samples.extend)

    def launch_app(self, dataset):
        return SimpleNamespace(wait=lambda: setattr(self, "n_waits", self.n_waits + 1))


@pytest.fixture
def fiftyone(monkeypatch):
    module = FiftyOne()
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return module


@pytest.fixture
def labelled(tmp_path):
    """Two images of 60 x 80, a blob at (20, 30) and at (40, 15); the second has no label."""
    for index, (x, y) in enumerate([(20, 30), (40, 15)]):
        save(blob_image(x, y), tmp_path / f"{index}.png")
    content = {
        "images": [{"id": index, "file_name": f"{index}.png", "height": 60, "width": 80} for index in range(2)],
        "annotations": [{"id": 5, "image_id": 0, "category_id": 1, "keypoints": [20, 30, 2]}],
        "categories": [{"id": 1, "name": "thing", "keypoints": ["spot"]}],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    return path


def test_labels_and_predictions_are_side_by_side_as_shares_of_the_image(fiftyone, labelled, checkpoint, capsys):
    run(["view", f"--data={labelled}", f"--ckpt_path=[{checkpoint}, {checkpoint}]"])
    first, second = fiftyone.samples
    assert [sample.filepath for sample in (first, second)] == [str(labelled.parent / f"{i}.png") for i in range(2)]
    assert set(first) == {"ground_truth", "spot", "spot_2"}
    (truth,) = first["ground_truth"].keypoints
    assert (truth.label, truth.points) == ("spot", [(0.25, 0.5)])
    assert second["ground_truth"].keypoints == []
    for sample, expected in ((first, (0.25, 0.5)), (second, (0.5, 0.25))):
        for field in ("spot", "spot_2"):
            (predicted,) = sample[field].keypoints
            assert predicted.points == [pytest.approx(expected, abs=0.01)]
            assert len(predicted.confidence) == 1
            assert 0.6 < predicted.confidence[0] <= 1
    assert fiftyone.n_waits == 1
    assert f"spot_2: {checkpoint}" in capsys.readouterr().out


def test_points_carry_the_number_of_their_object(fiftyone, tmp_path):
    objects = [((35.0, 10.0), [(20.5, 15.5), (50.5, 15.5)]), ((40.0, 50.0), [(35.5, 40.5), (65.5, 42.5)])]
    Image.fromarray(image_of_objects(objects)).save(tmp_path / "0.png")
    annotations = [
        {"id": number, "image_id": 0, "category_id": 1, "keypoints": [*left, 2, *right, 2]}
        for number, (_, (left, right)) in enumerate(objects)
    ]
    content = {
        "images": [{"id": 0, "file_name": "0.png", "height": 60, "width": 80}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing", "keypoints": ["a", "b"]}],
    }
    (tmp_path / "data.json").write_text(json.dumps(content))
    run(["view", f"--data={tmp_path / 'data.json'}", f"--ckpt_path={make_grouping_checkpoint(tmp_path)}"])
    (sample,) = fiftyone.samples
    assert [(one.label, one.index) for one in sample["ground_truth"].keypoints] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]
    found = {one.index: sorted(round(80 * x, 1) for x, _ in one.points) for one in sample["grouping"].keypoints}
    assert sorted(found.values()) == [[20.5, 50.5], [35.5, 65.5]]
    assert set(found) == {0, 1}


def test_one_checkpoint_needs_no_list(fiftyone, labelled, checkpoint):
    run(["view", f"--data={labelled}", f"--ckpt_path={checkpoint}"])
    assert [set(sample) for sample in fiftyone.samples] == [{"ground_truth", "spot"}] * 2


def test_without_fiftyone_it_says_how_to_install_it(monkeypatch, labelled, checkpoint, capsys):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(SystemExit) as stop:
        run(["view", f"--data={labelled}", f"--ckpt_path={checkpoint}"])
    assert stop.value.code == 2
    assert "pip install 'fiftyone>=1'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--data=nowhere.json"], ["--ckpt_path=nowhere.ckpt"]])
def test_what_cannot_be_shown_is_refused(fiftyone, labelled, checkpoint, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["view", f"--data={labelled}", f"--ckpt_path={checkpoint}", *words])
    assert stop.value.code == 2
    assert "nowhere" in capsys.readouterr().err


def test_fields_have_names_that_fiftyone_takes():
    assert name_fields(["x/ground_truth.ckpt", "1.ckpt", "ü b.ckpt"]) == ["ground_truth_2", "detector_1", "b"]
    assert name_fields(["tags.ckpt", "id.ckpt"]) == ["tags_2", "id_2"]
