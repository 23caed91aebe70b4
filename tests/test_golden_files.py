"""What earlier versions wrote can still be read and gives the same points; see tests/assets/golden/README.md."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from keypoint_detection import Predictor
from keypoint_detection.cli import run

GOLDEN = Path(__file__).parent / "assets" / "golden"
CHECKPOINT = "run/checkpoints/best.ckpt"
EXPECTED = json.loads((GOLDEN / "points.json").read_text())


@pytest.fixture
def golden(tmp_path, monkeypatch):
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_expected_points(detector):
    assert len(EXPECTED) == 3
    for name, expected in EXPECTED.items():
        found = [(point.channel, point.x, point.y, point.score) for point in detector(GOLDEN / name)]
        assert len(found) == len(expected)
        for point, wanted in zip(found, expected, strict=True):
            assert list(point) == [wanted[0], *(pytest.approx(value, abs=0.02) for value in wanted[1:])]


def test_the_checkpoint_gives_the_same_points():
    assert_expected_points(Predictor.from_checkpoint(GOLDEN / CHECKPOINT))


def test_the_onnx_file_gives_the_same_points():
    assert_expected_points(Predictor.from_onnx(GOLDEN / "detector.onnx"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", ["red", "left"]),
        ("channels", ["red", "left", "right", "top"]),
        ("calibration", {"thresholds_px": [2.0]}),
        ("calibration", None),
    ],
)
def test_an_onnx_file_whose_metadata_do_not_fit_its_outputs_is_refused(key, value, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(GOLDEN / "detector.onnx")
    (entry,) = model.metadata_props
    entry.value = json.dumps(json.loads(entry.value) | {key: value})
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(ValueError, match=r"its output .* has the shape .*export it again"):
        Predictor.from_onnx(tmp_path / "changed.onnx")


def test_predict_finds_the_same_points(golden):
    run(["predict", f"--ckpt_path={CHECKPOINT}", "--data.predict=images", "--output.folder=found"])
    with open("found/predictions.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if f"images/{row['image']}" in EXPECTED]
    found = [[row["channel"], *(float(row[name]) for name in ("x", "y", "score"))] for row in rows]
    expected = [point for points in EXPECTED.values() for point in points]
    assert len(found) == len(expected) == 6
    for point, wanted in zip(found, expected, strict=True):
        assert point == [wanted[0], *(pytest.approx(value, abs=0.02) for value in wanted[1:])]


def test_the_checkpoint_measures_the_same(golden):
    cli = run(["validate", f"--ckpt_path={CHECKPOINT}", "--data.val=discs.json"])
    assert cli.model.report.overall.mean_average_precision == pytest.approx(1)
    assert cli.model.report.overall.error_px_median == pytest.approx(0.20, abs=0.01)


def test_the_run_is_resumed_with_its_config(golden):
    cli = run(["fit", f"--ckpt_path={CHECKPOINT}", "--trainer.max_epochs=121"])
    assert (cli.trainer.current_epoch, cli.trainer.global_step) == (121, 242)
    assert Path("run/checkpoints/last.ckpt").is_file()


def test_the_config_starts_the_training_again(golden):
    cli = run(["fit", "--config=run/config.yaml", "--trainer.fast_dev_run=1"])
    assert cli.model.codec.sigma_px == 3
