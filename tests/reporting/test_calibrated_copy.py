import json
from pathlib import Path

import pytest
from spot_detector import blob_image, make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.inference.loading import load_detector

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0"]


@pytest.fixture
def spots(tmp_path, monkeypatch):
    """A COCO file of twelve images of a spot, labelled up to two pixels beside it."""
    monkeypatch.chdir(tmp_path)
    images, annotations = [], []
    for index in range(12):
        x, y = 15.0 + 4 * index, 20.0 + 2 * index
        save(blob_image(x, y), tmp_path / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 60, "width": 80})
        keypoints = [x + (index % 3) - 1, y + (index % 5) / 2 - 1, 2]
        annotations.append({"id": index, "image_id": index, "category_id": 1, "keypoints": keypoints})
    content = {"images": images, "categories": [{"id": 1, "name": "spot", "keypoints": ["spot"]}]}
    path = tmp_path / "spots.json"
    path.write_text(json.dumps(content | {"annotations": annotations}))
    return path


def test_validating_writes_a_copy_with_a_calibration(checkpoint, spots):
    run(["validate", f"--ckpt_path={checkpoint}", f"--data.val={spots}", *QUIET])
    (copy,) = Path("runs").glob("*-validate/calibrated.ckpt")
    point = next(iter(Predictor.from_checkpoint(copy)(blob_image(40.0, 30.0))))
    assert point.probability > 0.8
    assert 0.3 < point.spread < 2

    run(["test", f"--ckpt_path={copy}", f"--data.test={spots}", *QUIET])
    (file,) = Path("runs").glob("*-test/metrics.json")
    written = json.loads(file.read_text())
    assert written["metrics"]["ECE/d=8"] < 0.2
    assert 0.6 <= written["metrics"]["coverage"] <= 0.8
    assert [curve["threshold_px"] for curve in written["reliability"]] == [2, 4, 8]
    assert "ECE/d=8" not in written["intervals"]


def test_the_copy_detects_as_it_was_measured(tmp_path, spots):
    checkpoint = make_checkpoint(tmp_path, image_size=(48, 64), flip_pairs=[])
    words = ["--model.flip_test=false", "--model.max_keypoints=1", "--data.image_size=[30,40]"]
    run(["validate", f"--ckpt_path={checkpoint}", f"--data.val={spots}", *words, *QUIET])
    (copy,) = Path("runs").glob("*-validate/calibrated.ckpt")
    detector = load_detector(str(copy), flip_test=None)
    assert detector.calibration is not None
    assert detector.inputs.image_size == (30, 40)
    assert detector.codec.max_keypoints == 1
    assert detector.network.mirrored_channels is None


def test_a_calibration_that_is_there_stays(calibrated_checkpoint, spots):
    run(["validate", f"--ckpt_path={calibrated_checkpoint}", f"--data.val={spots}", *QUIET])
    assert len(list(Path("runs").glob("*-validate/metrics.json"))) == 1
    assert not list(Path("runs").glob("*-validate/*.ckpt"))


def test_a_calibration_of_other_settings_is_replaced_in_a_copy(calibrated_checkpoint, spots):
    words = [f"--ckpt_path={calibrated_checkpoint}", f"--data.val={spots}", "--data.image_size=[30,40]"]
    run(["validate", *words, *QUIET])
    (copy,) = Path("runs").glob("*-validate/calibrated.ckpt")
    before, after = (load_detector(str(path), flip_test=None) for path in (calibrated_checkpoint, copy))
    assert after.calibration != before.calibration
    assert after.inputs.image_size == (30, 40)


def test_too_few_points_make_no_copy(checkpoint, spots, capsys):
    content = json.loads(spots.read_text())
    content["annotations"] = content["annotations"][:9]
    spots.write_text(json.dumps(content))
    run(["validate", f"--ckpt_path={checkpoint}", f"--data.val={spots}", *QUIET])
    assert not list(Path("runs").glob("*-validate/*.ckpt"))
    last = " ".join(capsys.readouterr().out.split("No calibrated copy was written")[1].split())
    assert last.startswith(": a calibration needs 10 right detections, and there are fewer. First train")
    assert last.endswith("on more images.")
