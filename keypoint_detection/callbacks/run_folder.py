"""The folder of a run: its resolved config, checkpoints, pictures and results, side by side."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import Logger

from keypoint_detection.checkpoints.specifications import as_plain

__all__ = ["RunFolder", "run_folder"]

DEFAULT_ROOT = "runs"


class RunFolder(SaveConfigCallback):
    """Give every run a folder of its own and save the resolved config in it.

    The folder is `<default_root_dir>/<date>-<time>-<command>`; several runs that start in the same second get numbers.
    Checkpoints go to its `checkpoints/` unless the checkpoint callback names another place. The config also goes to the
    loggers as hyper-parameters, defaults included.
    """

    path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the folder on the first process and tell its name to the others."""
        if self.path is None:
            path = _make_folder(Path(self._root(trainer)), _command(trainer)) if trainer.is_global_zero else None
            self.path = Path(trainer.strategy.broadcast(str(path)))
        for callback in trainer.checkpoint_callbacks if stage == "fit" else ():
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.path / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def _root(self, trainer: Trainer) -> str:
        # Lightning fills a root that was left out with the working folder; the config still says that it was left out.
        configured = self.config.trainer.default_root_dir
        return str(trainer.default_root_dir) if configured else DEFAULT_ROOT

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the resolved config and give it to the loggers; called on the first process."""
        assert self.path is not None
        text = self.parser.dump(self.config, skip_none=False)
        (self.path / self.config_filename).write_text(text, encoding="utf-8")
        hyperparameters = {
            key: value
            for key, value in self.config.as_dict().items()
            if key in ("model", "data", "trainer", "seed_everything")
        }
        for logger in trainer.loggers:
            if isinstance(logger, Logger):
                logger.log_hyperparams(_as_loggable(hyperparameters))


def run_folder(trainer: Trainer) -> Path:
    """Find where a run keeps its files; without the command line, Lightning's own folder for it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder) and callback.path is not None:
            return callback.path
    return Path(trainer.log_dir or trainer.default_root_dir)


def _command(trainer: Trainer) -> str:
    assert trainer.state.fn is not None
    return str(trainer.state.fn.value)


def _make_folder(root: Path, command: str) -> Path:
    """Make a new folder; `mkdir` itself decides which of several runs gets a name."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{command}"
    number = 1
    while True:
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def _as_loggable(value: Any) -> Any:
    """Turn what a parsed config holds into what every logger can store; what has no plain form becomes a text."""
    plain = as_plain(value)
    return json.loads(json.dumps(plain, default=str))
