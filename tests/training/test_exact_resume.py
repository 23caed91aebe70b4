"""Trainings that are killed after a checkpoint and resumed from it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from interrupted_trainings import find_differences, training_words
from lightning.pytorch import Trainer

from keypoint_detection.cli import run
from keypoint_detection.training.checkpointing import LastCheckpoint, find_best_checkpoint


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train_and_copy(discs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, str], tuple[Path, Path]]:
    """Train, and copy the run folder as it is when a checkpoint is saved, as a kill would leave it."""

    def train(variant: str, step: int, name: str) -> tuple[Path, Path]:
        save = Trainer.save_checkpoint

        def save_and_copy(trainer: Trainer, path: str, *args: object, **options: object) -> None:
            save(trainer, path, *args, **options)
            if Path(path).name == name and trainer.global_step == step and not Path("killed").exists():
                shutil.copytree(Path(path).parents[1], "killed")

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save_checkpoint", save_and_copy)
            run([*training_words(discs, variant), "--trainer.default_root_dir=whole"])
        (whole,) = Path("whole").iterdir()
        return whole, Path("killed")

    return train


@pytest.mark.parametrize(
    ("variant", "step", "name"),
    [
        ("dropout and a checkpoint every step", 4, "step.ckpt"),
        # The validation at the end of the epoch was about to begin.
        ("dropout and a checkpoint every step", 6, "step.ckpt"),
        ("a checkpoint every step", 18, "step.ckpt"),
        ("unaligned accumulation", 4, "last.ckpt"),
        ("scheduled accumulation", 7, "last.ckpt"),
        ("EMA", 12, "last.ckpt"),
        ("SWA", 12, "last.ckpt"),
        # The extra epoch, whose last batch counts as a step, was over, and the averages were still to be taken.
        ("SWA", 19, "last.ckpt"),
        ("EarlyStopping", 6, "last.ckpt"),
        # It had just decided to stop.
        ("EarlyStopping within epochs", 9, "last.ckpt"),
        ("checkpoints monitoring the training", 12, "last.ckpt"),
        # The last validation was over, and nothing else yet.
        ("own transforms", 18, "last.ckpt"),
    ],
)
def test_a_killed_and_resumed_training_ends_as_if_it_had_not_been_killed(
    train_and_copy: Callable[[str, int, str], tuple[Path, Path]], variant: str, step: int, name: str
) -> None:
    whole, killed = train_and_copy(variant, step, name)
    checkpoint = killed / "checkpoints" / name
    assert torch.load(checkpoint, weights_only=True)["global_step"] == step
    run(["fit", f"--ckpt_path={checkpoint}"])
    assert find_differences(killed, whole) == []


@pytest.fixture
def stopped_late(discs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of a training that was killed at its end, but whose `last.ckpt` is that of step 6."""
    save = Trainer.save_checkpoint

    def save_first_last(trainer: Trainer, path: str, *args: object, **options: object) -> None:
        if Path(path).name != "last.ckpt" or trainer.global_step == 6:
            save(trainer, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save_first_last)
        run([*training_words(discs, "checkpoints elsewhere"), f"--trainer.default_root_dir={Path.cwd()}/runs"])
    (folder,) = Path("runs").iterdir()
    return folder


def _resume(folder: Path) -> None:
    run(["fit", f"--config={folder / 'config.yaml'}", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])


def _read_steps(folder: Path) -> dict[str, int]:
    paths = sorted(folder.rglob("*.ckpt"))
    return {path.name: torch.load(path, weights_only=True)["global_step"] for path in paths}


def test_a_resumed_training_replaces_what_it_wrote_after_its_checkpoint(stopped_late: Path) -> None:
    run_before, before = _read_steps(stopped_late), _read_steps(Path("elsewhere"))
    assert before == {"step=18.ckpt": 18}
    steps = {f"all-step={step}.ckpt": step for step in (4, 8, 12, 16)}
    assert run_before == {**steps, "best.ckpt": 18, "last.ckpt": 6}
    times = {path.name: path.stat().st_mtime_ns for path in stopped_late.rglob("all*")}
    _resume(stopped_late)
    assert _read_steps(stopped_late) == {**run_before, "last.ckpt": 18}
    assert _read_steps(Path("elsewhere")) == before
    # The first is older than the checkpoint resumed from.
    kept = [name for name, time in times.items() if next(stopped_late.rglob(name)).stat().st_mtime_ns == time]
    assert kept == ["all-step=4.ckpt"]


def test_a_resumed_training_leaves_the_checkpoints_of_others_alone(stopped_late: Path) -> None:
    (path,) = Path("elsewhere").iterdir()
    content = torch.load(path, weights_only=True)
    content["callbacks"][LastCheckpoint().state_key]["dirpath"] = "/another/run/checkpoints"
    torch.save(content, path)
    before = path.read_bytes()
    _resume(stopped_late)
    assert _read_steps(Path("elsewhere")) == {"step=18.ckpt": 18, "step=18-v1.ckpt": 18}
    assert path.read_bytes() == before


def test_more_patience_resumes_what_early_stopping_ended(
    train_and_copy: Callable[[str, int, str], tuple[Path, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = train_and_copy("EarlyStopping within epochs", 9, "last.ckpt")
    last = whole / "checkpoints" / "last.ckpt"
    run(["fit", f"--ckpt_path={last}"])
    assert "EarlyStopping had ended this run" in caplog.text
    assert torch.load(last, weights_only=True)["global_step"] == 9
    config = whole / "config.yaml"
    config.write_text(config.read_text().replace("patience: 2", "patience: 3"))
    run(["fit", f"--ckpt_path={last}"])
    assert torch.load(last, weights_only=True)["global_step"] == 12


def test_a_training_validates_at_intervals_of_time(discs: Path) -> None:
    words = training_words(discs, "plain")
    interval = ["--trainer.val_check_interval=00:00:00:00", "--trainer.check_val_every_n_epoch=null"]
    cli = run([*words, *interval])
    assert cli is not None
    assert cli.trainer.global_step == 18
    best = find_best_checkpoint(cli.trainer)
    assert best is not None
    assert best.score is not None
