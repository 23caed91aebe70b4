"""Send the best checkpoint to Weights & Biases as a model artifact."""

from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.tracking.runs import send_model
from keypoint_detection.tracking.tables import wandb_loggers
from keypoint_detection.training.checkpointing import ChosenCheckpoint, find_best_checkpoint, read_best_validation
from keypoint_detection.training.run_folder import find_saved_run


class ModelArtifact(Callback):
    """Send the best checkpoint to Weights & Biases at the end of training, under the alias `best`.

    It can then be used wherever a checkpoint is expected: `--ckpt_path=wandb://entity/project/NAME:best`. Channels,
    metrics and the whole config are in its metadata. Use it with `--trainer.callbacks+=ModelArtifact`.

    Args:
        name: the name of the artifact. Runs with the same name create versions of one model; by default, every run has
            its own model, `detector-` followed by the run's id.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the checkpoint of a run that has finished or was stopped."""
        self._send(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Send the best checkpoint of a run that failed."""
        if trainer.state.fn == "fit":
            self._send(trainer, pl_module)

    def _send(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = find_best_checkpoint(trainer)
        if best is None or best.path is None or not trainer.is_global_zero or not best.path.is_file():
            return
        for logger in wandb_loggers(trainer):
            send_model(logger, best.path, self.name, _metadata(trainer, pl_module, best))


def _metadata(trainer: Trainer, pl_module: LightningModule, best: ChosenCheckpoint) -> dict[str, Any]:
    metadata: dict[str, Any] = {"channels": pl_module.channels}
    if best.score is not None:
        metadata[best.monitor] = best.score
    validation = read_best_validation(trainer)
    if validation is not None:
        metadata["metrics"] = validation.defined_numbers()
        metadata["epoch"] = validation.epoch
    saved = find_saved_run(trainer)
    if saved is not None and saved.config_file is not None:
        metadata["config"] = yaml.safe_load(saved.config_file.read_text(encoding="utf-8"))
    return metadata
