"""Optimisers and schedules of every kind in a training whose length is counted in steps."""

from pathlib import Path

import pytest
import torch

from keypoint_detection.cli import run


def fit(discs, *words):
    base = ["fit", f"--data.train={discs}", "--config", str(Path(__file__).parents[1] / "conf" / "tiny.yaml")]
    return run([*base, "--trainer.max_epochs=null", "--trainer.max_steps=5", "--data.image_size=[24, 32]", *words])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_schedule_is_stepped_once_an_epoch_where_steps_are_counted(discs):
    cli = fit(
        discs,
        "--model.lr=0.1",
        "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.lr_scheduler.step_size=1",
        "--model.lr_scheduler.gamma=0.5",
    )
    # 12 images, a fifth kept aside: three batches of four an epoch, so that five steps end one epoch.
    assert cli.trainer.num_training_batches == 3
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RAdam", "Rprop"])
def test_every_optimiser_can_train(discs, name):
    cli = fit(discs, f"--model.optimizer=torch.optim.{name}")
    (optimizer,) = cli.trainer.optimizers
    assert isinstance(optimizer, getattr(torch.optim, name))
    assert cli.trainer.global_step == 5


def test_norms_do_not_decay_unless_asked_for(discs):
    options = ["--model.optimizer=torch.optim.AdamW", "--model.optimizer.weight_decay=0.3"]
    groups = fit(discs, *options).trainer.optimizers[0].param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.3]
    groups = fit(discs, *options, "--model.decay_norms_and_biases=true").trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LBFGS", "LBFGS cannot train this network"),
        ("SparseAdam", "SparseAdam cannot train this network"),
        ("Muon", "Muon only supports 2D parameters"),
    ],
)
def test_an_optimiser_that_cannot_train_the_network_is_refused(discs, capsys, name, message):
    with pytest.raises(SystemExit) as stop:
        fit(discs, f"--model.optimizer=torch.optim.{name}")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"model.optimizer: {message}" in said
    assert "e.g. AdamW" in said


ONE_CYCLE = ["--model.lr_scheduler=torch.optim.lr_scheduler.OneCycleLR", "--model.lr_scheduler.max_lr=0.01"]


def test_a_schedule_that_ends_before_the_training_is_refused(discs, capsys):
    with pytest.raises(SystemExit) as stop:
        fit(discs, *ONE_CYCLE, "--model.lr_scheduler.total_steps=2", "--trainer.max_steps=9")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "OneCycleLR has total_steps=2, but it is stepped once per epoch, 3 times" in said


def test_a_schedule_that_counts_steps_for_epochs_is_warned_of(discs, caplog):
    fit(discs, *ONE_CYCLE, "--model.lr_scheduler.total_steps=3", "--trainer.max_steps=9")
    assert "once per epoch" not in caplog.text
    fit(discs, *ONE_CYCLE, "--model.lr_scheduler.total_steps=9", "--trainer.max_steps=9")
    assert "total_steps=9, but it is stepped once per epoch, 3 times. It will not reach its end" in caplog.text
