import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from spot_detector import blob_image, make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.inference import parity as holding


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        save(blob_image(20.0 + 9 * index, 30.0), folder / f"{index}.png")
    return folder


SIZES = [(48, 64), (60, 80), (97, 201), (200, 50)]


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("data", [{"image_size": (48, 64)}, {"image_size": (48, 64), "resize": "stretch"}, {}])
def test_an_exported_detector_finds_the_same_points_in_images_of_any_size(tmp_path, data, format, capsys):
    checkpoint = make_checkpoint(tmp_path, **data)
    (tmp_path / "sizes").mkdir()
    for index, (height, width) in enumerate(SIZES):
        save(blob_image(0.4 * width, 0.3 * height, (height, width)), tmp_path / "sizes" / f"{index}.png")
    run(["export", f"--ckpt_path={checkpoint}", f"--format={format}", "--images=sizes"])
    assert "on 4 images, 4 points" in capsys.readouterr().out


def test_the_command_reports_and_the_file_predicts(checkpoint, images, capsys):
    run(["export", f"--ckpt_path={checkpoint}", "--output=out/spot.onnx", f"--images={images}"])
    report = capsys.readouterr().out
    assert "on 3 images, 3 points" in report
    assert "flip_test" not in report
    one, other = Predictor.from_checkpoint(checkpoint), Predictor.from_onnx("out/spot.onnx")
    assert other.channels == ["spot"]
    for path in sorted(images.iterdir()):
        (a,), (b,) = one(path), other(path)
        assert a[1:4] == pytest.approx(b[1:4], abs=0.05)
    assert np.array_equal(np.asarray(one.draw(path)), np.asarray(other.draw(path)))
    assert [path.name for path in Path("out").iterdir()] == ["spot.onnx"]


def test_images_that_cannot_be_read_are_skipped_and_named(checkpoint, images, capsys):
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:60])
    run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    printed = capsys.readouterr()
    assert "on 2 images, 2 points" in printed.out
    assert "kpd export: skipped" in printed.err
    assert "0.png" in printed.err


