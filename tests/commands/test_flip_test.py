"""Averaging with the mirrored image, from the command line and from a checkpoint alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from spot_detector import blob_image, make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.data import unlabelled
from keypoint_detection.inference.export import write_onnx
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.inference.onnx_engine import OnnxEngine
from keypoint_detection.inference.parity import compare
from keypoint_detection.inference.torch_engine import TorchEngine

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")
PAIRS = "--data.flip_pairs=[[left, right]]"
# Its images are where those of another file are.
ALLOWED = "--data.outside_images=allow"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(discs, tmp_path_factory):
    """A checkpoint whose training averaged with mirrored images, as its types have known twins."""
    folder = tmp_path_factory.mktemp("trained")
    run(
        [
            "fit",
            f"--config={TINY}",
            f"--data.train={discs}",
            PAIRS,
            f"--trainer.default_root_dir={folder}",
        ]
    )
    (best,) = folder.glob("*/checkpoints/best.ckpt")
    return best


def measure(*words):
    shutil.rmtree("runs", ignore_errors=True)
    run(["test", *words, "--data.num_workers=0", "--trainer.accelerator=cpu"])
    (path,) = Path().glob("runs/*-test/metrics.json")
    return json.loads(path.read_text())


def measured_loss(*words):
    return measure(*words)["metrics"]["loss"]


def test_test_averages_as_the_training_did_unless_told_otherwise(trained, discs):
    words = [f"--ckpt_path={trained}", f"--data.test={discs}"]
    averaged = measured_loss(*words)
    plain = measured_loss(*words, "--model.flip_test=false")
    assert averaged != plain
    assert averaged == pytest.approx(measured_loss(*words, "--model.flip_test=true"))
    # The pairs of the file that is measured take the place of those of the training.
    assert averaged != measured_loss(*words, "--data.flip_pairs=[[red, right]]")


@pytest.mark.parametrize("is_averaged", [True, False])
def test_a_result_says_whether_it_is_averaged(trained, discs, is_averaged, capsys):
    words = [] if is_averaged else ["--model.flip_test=false"]
    result = measure(f"--ckpt_path={trained}", f"--data.test={discs}", *words)
    assert result["flip_test"] == is_averaged
    assert ("averaged with those of the mirrored images" in capsys.readouterr().out) == is_averaged
    (page,) = Path().glob("runs/*-test/report.html")
    fact = page.read_text().partition("averaged with mirrored images")[2]
    assert ("yes" if is_averaged else "no") in fact[:100]


def test_a_file_that_lacks_a_type_of_a_pair_is_measured(trained, discs, tmp_path):
    content = json.loads(discs.read_text())
    content["categories"][0]["keypoints"] = ["red", "green", "blue"]
    for image in content["images"]:
        image["file_name"] = str(discs.parent / image["file_name"])
    path = tmp_path / "renamed.json"
    path.write_text(json.dumps(content))
    run(
        [
            "fit",
            f"--config={TINY}",
            f"--data.train={discs}",
            PAIRS,
            "--model.channels=[red]",
            f"--trainer.default_root_dir={tmp_path}/red",
        ]
    )
    (best,) = tmp_path.glob("red/*/checkpoints/best.ckpt")
    assert measured_loss(f"--ckpt_path={best}", f"--data.test={path}", "--model.flip_test=true", ALLOWED) > 0


def test_a_channel_without_a_twin_is_not_averaged_unless_asked_for(discs, tmp_path):
    words = [f"--config={TINY}", f"--data.train={discs}", PAIRS, "--model.channels=[left]"]
    run(["fit", *words])
    (best,) = tmp_path.glob("runs/*/checkpoints/best.ckpt")
    assert load_detector(str(best), flip_test=None).network.mirrored_channels is None
    with pytest.raises(SystemExit):
        run(["fit", *words, "--model.flip_test=true"])


def heatmaps(path, image, **options):
    (result,) = Predictor.from_checkpoint(path, **options)([image], heatmaps=True)
    return result.heatmaps


def test_a_predictor_averages_with_twins_swapped_knowing_the_checkpoint_alone(trained):
    image = np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)
    plain = heatmaps(trained, image, flip_test=False)
    mirrored = heatmaps(trained, image[:, ::-1], flip_test=False)
    expected = (plain + mirrored[[0, 2, 1], :, ::-1]) / 2  # channels red, left, right
    assert np.abs(expected - plain).max() > 1e-5
    for found in (heatmaps(trained, image), heatmaps(trained, image, flip_test=True)):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_interrupted_prediction_does_not_go_on_with_other_pairs(trained, tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        save(blob_image(30, 20), tmp_path / name)
    words = ["predict", f"--ckpt_path={trained}", "--data.predict=*.png", "--output.folder=out", "--data.num_workers=0"]
    read = unlabelled.read_image
    monkeypatch.setattr(unlabelled, "read_image", lambda path: read(path) if "a.png" in path else [][0])
    with pytest.raises(IndexError):
        run([*words, "--data.batch_size=1"])
    monkeypatch.setattr(unlabelled, "read_image", read)
    with pytest.raises(SystemExit):
        run([*words, "--resume", "--data.flip_pairs=[[red, right]]"])
    assert "data.flip_pairs [['left', 'right']] instead of [['red', 'right']]" in capsys.readouterr().err
    run([*words, "--resume"])
    assert Path("out/predictions.csv").exists()


@pytest.mark.parametrize("data", [{}, {"image_size": (48, 62)}])
def test_an_exported_detector_averages_too(tmp_path, data):
    detector = load_detector(str(make_checkpoint(tmp_path, flip_pairs=[], **data)), flip_test=True)
    assert detector.network.mirrored_channels == [0]
    path = tmp_path / "spot.onnx"
    write_onnx(detector, path, precision="float32", heatmaps=False, version="1")
    examples = [blob_image(0.4 * width, 20.0, (60, width)) for width in (63, 64, 81)]
    reference = TorchEngine(detector, "cpu", "float32", compile=False)
    parity = compare(reference, OnnxEngine(str(path), n_threads=1), examples)
    assert parity.n_points == 3
    assert parity.holds


def test_an_export_says_that_it_averages_and_how_not_to(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path, flip_pairs=[])
    save(blob_image(30, 20), tmp_path / "blob.png")
    run(["export", f"--ckpt_path={checkpoint}", "--images=blob.png"])
    assert "--flip_test=false takes half the time" in capsys.readouterr().out


def test_without_pairs_it_is_refused_before_anything_runs(discs, checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["fit", f"--config={TINY}", f"--data.train={discs}", "--model.flip_test=true"])
    assert stop.value.code == 2
    assert "train with data.flip_pairs" in capsys.readouterr().err
    assert not Path("runs").exists()
    with pytest.raises(SystemExit) as stop:
        run(["export", f"--ckpt_path={checkpoint}", "--flip_test=true"])
    assert stop.value.code == 2
    with pytest.raises(ValueError, match=r"train with data\.flip_pairs"):
        Predictor.from_checkpoint(checkpoint, flip_test=True)
