"""Weights & Biases without an account, without a home folder, with and without a terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from keypoint_detection.tracking.account import finish_wandb, prepare_wandb

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "conf" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _fresh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client that has read no settings yet, and that can reach no server whatever happens."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def fit_words(discs: Path) -> list[str]:
    words = [f"--config={TINY}", f"--data.train={discs}", "--trainer.logger=WandbLogger"]
    return [sys.executable, "-m", "keypoint_detection", "fit", *words]


def without_account(home: str) -> dict[str, str]:
    """An environment that knows of no account; a server that is not there would be noticed at once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG"))}
    nowhere = "http://127.0.0.1:9"
    return {**kept, "HOME": home, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": nowhere, "WANDB_ERROR_REPORTING": "false"}


class Finished(NamedTuple):
    """A training that has ended: all that it wrote to the terminal, its exit code, its folder."""

    output: str
    exit_code: int
    folder: Path


@pytest.fixture(scope="module")
def finished(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """One training on a terminal, and one without terminal and without a home folder, at the same time."""
    terminal, elsewhere = (tmp_path_factory.mktemp(name) for name in ("terminal", "elsewhere"))
    # Nothing can be written below a device, even by an administrator.
    second = subprocess.Popen(
        fit_words(discs),
        cwd=elsewhere,
        env=without_account("/dev/null/home"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ours, theirs = pty.openpty()
    environment = without_account(str(terminal))
    first = subprocess.Popen(
        fit_words(discs), cwd=terminal, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    # A prompt would never be answered: the training would not end, and neither would this loop.
    while chunk := read(ours):
        output += chunk
    written, _ = second.communicate()
    return {
        "terminal": Finished(output.decode().replace("\r", ""), first.wait(), terminal),
        "elsewhere": Finished(written, second.returncode, elsewhere),
    }


@pytest.mark.parametrize("where", ["terminal", "elsewhere"])
def test_without_an_account_nobody_is_asked_and_one_line_says_what_to_do(
    finished: dict[str, Finished], where: str
) -> None:
    output, exit_code, folder = finished[where]
    assert exit_code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("Weights & Biases:")]
    assert "no account is logged in" in line
    assert all(command in line for command in ("`wandb login`", "`wandb sync ", "`wandb leet`"))
    assert "Traceback" not in output
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_without_a_home_folder_the_run_is_complete_on_disk(finished: dict[str, Finished]) -> None:
    folder = finished["elsewhere"].folder
    assert len(list(folder.glob("wandb/offline-run-*/files/media/table/val/*.json"))) == 1
    assert len(list(folder.glob("runs/*/checkpoints/best.ckpt"))) == 1


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # how Linux says that the other side has closed the terminal
        return b""


def test_a_mode_that_is_set_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    asked: list[str] = []
    monkeypatch.setattr(wandb, "login", lambda **_: asked.append("login"))
    monkeypatch.setattr(wandb, "setup", lambda *_: asked.append("setup"))
    prepare_wandb([WandbLogger()])
    assert asked == []


def test_a_key_that_cannot_be_right_does_not_keep_from_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with caplog.at_level("INFO", logger="keypoint_detection"):
        prepare_wandb([WandbLogger()])
    assert wandb.setup().settings.mode == "offline"
    assert "the account cannot be used (WANDB_API_KEY invalid" in caplog.text


def test_other_loggers_have_nothing_to_do_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "login", lambda **_: pytest.fail("asked for an account"))
    prepare_wandb([CSVLogger(tmp_path)])


def test_a_finished_command_ends_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = WandbLogger().experiment.id
    finish_wandb(exit_code=0)
    assert wandb.run is None
    assert WandbLogger().experiment.id != first
    finish_wandb(exit_code=0)