@pytest.mark.parametrize(
    ("name", "message"), [("0.png", "nothing of 0.png can be read"), ("no", "--images: 'no' does not exist")]
)
def test_images_of_which_none_can_be_read_are_refused(checkpoint, name, message, capsys):
    Path("0.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stopped:
        run(["export", f"--ckpt_path={checkpoint}", f"--images={name}"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("detector.onnx").exists()


def test_the_file_says_what_it_is_and_nothing_of_this_machine(checkpoint, images):
    run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    model = onnx.load("detector.onnx")
    (metadata,) = [json.loads(entry.value) for entry in model.metadata_props if entry.key == "kpd"]
    assert metadata["types"] == {"spot": ["spot"]}
    assert metadata["score_threshold"] == 0.6
    assert str(Path(__file__).parents[2]).encode() not in Path("detector.onnx").read_bytes()


def test_the_file_is_used_without_torch(checkpoint, images):
    run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'lightning', 'jsonargparse', 'pycocotools'): sys.modules[name] = None\n"
        "from keypoint_detection import Predictor\n"
        f"(point,) = Predictor.from_onnx('detector.onnx')({str(images / '1.png')!r})\n"
        "print(round(point.x), round(point.y))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["29", "30"]


def test_a_program_runs_in_torch_alone_on_several_images_at_once(checkpoint, images):
    run(["export", f"--ckpt_path={checkpoint}", "--format=torch_export", "--heatmaps=true", f"--images={images}"])
    np.save("batch.npy", np.stack([blob_image(x, 30.0) for x in (20.0, 29.0, 38.0)]))
    code = (
        "import sys, json, numpy, torch\n"
        "sys.modules['keypoint_detection'] = None\n"
        "files = {'kpd.json': ''}\n"
        "program = torch.export.load('detector.pt2', extra_files=files).module()\n"
        "points, scores, heatmaps = program(torch.from_numpy(numpy.load('batch.npy')))\n"
        "print(json.dumps([points[:, 0, 0].round().tolist(), list(heatmaps.shape), json.loads(files['kpd.json'])]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points, heatmaps, metadata = json.loads(done.stdout)
    assert points == [[20, 30], [29, 30], [38, 30]]
    assert heatmaps == [3, 1, 48, 64]
    assert metadata["channels"] == ["spot"]
    assert str(Path(__file__).parents[2]).encode() not in unzipped("detector.pt2")


def unzipped(path):
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_heatmaps_of_an_onnx_file_are_those_of_the_checkpoint(checkpoint, images):
    run(["export", f"--ckpt_path={checkpoint}", "--heatmaps=true", f"--images={images}"])
    path = images / "1.png"
    expected = Predictor.from_checkpoint(checkpoint)(path, heatmaps=True)
    found = Predictor.from_onnx("detector.onnx")(path, heatmaps=True)
    assert found.heatmaps.shape == (1, 48, 64)
    assert found.heatmaps == pytest.approx(expected.heatmaps, abs=0.02)  # one level of one pixel
    assert Predictor.from_onnx("detector.onnx")(path).heatmaps is None


def test_an_onnx_file_without_heatmaps_says_how_to_get_them(checkpoint, images):
    run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    with pytest.raises(ValueError, match="--heatmaps=true"):
        Predictor.from_onnx("detector.onnx")(images / "1.png", heatmaps=True)


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_half_precision_is_reported_and_kept(checkpoint, images, format, monkeypatch, capsys):
    monkeypatch.setattr(holding, "MAX_DIFFERENCE_PX", -1.0)
    words = ["export", f"--ckpt_path={checkpoint}", f"--format={format}", "--precision=float16", f"--images={images}"]
    run([*words, "--output=half.onnx" if format == "onnx" else "--output=half.pt2"])
    assert "maximum difference" in capsys.readouterr().out
    (path,) = Path().glob("half.*")
    if format == "onnx":
        weights = {entry.data_type for entry in onnx.load(path).graph.initializer if len(entry.dims) == 4}
        assert onnx.TensorProto.FLOAT16 in weights
    else:
        assert torch.export.load(path).state_dict["network.head.weight"].dtype == torch.float16


def test_a_file_that_differs_is_not_kept(checkpoint, images, monkeypatch, capsys):
    monkeypatch.setattr(holding, "MAX_DIFFERENCE_PX", -1.0)
    with pytest.raises(SystemExit) as stop:
        run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    assert stop.value.code == 1
    assert "was not kept" in capsys.readouterr().err
    assert not list(Path().glob("*.onnx")) + list(Path().glob(".kpd*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output=a.pt"], "ending in .onnx"),
        (["--output=a.onnx", "--format=torch_export"], "ending in .pt2"),
        (["--precision=int8"], "float16"),
        (["--images=nowhere"], "'nowhere' does not exist"),
        (["--ckpt_path=nowhere.ckpt"], "not a file"),
    ],
)
def test_what_cannot_be_exported_is_refused(checkpoint, words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["export", f"--ckpt_path={checkpoint}", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(checkpoint, capsys):
    Path("detector.onnx").write_text("mine")
    with pytest.raises(SystemExit):
        run(["export", f"--ckpt_path={checkpoint}"])
    assert Path("detector.onnx").read_text() == "mine"


def test_another_file_is_no_exported_detector(tmp_path):
    (tmp_path / "a.onnx").write_text("no model")
    with pytest.raises(ValueError, match="cannot be read as an ONNX file"):
        Predictor.from_onnx(tmp_path / "a.onnx")


def test_an_exported_detector_is_as_sure_as_the_original(calibrated_checkpoint, images, capsys):
    run(["export", f"--ckpt_path={calibrated_checkpoint}", f"--images={images}"])
    report = capsys.readouterr().out
    assert "in spread            0.0" in report
    assert "in probability       0.0" in report
    one, other = Predictor.from_checkpoint(calibrated_checkpoint), Predictor.from_onnx("detector.onnx")
    paths = sorted(images.iterdir())
    assert len(paths) == 3
    for path in paths:
        a, b = one(path), other(path)
        assert b.thresholds_px == (2.0, 5.0)
        np.testing.assert_allclose(b.probabilities["spot"], a.probabilities["spot"], atol=1e-4)
        np.testing.assert_allclose(b.covariances["spot"], a.covariances["spot"], rtol=0.01, atol=1e-4)
    assert len(other.engine.detect([blob_image(20.0, 30.0)], False)[0].covariances[0]) == 3
    metadata = onnx.load("detector.onnx").metadata_props
    (about,) = [json.loads(entry.value) for entry in metadata if entry.key == "kpd"]
    assert about["calibration"]["peak_factor"] == 0.01
    assert [output.name for output in onnx.load("detector.onnx").graph.output] == [
        "points",
        "scores",
        "covariances",
        "probabilities",
    ]


def test_an_export_without_a_calibration_says_how_to_get_one(checkpoint, images, capsys):
    run(["export", f"--ckpt_path={checkpoint}", f"--images={images}"])
    assert "`kpd validate" in capsys.readouterr().out
