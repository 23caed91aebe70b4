import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision

from keypoint_detection.codec.heatmaps import NotFiniteError
from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.commands.training import run
from keypoint_detection.models.backbones import Unet
from keypoint_detection.training.run_folder import SavedRun

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"
# 12 images in batches of 4.
STEPS_PER_EPOCH = 3


class Spoil(Callback):
    """Overwrite a weight after a step, as an update that is not a number would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


def diverge(discs: Path, step: int, *words: str) -> int:
    """Train, spoil the weights after a step, and give the exit code."""

    class SpoiledCLI(DetectorCLI):
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, Spoil(step))  # type: ignore[attr-defined]
            return trainer

    with pytest.raises(SystemExit) as stopped:
        run(
            [
                "fit",
                f"--config={TINY}",
                f"--data.train={discs}",
                f"--data.val={discs}",
                "--trainer.max_epochs=3",
                "--trainer.logger=CSVLogger",
                "--trainer.logger.save_dir=log",
                *words,
            ],
            SpoiledCLI,
        )
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def logged(name: str) -> list[float]:
    (path,) = Path().glob("log/**/metrics.csv")
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_training_stops_at_the_first_loss_that_is_no_number(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Spoilt after the first step of the second epoch: the loss of the second step, number 5 of all, is the first NaN.
    assert diverge(discs, STEPS_PER_EPOCH + 1, "--model.lr=0.004", "--model.lr_scheduler=constant") == 1
    message = capsys.readouterr().err
    assert "kpd fit: training diverged in epoch 2: the loss of step 5 is nan, at a learning rate of 0.004." in message
    assert "Try a smaller --model.lr" in message
    assert "Traceback" not in message


def test_it_is_reported_and_the_best_checkpoint_stays(discs: Path) -> None:
    diverge(discs, STEPS_PER_EPOCH + 1)
    assert logged("diverged") == [1]
    assert len(logged("val/mAP")) == 1
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    state = torch.load(best, weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_noticed_before_validation(
    discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diverge(discs, STEPS_PER_EPOCH) == 1
    assert "in epoch 1: weights are NaN or infinite after step 3" in capsys.readouterr().err


def test_a_sweep_gets_its_metric_from_a_run_that_never_reached_a_validation(discs: Path) -> None:
    diverge(discs, 1)
    assert logged("diverged") == [1]
    assert logged("val/mAP") == [0]


def test_a_learning_rate_out_of_all_bounds_is_reported(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diverge(discs, -1, "--model.lr=1e9", "--model.optimizer=SGD", "--model.lr_scheduler=constant") == 1
    assert "at a learning rate of 1e+09" in capsys.readouterr().err


class SpoiltNet(Unet):
    """A network whose gradients are NaN in some steps, while its loss and its weights are fine."""

    def __init__(self, first: int = 2, n: int = 1) -> None:
        super().__init__(n_channels=4, n_downsampling_layers=1, n_resnet_blocks=1)
        self.first, self.n = first, n
        self.n_passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = super().forward(x)
        if self.training and features.requires_grad:
            self.n_passes += 1
            if self.first <= self.n_passes < self.first + self.n:
                features.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))
        return features


class HalfPrecision(MixedPrecision):
    """Float16 with a scaler on the CPU, where Lightning would take bfloat16."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


IN_HALF_PRECISION = "--trainer.plugins=[training.test_health.HalfPrecision]"
SPOILT = "--model.backbone=training.test_health.SpoiltNet"


def fit_spoilt(discs: Path, *words: str) -> DetectorCLI:
    words = (f"--config={TINY}", f"--data.train={discs}", f"--data.val={discs}", SPOILT, *words)
    return run(["fit", *words])


def test_a_gradient_that_is_no_number_never_reaches_the_weights(
    discs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        SavedRun,
        "on_exception",
        lambda self, trainer, module, error: seen.update(
            {name: one.clone() for name, one in module.state_dict().items()}
        ),
    )
    with pytest.raises(SystemExit) as stopped:
        fit_spoilt(discs, "--trainer.max_epochs=2")
    assert stopped.value.code == 1
    assert len(seen) > 10
    assert all(value.isfinite().all() for value in seen.values())
    message = capsys.readouterr().err
    assert "in step 2, the gradient of network.backbone." in message
    assert re.search(r"Batch 2 of the epoch: images/0-\d+.png, ", message)


def test_the_batch_of_a_diverged_step_can_be_looked_at(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit_spoilt(discs)
    (path,) = Path().glob("runs/*/diverged-batch.npz")
    assert f"numpy.load({str(path)!r}) has images, points," in capsys.readouterr().err
    content = np.load(path)
    assert content["images"].shape == (4, 3, 48, 64)
    assert content["file_names"].shape == content["image_ids"].shape == (4,)


def test_all_batches_of_an_accumulated_step_are_named(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit_spoilt(discs, "--trainer.accumulate_grad_batches=2")
    message = capsys.readouterr().err
    assert "in step 1, the gradient of" in message
    assert "\nBatch 1 of the epoch: " in message
    assert "\nBatch 2 of the epoch: " in message


def test_mixed_precision_skips_a_step_with_infinite_gradients_and_goes_on(discs: Path) -> None:
    cli = fit_spoilt(discs, IN_HALF_PRECISION, "--trainer.max_epochs=2")
    assert cli.trainer.scaler.get_scale() == 65536 / 2
    assert all(value.isfinite().all() for value in cli.model.state_dict().values())


def test_mixed_precision_that_skips_every_step_is_reported(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (IN_HALF_PRECISION, "--trainer.max_epochs=20", "--model.backbone.n=1000")
    with pytest.raises(SystemExit) as stopped:
        fit_spoilt(discs, *words, "--trainer.check_val_every_n_epoch=10", "--trainer.num_sanity_val_steps=0")
    assert stopped.value.code == 1
    assert "are NaN or infinite at any scale" in capsys.readouterr().err


def test_heatmaps_that_are_not_finite_are_reported_without_a_traceback(
    discs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise NotFiniteError("heatmaps: image 0 contains NaN")

    monkeypatch.setattr("keypoint_detection.codec.heatmaps.HeatmapCodec.decode", fail)
    with pytest.raises(SystemExit) as stopped:
        run(["fit", f"--config={TINY}", f"--data.train={discs}", f"--data.val={discs}"])
    assert stopped.value.code == 1
    assert "kpd fit: heatmaps: image 0 contains NaN" in capsys.readouterr().err
