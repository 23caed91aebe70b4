"""A real sweep: `wandb sweep`, `wandb agent` and two trainings, against a stand-in for the server on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from wandb_stand_in import ENTITY, PROJECT, SWEEP, StandIn

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "conf" / "tiny.yaml"
LEARNING_RATES = (0.001, 0.01)


class Swept(NamedTuple):
    """A finished sweep: what the server has received, the agent's folder, its exit code and what it wrote."""

    server: StandIn
    folder: Path
    environment: dict[str, str]
    exit_code: int
    output: str


def make_environment(server: StandIn, folder: Path) -> dict[str, str]:
    """An environment with `kpd` on its path, a home folder of its own, and no server but ours."""
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "kpd"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m keypoint_detection "$@"\n')
    script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG"))}
    return {
        **kept,
        **server.environment(),
        "HOME": str(folder),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_AGENT_REPORT_INTERVAL": "1",
    }


def call(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def swept(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("sweep")
    sweep = {
        "project": PROJECT,
        "method": "grid",
        "metric": {"name": "val/mAP", "goal": "maximize"},
        "parameters": {"model.lr": {"values": list(LEARNING_RATES)}},
        "command": ["${env}", "kpd", "fit", "--config", str(TINY), "--config", "logged.yaml", "${args}"],
    }
    logged = {
        "data": {"train": str(discs)},
        "trainer": {"logger": {"class_path": "WandbLogger"}, "callbacks+": [{"class_path": "ModelArtifact"}]},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (folder / "logged.yaml").write_text(yaml.safe_dump(logged))
    commands = [{"model.lr": rate, "data.batch_size": 4.0, "data.image_root": None} for rate in LEARNING_RATES]
    with StandIn(commands) as server:
        environment = make_environment(server, folder)
        wandb = [sys.executable, "-m", "wandb"]
        made = call([*wandb, "sweep", "sweep.yaml"], folder, environment)
        assert f"wandb agent {ENTITY}/{PROJECT}/{SWEEP}" in made.stderr
        done = call([*wandb, "agent", f"{ENTITY}/{PROJECT}/{SWEEP}"], folder, environment)
        yield Swept(server, folder, environment, done.returncode, done.stdout + done.stderr)


def test_both_runs_end_well(swept: Swept) -> None:
    assert swept.exit_code == 0, swept.output
    assert swept.server.exit_codes == {"run1": 0, "run0": 0}, swept.output
    assert len(list(swept.folder.glob("runs/*-fit/checkpoints/best.ckpt"))) == 2


def test_the_parameters_of_the_sweep_reach_the_training(swept: Swept) -> None:
    configs = [swept.server.configs[run] for run in ("run1", "run0")]
    assert [config["model"]["lr"] for config in configs] == list(LEARNING_RATES)
    assert [config["model.lr"] for config in configs] == list(LEARNING_RATES)
    assert [config["data"]["batch_size"] for config in configs] == [4, 4]
    assert [config["data"]["image_root"] for config in configs] == [None, None]


def test_the_server_has_metrics_pictures_and_config_of_each_run(swept: Swept) -> None:
    for run in ("run1", "run0"):
        measured = [row["val/mAP"] for row in swept.server.history[run] if "val/mAP" in row]
        assert len(measured) == 1
        assert swept.server.summaries[run]["val/mAP"] == measured[0]
        images = [name for name in swept.server.files[run] if name.startswith("media/images/val/overlays")]
        assert len(images) == 2
        # The first bytes of a JPEG.
        assert all(swept.server.files[run][name][:3] == b"\xff\xd8\xff" for name in images)
        config = yaml.safe_load(swept.server.files[run]["kpd-config.yaml"])
        assert config["model"]["lr"] == swept.server.configs[run]["model"]["lr"]


def test_the_best_checkpoint_is_a_model_with_metadata(swept: Swept) -> None:
    model = swept.server.artifacts["detector-run0"]
    metadata = json.loads(model["metadata"])
    assert {alias["alias"] for alias in model["aliases"]} == {"latest", "best"}
    assert metadata["channels"] == {"red": ["red"], "left": ["left"], "right": ["right"]}
    # Of a single validation.
    assert metadata["val/mAP"] == pytest.approx(metadata["metrics"]["mAP"])
    assert metadata["config"]["model"]["lr"] == LEARNING_RATES[1]
    stored = [path.read_bytes() for path in swept.folder.glob("runs/*/checkpoints/best.ckpt")]
    assert swept.server.files["detector-run0"]["model.ckpt"] in stored


RESOLVE = """
import sys
from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint, resolve_checkpoint
for reference in sys.argv[1:]:
    try:
        print(resolve_checkpoint(reference), list(read_checkpoint(reference)["hyper_parameters"]["channels"]))
    except CheckpointError as error:
        print(error)
"""


def test_a_model_is_found_by_its_reference_and_fetched_once(swept: Swept) -> None:
    model = f"wandb://{ENTITY}/{PROJECT}/detector-run0"
    references = [f"{model}:best", f"{model}:latest", f"{model}:v0", f"{model}:worst", model.replace("run0", "run9:v0")]
    done = call([sys.executable, "-c", RESOLVE, *references], swept.folder, swept.environment)
    assert done.returncode == 0, done.stderr
    best, latest, version, *missing = done.stdout.splitlines()
    path, channels = best.split(maxsplit=1)
    assert Path(path).read_bytes() == swept.server.files["detector-run0"]["model.ckpt"]
    assert channels == "['red', 'left', 'right']"
    assert best == latest == version
    assert swept.server.downloads == ["detector-run0/model.ckpt"]
    assert len(missing) == 2
    for line, reference in zip(missing, references[3:], strict=True):
        assert line.startswith(f"{reference} cannot be fetched")
        assert "Check entity, project, name and alias" in line


def test_the_server_was_asked_nothing_unforeseen(swept: Swept) -> None:
    # The client can do without this one.
    assert [request for request in swept.server.unknown if not request.startswith("OrganizationCoreWeave")] == []
