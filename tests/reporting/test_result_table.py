import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import write_discs
from ground_truths import make_truths
from rich.console import Console

from keypoint_detection.cli import run
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.reporting.result_table import ResultTable, make_table
from keypoint_detection.types import Batch, Detections

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


def report_of(offset: float, n_images: int = 4):
    """A report in which every prediction of channel `a` is off by `offset` pixels; channel `b` has no truth."""
    points = torch.full((n_images, 2, 1, 2), 20.0)
    visibility = torch.tensor([2, 0]).view(1, 2, 1).expand(n_images, 2, 1)
    batch = Batch(
        images=torch.zeros(n_images, 3, 40, 40, dtype=torch.uint8),
        truths=make_truths(points, visibility=visibility),
        image_ids=torch.arange(n_images),
        input_to_image=torch.eye(3)[:2].expand(n_images, 2, 3),
        image_sizes=torch.full((n_images, 2), 40),
    )
    metrics = KeypointMetrics(["a", "b"], [2.0, 4.0])
    metrics.update(
        Detections(points + torch.tensor([offset, 0.0]), torch.tensor([0.9, 0.0]).view(1, 2, 1).expand(n_images, 2, 1)),
        batch,
    )
    return metrics.compute()


def text_of(table) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def trainer_at(epoch, folder, fn="fit"):
    return SimpleNamespace(
        is_global_zero=True, sanity_checking=False, current_epoch=epoch, fast_dev_run=False, loggers=[], callbacks=[],
        checkpoint_callbacks=[], log_dir=str(folder), default_root_dir=str(folder), state=SimpleNamespace(fn=fn),
    )  # fmt: skip


def test_the_table_has_a_row_a_channel_and_the_numbers_of_the_report():
    text = text_of(make_table(report_of(3.0), "Test"))
    row = next(line for line in text.splitlines() if line.startswith("│ a "))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["a", "4", "0.000", "1.000", "3.00", "3.00", "1.000"]
    assert "overall" in text
    assert "–" in next(line for line in text.splitlines() if line.startswith("│ b "))


def test_intervals_stand_below_their_numbers():
    text = text_of(make_table(report_of(3.0).with_intervals(50, seed=0), "Test"))
    assert "3.00–3.00" in text
    assert "95 % interval" in text


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [("val/error_px/median", "min", "error_px/median"), ("val/mAP", "max", "mAP"), ("val/loss", "max", "loss")],
)
def test_the_result_is_that_of_the_best_checkpoint_whatever_chose_it(
    monitor, mode, best, discs, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.chdir(tmp_path)
    chosen = {
        "class_path": "ModelCheckpoint",
        "init_args": {"monitor": monitor, "mode": mode, "filename": "best", "enable_version_counter": False},
    }
    callbacks = [chosen, {"class_path": "ResultTable"}]
    words = ["--config", TINY, f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=4"]
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    run(["fit", *words, *logger, f"--trainer.callbacks={json.dumps(callbacks)}"])
    assert ("leaves out points that are not found" in caplog.text) == (monitor == "val/error_px/median")
    (log,) = Path("logs").rglob("metrics.csv")
    with log.open() as file:
        rows = [row for row in csv.DictReader(file) if row[monitor]]
    values = [float(row[monitor]) for row in rows]
    epoch = values.index(min(values) if mode == "min" else max(values))
    assert len(values) == 4
    assert len(set(values)) > 1
    (folder,) = Path("runs").iterdir()
    content = json.loads((folder / "metrics.json").read_text())
    metrics = content["metrics"]
    assert metrics[best] == pytest.approx(values[epoch])
    assert content["intervals"]["loss"][0] < metrics["loss"] < content["intervals"]["loss"][1]
    assert metrics["loss"] == pytest.approx(float(rows[epoch]["val/loss"]))
    assert f"Validation, epoch {epoch + 1} of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("group_by", "said"),
    [(r"([0-9])\.png", "bootstrap over 10 groups of images"), (r"(\.png)", "All images are of one group")],
)
def test_a_training_resamples_groups_of_images(group_by, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    discs = write_discs(tmp_path / "discs", 12)
    words = ["--config", TINY, f"--data.train={discs}", f"--data.val={discs}", f"--data.group_by={group_by}"]
    run(["fit", *words, "--trainer.logger=false", "--trainer.max_epochs=1"])
    assert said in " ".join(capsys.readouterr().out.split())
    (path,) = Path("runs").glob("*/metrics.json")
    assert bool(json.loads(path.read_text())["intervals"]) == ("bootstrap" in said)


def test_measuring_writes_intervals(tmp_path, capsys):
    ResultTable(n_resamples=20).on_test_end(trainer_at(0, tmp_path, "test"), SimpleNamespace(report=report_of(3.0)))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["intervals"]["error_px/median"] == pytest.approx([3.0, 3.0])
    assert content["channels_without_truth"] == ["b"]
    out = capsys.readouterr().out
    assert "Test, 4 images" in out
    assert "Channel 'b' has no labelled points here" in out


@pytest.mark.parametrize("n_images", [9, 10])
def test_a_result_on_few_images_says_so(n_images):
    report = report_of(3.0)._replace(n_images=n_images)
    text = " ".join(text_of(make_table(report, "Validation")).split())
    assert ("Fewer than 10 images cannot tell how large the errors on others are." in text) is (n_images < 10)
