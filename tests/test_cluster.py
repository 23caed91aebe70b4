"""The files for other machines, as far as they can be checked without those machines."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from jsonargparse import Namespace

from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.commands.training import run

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "configs" / "cluster"


class ParsingCLI(DetectorCLI):
    """Parse the words of a command without making or running anything."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def run_script(name: str, *words: str, folder: Path, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Run a batch file with stand-ins for the programs it calls; give the last one's words and environment."""
    programs = folder / "bin"
    programs.mkdir()
    for program in ("kpd", "wandb"):
        script = programs / program
        script.write_text(f'#!/bin/bash\nprintf "%s\\n" {program} "$@" > words\nenv > environment\n')
        script.chmod(0o755)
    srun = programs / "srun"
    srun.write_text('#!/bin/bash\nexec "$@"\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
    subprocess.run(["bash", str(CLUSTER / name), *words], cwd=folder, env=environment, check=True)
    lines = (folder / "environment").read_text().splitlines()
    called = dict(line.split("=", 1) for line in lines if "=" in line)
    return (folder / "words").read_text().splitlines(), called


def directives(name: str) -> dict[str, str]:
    """The `#SBATCH` lines of a batch file."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (CLUSTER / name).read_text(), flags=re.M))


def parse(words: list[str]) -> Namespace:
    assert words[:2] == ["kpd", "fit"]
    config = run(words[1:], ParsingCLI).config.fit
    assert isinstance(config, Namespace)
    return config


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sbatch")), ids=lambda path: path.name)
def test_batch_files_are_valid_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.read_text().startswith("#!/bin/bash\n")


def test_the_array_starts_agents_that_pass_signals_on(tmp_path: Path) -> None:
    words, environment = run_script("agents.sbatch", "me/discs/abc", folder=tmp_path)
    assert (words[:2], words[-1]) == (["wandb", "agent"], "me/discs/abc")
    assert "--forward-signals" in words
    # What Lightning documents for a training that SLURM does not start itself.
    assert environment["SLURM_JOB_NAME"] == "interactive"
    assert directives("agents.sbatch")["gpus"] == "1"
    assert "array" in directives("agents.sbatch")
    # The agent kills its run before SLURM kills the agent.
    assert int(words[words.index("--term-timeout") + 1]) < int(directives("agents.sbatch")["signal"].split("@")[1])


def test_the_array_needs_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_script("agents.sbatch", folder=tmp_path)


def test_the_training_on_many_nodes_parses(tmp_path: Path) -> None:
    options = directives("train.sbatch")
    words, environment = run_script(
        "train.sbatch",
        "--config",
        str(ROOT / "configs" / "base.yaml"),
        folder=tmp_path,
        SLURM_JOB_ID="77",
        SLURM_NNODES=options["nodes"],
        SLURM_NTASKS_PER_NODE=options["ntasks-per-node"],
    )
    config = parse(words)
    assert (config.trainer.num_nodes, config.trainer.devices) == (2, "4")
    assert config.trainer.strategy == "ddp"
    assert config.trainer.default_root_dir == "runs/slurm-77"
    assert environment["WANDB_RUN_ID"] == "slurm-77"
    assert options["signal"].startswith("SIGUSR1@")
    assert "requeue" in options
    assert options["ntasks-per-node"] == options["gpus-per-node"]


def test_the_gpulab_job_is_complete() -> None:
    job = json.loads((CLUSTER / "gpulab.json").read_text())
    assert {"name", "description", "request"} <= set(job)
    assert {"gpus", "cpus", "cpuMemoryGb"} <= set(job["request"]["resources"])
    docker = job["request"]["docker"]
    assert {"image", "command", "environment", "storage"} <= set(docker)
    shell, option, script = shlex.split(docker["command"])
    assert (shell, option) == ("bash", "-c")
    subprocess.run(["bash", "-n", "-c", script], check=True)
    (volume,) = docker["storage"]
    assert script.startswith(f"cd {volume['containerPath']}/")
    assert docker["environment"]["WANDB_DIR"].startswith(volume["containerPath"])


def test_what_the_dockerfile_copies_is_in_the_repository_and_in_its_context() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    sources = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert len(sources) == 5
    assert [source for source in sources if not (ROOT / source).exists()] == []
    context = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in context if line.startswith("!")} == set(sources)


def test_the_commands_in_the_comments_parse() -> None:
    texts = [path.read_text() for path in (*CLUSTER.iterdir(), *(ROOT / "configs").glob("*.yaml"))]
    commands = sorted({match for text in texts for match in re.findall(r"\bkpd (fit(?: --config \S+\.yaml)+)", text)})
    assert len(commands) >= 2
    for command in commands:
        words = [
            str(ROOT / "configs" / Path(word).name) if word.endswith(".yaml") else word for word in command.split()
        ]
        parse(["kpd", *words])


def test_every_file_is_explained() -> None:
    text = (CLUSTER / "README.md").read_text()
    headings = re.findall(r"^## `(\S+)`", text, flags=re.M)
    files = {path.name for path in CLUSTER.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    assert set(headings) == files
