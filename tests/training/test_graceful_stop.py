import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from interrupted_trainings import find_differences
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.cli import run
from keypoint_detection.commands import training
from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.training import graceful_stop

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"
STEPS_PER_EPOCH = 3


class Send(Callback):
    """Send signals to this process after a step, or when validation begins."""

    def __init__(self, numbers: list[signal.Signals], step: int | None) -> None:
        self.numbers = numbers
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            self._send()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.step is None and not trainer.sanity_checking:
            self._send()

    def _send(self) -> None:
        numbers, self.numbers = self.numbers, []
        for number in numbers:
            signal.raise_signal(number)


class SendWithin(Send):
    """Send them in the middle of a step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        pass

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == self.step:
            self._send()


def stop(discs: Path, numbers: list[signal.Signals], step: int | None, *words: str, sender: type[Send] = Send) -> int:
    """Train for five epochs, send signals on the way, and give the exit code."""

    class StoppedCLI(DetectorCLI):
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(sender(numbers, step))  # type: ignore[attr-defined]
            return trainer

    words = (f"--config={TINY}", f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=5", *words)
    try:
        training.run(["fit", *words], StoppedCLI)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def saved(name: str) -> dict[str, Any]:
    (path,) = Path().glob(f"runs/*/checkpoints/{name}.ckpt")
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


@pytest.fixture(autouse=True)
def _with_the_usual_handlers() -> Iterator[None]:
    """Listen to Ctrl-C also where the tests run in the background, as shells start such programs deaf to it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_ends_a_training_with_checkpoint_and_metrics(
    discs: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop(discs, [number], 1) == code
    assert saved("last")["global_step"] == 2
    # The first epoch was cut short, and yet validated.
    assert saved("best")["global_step"] == 2
    assert "Validation, epoch 1 of 1" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_the_last_line_is_the_command_that_goes_on(
    discs: Path, numbers: list[signal.Signals], caplog: pytest.LogCaptureFixture
) -> None:
    stop(discs, numbers, 1, "--trainer.default_root_dir=my runs")
    (path,) = Path().glob("my runs/*/checkpoints/last.ckpt")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("keypoint_detection")]
    assert said[-1] == f"To resume: kpd fit --ckpt_path='{path}'"
    assert not any("weights_only" in record.getMessage() for record in caplog.records)


