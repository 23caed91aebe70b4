import io
import json
import math
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from keypoint_detection.callbacks.result_table import ResultTable, make_table
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.types import Batch, Detections


def report_of(offset: float, n_images: int = 4):
    """A report in which every prediction of channel `a` is off by `offset` pixels; channel `b` has no truth."""
    points = torch.full((n_images, 2, 1, 2), 20.0)
    visibility = torch.tensor([2, 0]).view(1, 2, 1).expand(n_images, 2, 1)
    batch = Batch(
        images=torch.zeros(n_images, 3, 40, 40, dtype=torch.uint8),
        points=points,
        visibility=visibility,
        image_ids=torch.arange(n_images),
        input_to_image=torch.eye(3)[:2].expand(n_images, 2, 3),
        image_sizes=torch.full((n_images, 2), 40),
        instances=torch.zeros(n_images, 2, 1, dtype=torch.int64),
        box_sizes=torch.full((n_images, 2, 1), torch.nan),
        areas=torch.full((n_images, 2, 1), torch.nan),
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
    text = text_of(make_table(report_of(3.0).with_intervals(50), "Test"))
    assert "3.00–3.00" in text
    assert "95 % interval" in text


def test_training_ends_with_the_best_epoch(tmp_path, capsys):
    table = ResultTable()
    for epoch, offset in enumerate([9.0, 1.0, 3.0]):
        table.on_validation_end(trainer_at(epoch, tmp_path), SimpleNamespace(report=report_of(offset)))
    table.on_fit_end(trainer_at(3, tmp_path), SimpleNamespace())
    assert "Validation, epoch 2 of 3" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["error_px/mean"] == pytest.approx(1.0)


def test_an_undefined_result_gives_way_to_the_first_number(tmp_path):
    nothing = report_of(1.0)
    undefined = nothing._replace(overall=nothing.overall._replace(mean_average_precision=math.nan))
    table = ResultTable()
    for report in (undefined, report_of(9.0)):
        table.on_validation_end(trainer_at(0, tmp_path), SimpleNamespace(report=report))
    assert table.best is not None
    assert not math.isnan(table.best.overall.mean_average_precision)


def test_measuring_writes_intervals(tmp_path, capsys):
    ResultTable(n_resamples=20).on_test_end(trainer_at(0, tmp_path, "test"), SimpleNamespace(report=report_of(3.0)))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["intervals"]["error_px/median"] == pytest.approx([3.0, 3.0])
    assert content["channels_without_truth"] == ["b"]
    out = capsys.readouterr().out
    assert "Test, 4 pictures" in out
    assert "Channel 'b' has no labelled point here" in out
