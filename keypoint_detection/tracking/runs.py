"""Record in a Weights & Biases run more than its metrics: its description, its files, the model."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from keypoint_detection.tracking.guarded_logger import going_on


def describe_run(logger: WandbLogger, description: Mapping[str, Any]) -> None:
    """Add values to the config of a run, by which runs can be filtered and grouped."""
    with going_on(logger, "the description of the run"):
        logger.experiment.config.update(dict(description), allow_val_change=True)


def summarise_by(logger: WandbLogger, metric: str, mode: str) -> None:
    """Make the summary of a run keep the best value of a metric, `min` or `max`, instead of the last."""
    with going_on(logger, f"the best {metric}"):
        logger.experiment.define_metric(metric, summary=mode, step_metric="trainer/global_step", step_sync=True)


def write_summary(logger: WandbLogger, name: str, values: Mapping[str, Any]) -> None:
    """Write values to the summary of a run, under a common name."""
    with going_on(logger, f"the summary {name}"):
        logger.experiment.summary[name] = dict(values)


def add_file(logger: WandbLogger, path: Path, name: str) -> None:
    """Copy a file to the files of a run; a disabled run (WANDB_MODE=disabled) has none."""
    with going_on(logger, f"the file {name}"):
        run = logger.experiment
        if Path(run.dir).is_dir():
            target = Path(run.dir).resolve() / name
            shutil.copyfile(path, target)
            run.save(str(target), base_path=str(target.parent), policy="now")


def send_model(logger: WandbLogger, path: Path, name: str | None, metadata: Mapping[str, Any]) -> None:
    """Send a checkpoint as an artifact.

    Args:
        logger: logger of the run that it comes from.
        path: the checkpoint.
        name: the artifact's name; None for that of the run.
        metadata: information about the model.
    """
    import wandb

    with going_on(logger, f"the model {path}"):
        run = logger.experiment
        artifact = wandb.Artifact(name or f"detector-{run.id}", type="model", metadata=dict(metadata))
        artifact.add_file(str(path), name="model.ckpt")
        run.log_artifact(artifact, aliases=["latest", "best"])
