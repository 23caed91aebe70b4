"""Settings that would have no effect."""

from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import StochasticWeightAveraging

from keypoint_detection.cli import run

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(discs, *words):
    return run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.freeze_encoder_steps=3"], "model.freeze_encoder_steps is 3, but the backbone Unet has no encoder"),
        (["--model.encoder_lr_factor=0.1"], "model.encoder_lr_factor is 0.1, but the backbone Unet has no encoder"),
        (["--trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val is -1; a number above 0 is expected"),
        (["--trainer.gradient_clip_algorithm=value"], "is value, but nothing is clipped"),
        (["--model.score_threshold=1"], "model.score_threshold is 1, which no score reaches"),
        (["--model.ap_thresholds_px=[8, 2]"], "model.ap_thresholds_px: thresholds must ascend"),
    ],
)
def test_a_setting_without_effect_is_refused(discs, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        fit(discs, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("runs/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.heatmap_sigma=0.4"], "heatmap_sigma is 0.4 px, but a cell of the heatmap is 1 px wide"),
        (["--model.heatmap_sigma=300"], "heatmap_sigma is 300 px: the Gaussians fill"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mAP"],
            "EarlyStopping watches val/mAP with mode=min, which treats improvements as deterioration",
        ),
        (
            ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_scheduler.monitor=val/mAP"],
            "model.lr_scheduler watches val/mAP with mode=min",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"],
            None,
        ),
        (
            [
                "--trainer.callbacks+=EarlyStopping",
                "--trainer.callbacks.monitor=val/PCK/d=4",
                "--trainer.callbacks.mode=max",
            ],
            None,
        ),
    ],
)
def test_a_setting_that_leaves_nothing_to_learn_is_warned_of(discs, caplog, words, message):
    fit(discs, *words)
    if message is None:
        assert "opposite" not in caplog.text
        assert "heatmap_sigma" not in caplog.text
    else:
        assert message in caplog.text


@pytest.mark.parametrize(("n_frozen", "is_said"), [(2, True), (1, False)])
def test_an_encoder_that_is_frozen_to_the_end_is_warned_of(discs, caplog, n_frozen, is_said):
    backbone = [
        "--model.backbone=TimmUnet",
        "--model.backbone.encoder=test_resnet",
        "--model.backbone.pretrained=false",
    ]
    fit(discs, *backbone, "--trainer.max_steps=2", f"--model.freeze_encoder_steps={n_frozen}")
    assert ("ends after 2 steps: the encoder is never trained" in caplog.text) is is_said


def test_a_class_without_its_arguments_is_told_which_are_missing(discs, capsys):
    with pytest.raises(SystemExit) as stop:
        fit(discs, "--model.lr_scheduler=torch.optim.lr_scheduler.OneCycleLR")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "model.lr_scheduler: the following arguments are required: max_lr" in said
    assert "expected one of" not in said
    assert "--model.lr_scheduler.max_lr=VALUE" in said


SWA = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.001"]


def test_averaging_over_epochs_is_refused_where_steps_are_counted(discs, capsys):
    with pytest.raises(SystemExit) as stop:
        fit(discs, *SWA, "--trainer.max_steps=6", "--trainer.max_epochs=null")
    assert stop.value.code == 2
    assert "StochasticWeightAveraging counts epochs" in capsys.readouterr().err


def test_a_run_with_averaged_weights_can_be_resumed_and_repeated(discs, caplog):
    fit(discs, *SWA, "--trainer.max_epochs=4", "--trainer.callbacks.swa_epoch_start=2")
    assert "last.ckpt has the averages" in caplog.text
    (folder,) = Path("runs").iterdir()
    cli = run(["fit", f"--config={folder / 'config.yaml'}"])
    run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=6"])
    averaging = next(one for one in cli.trainer.callbacks if isinstance(one, StochasticWeightAveraging))
    assert averaging._device == torch.device("cpu")


def test_a_timer_needs_no_more_than_its_duration(discs):
    fit(discs, "--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:00:10:00")
    (config,) = Path("runs").glob("*/config.yaml")
    (timer,) = [one for one in yaml.safe_load(config.read_text())["trainer"]["callbacks"] if "Timer" in str(one)]
    assert timer["init_args"]["interval"] == "step"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--trainer.max_epochs=2", "--trainer.min_steps=50"],
            "trainer.min_steps is 50, but trainer.max_epochs=2 ends training after 6 steps",
        ),
        (
            ["--trainer.max_epochs=9", "--trainer.max_steps=4", "--trainer.min_epochs=2"],
            "trainer.min_epochs is 2, but trainer.max_steps=4 ends training after 4 steps",
        ),
        (["--trainer.max_epochs=2", "--trainer.min_steps=6"], None),
        (["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.min_epochs=2"], None),
    ],
)
def test_a_minimum_beyond_the_maximum_is_warned_of(discs, caplog, words, message):
    fit(discs, *words)
    if message is None:
        assert "ends training after" not in caplog.text
    else:
        assert message in caplog.text
