"""What really stands in a run of Weights & Biases, read back from the file of an offline run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from keypoint_detection.cli import run
from keypoint_detection.reporting.wandb_run import WandbRun

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"


class Logged(NamedTuple):
    """A training that is logged offline: its folder, the folder of its run, and what the run holds."""

    folder: Path
    files: Path
    content: dict[str, Any]


def inspect(folder: Path) -> dict[str, Any]:
    """Read an offline run with the client's own command."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert isinstance(content, dict)
    return content


def log_offline(root: Path, command: str, *words: str) -> Logged:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.chdir(root)
        logger = "--trainer.logger=WandbLogger", f"--trainer.logger.save_dir={root}", "--trainer.logger.project=discs"
        run([command, *words, *logger])
    (folder,) = root.glob(f"runs/*-{command}")
    (logged,) = root.glob("wandb/offline-run-*")
    return Logged(folder, logged / "files", inspect(logged))


@pytest.fixture(scope="module")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    words = ["--config", str(TINY), f"--data.train={discs}", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    return log_offline(tmp_path_factory.mktemp("trained"), "fit", *words)


@pytest.fixture(scope="module")
def tested(discs: Path, trained: Logged, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    checkpoint = trained.folder / "checkpoints" / "best.ckpt"
    words = [f"--ckpt_path={checkpoint}", f"--data.test={discs}", "--trainer.callbacks+=WorstImages"]
    return log_offline(tmp_path_factory.mktemp("tested"), "test", *words, "--trainer.callbacks.n_images=3")


def test_every_hyper_parameter_is_logged_with_its_default(trained: Logged) -> None:
    config = trained.content["config"]
    assert config["model"]["backbone"]["init_args"]["n_channels"] == 4
    assert config["model"]["heatmap_sigma"] == 2
    assert config["data"]["batch_size"] == 4
    assert config["trainer"]["max_epochs"] == 2


def test_data_size_and_folder_are_logged(trained: Logged, discs: Path) -> None:
    config = trained.content["config"]
    assert config["run_folder"] == str(trained.folder)
    data_set = config["data_set"]
    assert (data_set["train"]["images"], data_set["val"]["images"]) == (10, 2)
    assert set(data_set["train"]["points"]) == {"red", "left", "right"}
    assert data_set["train"]["file"] == str(discs)
    assert len(data_set["train"]["sha256"]) == 64
    # By hand: n_channels 4, one scale, one residual block, three channels.
    assert config["n_parameters"] == sum(
        [3 * 9 * 4 + 4, 4 * 9 * 4 + 4 + 8, 8 * 9 * 4 + 4 + 8, 2 * (4 * 9 * 4 + 4 + 8), 4 * 9 * 3 + 3]
    )


def test_losses_and_metrics_have_stable_names(trained: Logged) -> None:
    summary = trained.content["summary"]
    assert {"train/loss", "val/loss", "val/AP/red/d=4", "val/error_px/median"} <= set(summary)
    assert "diverged" not in summary


def test_the_summary_of_map_is_the_last_value_and_the_best_checkpoint_has_its_own(trained: Logged) -> None:
    last, best = (
        torch.load(trained.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["validation"]["report"]
        for name in ("last", "best")
    )
    assert trained.content["summary"]["val/mAP"] == pytest.approx(last["overall"]["mean_average_precision"])
    assert trained.content["summary"]["best"]["mAP"] == pytest.approx(best["overall"]["mean_average_precision"])


def test_the_resolved_config_is_a_file_of_the_run(trained: Logged) -> None:
    logged = yaml.safe_load((trained.files / "kpd-config.yaml").read_text())
    assert logged == yaml.safe_load((trained.folder / "config.yaml").read_text())
    assert logged["model"]["channels"] == ["red", "left", "right"]


def test_overlays_and_tables_are_files_of_the_run(trained: Logged) -> None:
    overlays = trained.content["summary"]["val/overlays"]
    assert (overlays["count"], overlays["captions"]) == (2, ["image 12", "image 19"])
    # Two images after each of the epochs 1 and 2.
    assert len(list(trained.files.glob("media/images/val/*.jpg"))) == 4
    assert all(path.stat().st_size < 100_000 for path in trained.files.glob("media/images/val/*.jpg"))
    (table,) = trained.files.glob("media/table/val/table_*.json")
    content = json.loads(table.read_text())
    assert content["columns"][:2] == ["channel", "points"]
    assert [row[0] for row in content["data"]] == ["red", "left", "right", "overall"]
    (data_set,) = trained.files.glob("media/table/data_set_*.json")
    assert len(json.loads(data_set.read_text())["data"]) == 2 * 3


def test_a_test_logs_the_worst_images(tested: Logged) -> None:
    (table,) = tested.files.glob("media/table/worst_images_*.json")
    content = json.loads(table.read_text())
    assert len(content["data"]) == 3
    assert content["columns"][-1] == "image"
    assert tested.content["config"]["data_set"]["test"]["images"] == 12
    assert "test/mAP" in tested.content["summary"]


@pytest.mark.parametrize(
    ("monitor", "mode", "summarised"),
    [
        ("val/error_px/median", "min", {"val/error_px/median"}),
        ("val/mAP", "max", {"val/mAP"}),
        ("val/mAP_smoothed", "max", {"val/mAP_smoothed", "val/mAP"}),
    ],
)
def test_only_the_monitored_metric_is_summarised_by_its_best_value(monitor, mode, summarised) -> None:
    best = ModelCheckpoint(monitor=monitor, mode=mode)
    experiment = mock.Mock(dir="nowhere", config=mock.Mock())
    logger = mock.Mock(spec=WandbLogger, experiment=experiment)
    trainer = mock.Mock(
        loggers=[logger],
        checkpoint_callbacks=[best],
        callbacks=[],
        is_global_zero=True,
        datamodule=None,
        log_dir="logs",
    )
    with mock.patch("keypoint_detection.reporting.wandb_run.log_table"):
        WandbRun().on_test_start(trainer, torch.nn.Linear(1, 1))
    calls = experiment.define_metric.call_args_list
    assert len(calls) == len(summarised)
    assert {call.args[0] for call in calls} == summarised
    assert {call.kwargs["summary"] for call in calls} == {mode}
