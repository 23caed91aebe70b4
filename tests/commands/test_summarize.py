import json
import subprocess
import sys
from pathlib import Path

import pytest
from metrics.processes import fill, make_metric
from metrics.runs import write_folds, write_run
from PIL import Image

from keypoint_detection.cli import run
from keypoint_detection.commands.summarize import conclude, summarize
from keypoint_detection.metrics.learning_curve import Estimate, LearningCurve

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(path="summary.json"):
    return json.loads(Path(path).read_text())


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        run(["summarize", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def write_trainings(fractions=(0.25, 0.5, 1.0), seeds=(0, 1), **about):
    for fraction in fractions:
        for seed in seeds:
            options = {"train_fraction": fraction, "n_train_images": int(80 * fraction), "seed": seed} | about
            write_run(Path("runs") / f"{fraction}-{seed}", range(11), **options)


def test_trained_folds_are_summarised_by_the_console_script(discs):
    for fold in range(2):
        words = [f"--data.train={discs}", "--data.n_folds=2", f"--data.fold={fold}", "--seed_everything=3"]
        run(["fit", "--config", TINY, *words])
    script = Path(sys.executable).with_name("kpd")
    done = subprocess.run([script, "summarize", "runs"], capture_output=True, text=True, check=True)
    assert "2 runs, 12 held-out images" in done.stdout
    assert "95 % interval" in done.stdout
    summary = read()
    assert summary["n_images"] == 12
    assert [entry["n_images"] for entry in summary["runs"]] == [6, 6]
    assert [entry["n_train_images"] for entry in summary["runs"]] == [6, 6]
    assert sorted(entry["fold"] for entry in summary["runs"]) == [0, 1]
    assert [entry["seed"] for entry in summary["runs"]] == [3, 3]
    assert summary["missing_folds"] == []
    assert "one detector" not in done.stderr
    # The mean of a mean over equally many images.
    losses = [
        json.loads((Path(entry["folder"]) / "metrics.json").read_text())["metrics"]["loss"] for entry in summary["runs"]
    ]
    assert summary["metrics"]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_the_summary_holds_the_numbers_of_all_images(capsys):
    write_folds(Path("runs"))
    summarize(["runs"], n_resamples=20)
    alone = fill(make_metric(), [[image_id] for image_id in range(11)]).compute().with_intervals(20, seed=0).as_dict()
    summary = read()
    assert len(alone) > 5
    assert {name: summary[name] for name in alone} == json.loads(json.dumps(alone))
    assert "3 runs, 11 held-out images" in capsys.readouterr().out


def test_missing_folds_and_unfinished_runs_are_said(caplog):
    folders = write_folds(Path("runs"))
    (folders[1] / "predictions.npz").unlink()
    summarize(["runs"], n_resamples=5)
    assert "runs/fold1 has no predictions and is left out" in caplog.text
    assert "Of 3 folds one is missing: 1." in caplog.text
    assert read()["missing_folds"] == [1]


def test_other_detectors_are_said(caplog):
    for fold, size in enumerate(([64, 96], [64, 96], [64, 64])):
        write_run(Path("runs") / f"{fold}", [2 * fold, 2 * fold + 1], image_size=size, flip_test=True)
    write_run(Path("runs/old"), [8, 9])
    summarize(["runs/0", "runs/1", "runs/old"], n_resamples=5)
    assert not caplog.text
    summarize(["runs"], n_resamples=5)
    assert "image_size is [64, 96] in runs/0 and [64, 64] in runs/2." in caplog.text


def test_intervals_of_groups_say_so(capsys):
    write_folds(Path("runs"), groups={image_id: image_id % 4 for image_id in range(11)}, group_by=1)
    summarize(["runs"], n_resamples=5)
    assert "bootstrap over 4 groups of images" in " ".join(capsys.readouterr().out.split())
    assert read()["n_groups"] == 4


def test_a_single_group_has_no_intervals(caplog):
    write_run(Path("runs/a"), [0, 1], groups={0: 3, 1: 3}, group_by=1)
    summarize(["runs"], n_resamples=5)
    assert "it is unknown how much" in caplog.text
    assert read()["intervals"] == {}


def test_growing_parts_become_a_curve_with_a_figure(capsys):
    write_trainings()
    summarize(["runs"], n_resamples=50)
    summary = read()
    assert [size["n_images"] for size in summary["sizes"]] == [20, 40, 80]
    assert [size["n_trainings"] for size in summary["sizes"]] == [2, 2, 2]
    assert len(summary["trainings"]) == 6
    alone = fill(make_metric(), [[image_id] for image_id in range(11)]).compute().as_scalars()
    # Every run holds the same predictions: the curve is flat, whatever is resampled.
    assert [size["value"] for size in summary["sizes"]] == pytest.approx([alone["error_px/mean"]] * 3)
    assert summary["fell"] == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-9)
    assert summary["forecast"]["value"] == pytest.approx(alone["error_px/mean"])
    assert "These runs do not show that more images help" in capsys.readouterr().out
    with Image.open("summary.png") as figure:
        assert min(figure.size) > 400


def test_another_error_and_output_are_taken(tmp_path):
    write_trainings((0.5, 1.0), (0,))
    summarize(["runs"], "deep/curve.json", "NME", n_resamples=5)
    summary = read("deep/curve.json")
    assert summary["error"] == "NME"
    assert summary["forecast"] is None
    assert Path("deep/curve.png").is_file()


def test_the_folds_of_each_training_are_pooled_first():
    for fraction in (0.5, 1.0):
        write_folds(Path("runs") / f"{fraction}", train_fraction=fraction, n_train_images=int(fraction * 8))
    summarize(["runs/0.5", "runs/1.0"], n_resamples=5)
    summary = read()
    assert [size["n_images"] for size in summary["sizes"]] == [4, 8]
    assert [len(training["runs"]) for training in summary["trainings"]] == [3, 3]
    alone = fill(make_metric(), [[image_id] for image_id in range(11)]).compute().as_scalars()
    assert summary["trainings"][0]["error"] == pytest.approx(alone["error_px/mean"])


@pytest.mark.parametrize(
    ("shift_px", "seeds", "text"),
    [
        (30.0, (0, 1), "model.lr=1 is better on these images."),
        (0.0, (0, 1), "is 0 (95 % interval 0 to 0): these images cannot show which is better."),
        (30.0, (0,), "was trained only once"),
    ],
)
def test_settings_measured_on_the_same_images_are_compared(capsys, caplog, shift_px, seeds, text):
    for lr, shift in ((2, shift_px), (1, 0.0)):
        for seed in seeds:
            config, name = f"model: {{lr: {lr}}}", f"{lr}-{seed}"
            write_run(Path("runs") / name, range(11), None, config, shift, seed=seed, backbone=name)
    run(["summarize", "runs", "--n_resamples=50", "--error=error_px/p95"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "mean error (px)" in printed
    assert text in printed
    assert not caplog.text
    summary = read()
    assert summary["n_images"] == 11
    assert sorted(one["settings"]["model.lr"] for one in summary["settings"]) == [1, 2]
    assert [one["n_trainings"] for one in summary["settings"]] == [len(seeds)] * 2
    assert [len(one["runs"]) for one in summary["settings"]] == [len(seeds)] * 2
    assert set(summary["settings"][0]["metrics"]) == {
        "error_px/median", "error_px/mean", "error_px/p95", "mAP", "detection_rate",
    }  # fmt: skip
    assert text in summary["conclusion"]


def test_what_cannot_be_summarised_is_said_in_a_few_lines(capsys):
    write_trainings((1.0,), seeds=(0,))
    write_run(Path("runs") / "again", range(11))
    # Three of them are images that could not be read.
    assert "measured the same images, 14 of 14" in refusal(capsys, "runs")
    write_trainings((0.5,), n_train_images=None)
    assert "is a validation" in refusal(capsys, "runs")
    assert "no run found" in refusal(capsys, "nowhere")
    assert "ending in .json" in refusal(capsys, "runs", "--output=summary.txt")
    Path("mine.json").write_text("[1]")
    assert "is not a summary" in refusal(capsys, "runs", "--output=mine.json")
    assert Path("mine.json").read_text() == "[1]"
    assert "runs" in refusal(capsys)


def test_a_summary_is_overwritten_by_the_next():
    folders = write_folds(Path("runs"))
    summarize([str(folders[0])], n_resamples=5)
    summarize(["runs"], n_resamples=5)
    assert read()["n_images"] == 11


def curve(fell, gain=None, n_runs=2):
    return LearningCurve(
        [20, 80], [n_runs, 2], [], Estimate(*fell), None, None, gain and Estimate(3, 2, 4), gain and Estimate(*gain)
    )


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (curve((0.4, 0.3, 0.5), (0.2, 0.1, 0.3)), "(160) expect 3 (2–4): smaller by 20 % (10 % to 30 %)"),
        (curve((0.4, 0.3, 0.5), (0.2, 0.0, 0.4)), "not determined: an error smaller by anything from 0 % to 40 %"),
        (curve((0.1, -0.1, 0.5), (0.2, 0.1, 0.3)), "These runs do not show that more images help"),
        (curve((0.4, 0.3, 0.5)), "needs runs on at least three different numbers of images"),
        (curve((0.4, 0.3, 0.5), n_runs=1), "Some sizes were trained only once"),
    ],
)  # fmt: skip
def test_the_conclusion_claims_no_more_than_is_known(shown, text):
    sentence = conclude(shown)
    assert sentence.startswith("From 20 to 80 training images the error fell by ")
    assert text in sentence
