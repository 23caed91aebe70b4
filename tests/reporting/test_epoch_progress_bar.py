from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from keypoint_detection.cli import run
from keypoint_detection.reporting.epoch_progress_bar import EpochProgressBar

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


@pytest.fixture
def fit(discs, tmp_path, monkeypatch):
    def fit(*words):
        monkeypatch.chdir(tmp_path)
        return run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])

    return fit


@pytest.mark.parametrize(
    ("words", "expected"),  # an epoch has three batches
    [
        (["--trainer.max_epochs=2"], ["Epoch 1/2", "Epoch 2/2"]),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=4"], ["Epoch 1/2", "Epoch 2/2"]),
        (["--trainer.max_epochs=5", "--trainer.max_steps=2"], ["Epoch 1/1"]),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=2", "--trainer.accumulate_grad_batches=2"], ["Epoch 1/1"]),
        (
            ["--trainer.max_epochs=-1", "--trainer.callbacks+=conftest.StopAt", "--trainer.callbacks.step=4"],
            ["Epoch 1", "Epoch 2"],
        ),
    ],
)
def test_the_bar_counts_epochs_to_the_last_one(fit, monkeypatch, words, expected):
    shown = []
    describe = EpochProgressBar.describe_epoch

    def note(bar, epoch):
        shown.append(describe(bar, epoch).strip())
        return describe(bar, epoch)

    monkeypatch.setattr(EpochProgressBar, "describe_epoch", note)
    fit("--trainer.enable_progress_bar=true", *words)
    assert list(dict.fromkeys(shown)) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.enable_progress_bar=false"], []),
        (["--trainer.enable_progress_bar=true", "--trainer.callbacks+=RichProgressBar"], [RichProgressBar]),
        (["--trainer.enable_progress_bar=null"], [EpochProgressBar]),
        (["--trainer.enable_progress_bar=null", "--trainer.enable_checkpointing=false"], [EpochProgressBar]),
    ],
)
def test_a_bar_is_there_unless_the_user_has_another_or_none(fit, words, expected):
    cli = fit(*words, "--trainer.fast_dev_run=true")
    assert [type(one) for one in cli.trainer.callbacks if isinstance(one, ProgressBar)] == expected
