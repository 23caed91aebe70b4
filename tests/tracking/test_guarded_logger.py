"""Servers that fail, before a run starts and in the middle of one: the training goes on and nothing is lost."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from wandb_stand_in import FAULTS, Fault, StandIn

from keypoint_detection.tracking import account
from keypoint_detection.tracking.account import finish_wandb, prepare_wandb
from keypoint_detection.tracking.guarded_logger import end_client, going_on, guard
from keypoint_detection.tracking.logged_images import log_images
from keypoint_detection.tracking.runs import send_model, write_summary
from keypoint_detection.tracking.tables import log_table

Connect = Callable[[StandIn], None]


@pytest.fixture(autouse=True)
def _fresh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client in a folder of its own that has read no settings yet, and soon gives up asking a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(account, "ANSWER_TIMEOUT_S", 1)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Point the client to a server."""

    def point_to(server: StandIn) -> None:
        for name, value in {**server.environment(), "WANDB_SILENT": "true"}.items():
            monkeypatch.setenv(name, value)

    return point_to


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("keypoint_detection")]


def log_everything(logger: WandbLogger, model: Path) -> None:
    for step in range(3):
        logger.log_metrics({"train/loss": 1.0 - step}, step)
    log_images(logger, "images", [(1, Image.new("RGB", (4, 4)))], 3)
    log_table(logger, "table", ["a", "b"], [[1, float("nan")]])
    write_summary(logger, "best", {"epoch": 1})
    model.write_bytes(b"weights")
    send_model(logger, model, "detector", {})


def sync(words: list[str], server: StandIn) -> None:
    """Run the client's command that uploads runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, env={**kept, **server.environment()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


def assert_everything_is_there(server: StandIn) -> None:
    (rows,) = server.history.values()
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [1.0, 0.0, -1.0]
    (summary,) = server.summaries.values()
    assert summary["best"] == {"epoch": 1}
    assert len(server.artifacts) == 2
    assert server.files["detector"]["model.ckpt"] == b"weights"
    (run,) = server.history
    names = sorted(name.rsplit("/", 1)[0] for name in server.files[run] if name.startswith("media/"))
    assert names == ["media/images", "media/table"]
    assert list(server.exit_codes.values()) == [0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_server_at_the_start_has_the_run_logged_on_disk(
    fault: Fault, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with StandIn(fault=fault) as server:
        connect(server)
        logger = WandbLogger()
        prepare_wandb([logger])
        assert logger.experiment.offline
        finish_wandb(exit_code=0)
    (warning,) = warnings_of(caplog)
    assert "the server cannot be used" in warning
    assert all(words in warning for words in ("logged to disk", "`wandb sync wandb/offline-run-…`"))
    assert len(list(Path().glob("wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize("fault", ["hang", "error", "page"])
def test_a_server_that_knows_us_but_starts_no_run_has_it_logged_on_disk(
    fault: Fault, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with StandIn(fault=fault, fault_after="Viewer") as server:
        connect(server)
        logger = WandbLogger()
        prepare_wandb([logger])
        assert logger.experiment.offline
        finish_wandb(exit_code=0)
    (warning,) = warnings_of(caplog)
    assert "The sweep does not see its results before that." in warning


def test_what_a_server_that_dies_in_mid_run_has_missed_is_synced_by_the_command_shown(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    with StandIn(fault="refuse", fault_after="UpsertBucket") as server:
        connect(server)
        logger = WandbLogger()
        prepare_wandb([logger])
        log_everything(logger, Path("best.ckpt"))
        assert not logger.experiment.offline
        finish_wandb(exit_code=0)
    (warning,) = warnings_of(caplog)
    _, command = warning.split("To upload it: ")
    assert command.startswith("wandb sync --no-skip-online wandb/run-")
    with StandIn() as server:
        sync(command.split(), server)
        assert_everything_is_there(server)
    assert wandb.run is None


def test_a_good_server_gets_everything_at_once(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with StandIn() as server:
        connect(server)
        logger = WandbLogger()
        prepare_wandb([logger])
        log_everything(logger, Path("best.ckpt"))
        finish_wandb(exit_code=0)
        assert_everything_is_there(server)
    assert warnings_of(caplog) == []


def test_a_run_whose_client_has_ended_continues_on_disk(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with StandIn() as server:
        connect(server)
        logger = WandbLogger()
        prepare_wandb([logger])
        logger.log_hyperparams({"lr": 0.5})
        run = logger.experiment.id
        end_client()
        logger.log_metrics({"lost": 1.0}, 0)
        logger.log_metrics({"train/loss": 1.0}, 1)
        assert logger.experiment.offline
        assert logger.experiment.id == run
        assert logger.experiment.config["lr"] == 0.5
        assert "lost" not in logger.experiment.summary.keys()  # noqa: SIM118 - the client's dictionary, which lacks `in`
        assert logger.experiment.summary["train/loss"] == 1
        finish_wandb(exit_code=0)
    first, second = warnings_of(caplog)
    assert "metrics could not be logged" in first
    assert "the client has ended, so this run is logged to disk" in second


class OddLogger(WandbLogger):
    """A logger that fails in its own way, which is none of the client's."""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        raise KeyError("data")


def test_whatever_logging_raises_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    logger = OddLogger()
    guard(logger)
    assert isinstance(logger, OddLogger)
    prepare_wandb([logger])
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0}, step)
        with going_on(logger, "the table a"):
            raise RuntimeError
    (warning,) = warnings_of(caplog)
    assert "metrics could not be logged ('data')" in warning
    assert "later failures are not shown" in warning


def test_an_interruption_is_not_taken_for_a_failure_of_the_log() -> None:
    with pytest.raises(KeyboardInterrupt), going_on(WandbLogger(), "the table a"):
        raise KeyboardInterrupt


def test_a_setting_that_even_a_run_on_disk_refuses_costs_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = WandbLogger(project="a/b")
    prepare_wandb([logger])
    logger.log_metrics({"train/loss": 1.0}, 0)
    assert "nothing from this run is logged" in warnings_of(caplog)[-1]
    finish_wandb(exit_code=0)