def test_a_training_that_nobody_stops_has_nothing_to_go_on_with(discs: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert stop(discs, [], 1, "--trainer.max_epochs=1") == 0
    assert "To resume" not in caplog.text


def test_a_run_that_its_sweep_stops_has_not_failed(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert stop(discs, [signal.SIGTERM], STEPS_PER_EPOCH + 1) == 0
    assert saved("last")["epoch"] == 1


def test_a_signal_during_validation_ends_the_training_after_it(discs: Path) -> None:
    assert stop(discs, [signal.SIGTERM], None) == 143
    assert saved("last")["global_step"] == STEPS_PER_EPOCH


def test_a_least_length_does_not_keep_a_training_going(discs: Path) -> None:
    assert stop(discs, [signal.SIGINT], 1, "--trainer.min_epochs=4") == 130
    assert saved("last")["global_step"] == 2


def test_a_second_signal_ends_after_the_step_and_loses_nothing(discs: Path) -> None:
    assert stop(discs, [signal.SIGINT, signal.SIGINT], 1) == 1
    assert saved("last")["global_step"] == 2
    assert not list(Path().glob("runs/*/metrics.json"))


def test_a_second_sigterm_is_told_to_whoever_sent_it(discs: Path) -> None:
    assert stop(discs, [signal.SIGTERM, signal.SIGTERM], 1) == 143
    assert saved("last")["global_step"] == 2


def test_a_stop_leaves_the_best_checkpoint_to_the_validations_that_are_due(discs: Path) -> None:
    # Nothing is found within a hundredth of a pixel: the validation of the stop is as good as the one before.
    stop(discs, [signal.SIGTERM], STEPS_PER_EPOCH + 1, "--model.ap_thresholds_px=[0.01]")
    assert saved("last")["global_step"] > STEPS_PER_EPOCH
    assert saved("best")["global_step"] == STEPS_PER_EPOCH


def test_training_goes_on_from_the_saved_checkpoint(discs: Path) -> None:
    stop(discs, [signal.SIGTERM], STEPS_PER_EPOCH)
    (path,) = Path().glob("runs/*/checkpoints/last.ckpt")
    words = [f"--data.train={discs}", f"--data.val={discs}", f"--ckpt_path={path}", "--trainer.max_epochs=3"]
    cli = run(["fit", f"--config={TINY}", *words])
    assert cli is not None
    assert cli.trainer.current_epoch == 3


@pytest.mark.parametrize(
    "others",
    [("--trainer.accumulate_grad_batches=2",), ("--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",)],
    ids=["in the middle of a step", "between validations"],
)
def test_a_stopped_and_resumed_training_ends_as_if_it_had_not_been_stopped(
    discs: Path, others: tuple[str, ...]
) -> None:
    if "Plateau" in others[0]:
        options = {"monitor": "val/loss", "patience": "0", "factor": "0.5", "threshold": "0.3"}
        others += tuple(f"--model.lr_scheduler.{name}={value}" for name, value in options.items())
    # Two batches per epoch more than an even number of them.
    words = ["--data.batch_size=2", "--data.augment=true", "--trainer.max_epochs=3", *others]
    stop(discs, [signal.SIGTERM], 4, *words, "--trainer.default_root_dir=parts")
    stop(discs, [], None, *words, "--trainer.default_root_dir=whole")
    (parts,), (whole,) = (list(Path(name).glob("*/checkpoints/last.ckpt")) for name in ("parts", "whole"))
    assert torch.load(parts, weights_only=True)["global_step"] == 5
    run(["fit", f"--ckpt_path={parts}"])
    one, other = (torch.load(path, weights_only=True) for path in (parts, whole))
    assert one["global_step"] == other["global_step"]
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert one["validation"]["mAP_smoothed"] == other["validation"]["mAP_smoothed"]


def test_a_third_signal_ends_within_the_step_and_names_the_checkpoint_before_it(
    discs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert stop(discs, [signal.SIGINT] * 3, 4, sender=SendWithin) == 1
    assert saved("last")["global_step"] == STEPS_PER_EPOCH
    assert "Stopped in the middle of step 5" in caplog.text
    assert "To resume: kpd fit --ckpt_path=runs" in caplog.text


EMA = '--trainer.callbacks+={"class_path":"EMAWeightAveraging","init_args":{"decay":0.7}}'


@pytest.mark.parametrize("step", [4, None], ids=["in a step", "in a validation"])
@pytest.mark.parametrize("n_signals", [1, 2])
def test_averaged_weights_are_resumed_exactly(discs: Path, step: int | None, n_signals: int) -> None:
    words = ["--data.batch_size=2", "--data.augment=true", "--trainer.max_epochs=3", EMA, "--data.num_workers=2"]
    stop(discs, [signal.SIGTERM] * n_signals, step, *words, "--trainer.default_root_dir=parts")
    stop(discs, [], None, *words, "--trainer.default_root_dir=whole")
    (parts,), (whole,) = (list(Path(name).glob("*")) for name in ("parts", "whole"))
    last = parts / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == (6 if step is None else 5)
    run(["fit", f"--ckpt_path={last}"])
    # The validation of a stop within an epoch may be the best one.
    assert find_differences(parts, whole, ["last.ckpt"] if step else ["last.ckpt", "best.ckpt", "metrics.json"]) == []


class Requeue:
    """Stand in for the handler with which Lightning saves a checkpoint and requeues the job."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.functions.append(sys._getframe(1).f_code.co_name)


def test_a_job_is_requeued_after_the_current_step(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_stop, "cluster_environment", lambda trainer: SLURMEnvironment(auto_requeue=True))
    stand_in = Requeue()
    previous = signal.signal(signal.SIGUSR1, stand_in)
    assert stop(discs, [signal.SIGUSR1], 1, "--trainer.max_epochs=1", sender=SendWithin) == 0
    signal.signal(signal.SIGUSR1, previous)
    assert stand_in.functions == ["_stop_if_asked"]
