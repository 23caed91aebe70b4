"""Trainings whose disk fills up, or whose folder disappears, on the way."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from PIL import Image

from keypoint_detection.cli import run
from keypoint_detection.reporting import held_out_predictions

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fail(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def test_a_full_disk_does_not_end_a_training(
    discs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr(ExperimentWriter, "save", fail)
    monkeypatch.setattr(held_out_predictions, "write_held_out", fail)
    write = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda path, *args, **kw: fail() if path.suffix == ".json" else write(path, *args, **kw)
    )
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.log_every_n_steps=1"]
    words = ["fit", f"--config={TINY}", f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=2"]
    cli = run([*words, *logger])
    assert cli is not None
    assert cli.trainer.global_step == 6
    assert len(list(Path("runs").glob("*/checkpoints/*.ckpt"))) == 2
    warnings = sorted(one.getMessage() for one in caplog.records if "Training continues" in one.getMessage())
    assert [text.split(" (")[0] for text in warnings] == [
        "No further entries of CSVLogger",
        "No metrics",
        "No overlays",
        "No predictions",
    ]


def test_measuring_on_a_full_disk_fails_in_a_sentence(
    discs: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(SystemExit) as left:
        run(
            [
                "test",
                f"--ckpt_path={checkpoint}",
                f"--data.test={discs}",
                "--data.num_workers=0",
                "--trainer.callbacks=ResultTable",
            ]
        )
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == "kpd test: a file cannot be written: No space left on device."


class DeleteRun(Callback):
    """Delete the run folder in the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            shutil.rmtree("runs")


def test_a_run_folder_that_was_deleted_can_be_resumed(discs: Path) -> None:
    words = ["fit", f"--config={TINY}", f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=2"]
    run([*words, f"--trainer.callbacks+={__name__}.DeleteRun"])
    (last,) = Path("runs").glob("*/checkpoints/last.ckpt")
    config = last.parents[1] / "config.yaml"
    config.write_text(config.read_text().replace(f"{__name__}.DeleteRun", "lightning.pytorch.callbacks.ModelSummary"))
    run(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=3"])
    assert torch.load(last, weights_only=True)["global_step"] == 9
