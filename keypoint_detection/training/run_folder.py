"""The run folder: resolved config, checkpoints, images and results, side by side."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import Logger

from keypoint_detection.checkpoints.files import CHECKPOINT_FOLDER, find_run
from keypoint_detection.checkpoints.specifications import as_plain
from keypoint_detection.parsing.failures import note_run_folder
from keypoint_detection.training.optional_outputs import let_loggers_fail, optional_output
from keypoint_detection.training.run_lock import RunLock

logger = logging.getLogger(__name__)

DEFAULT_ROOT = "runs"


class SavedRun(SaveConfigCallback):
    """Give every run its own folder and save the resolved config in it.

    The folder is `<default_root_dir>/<date>-<time>-<command>`; runs that start in the same second are numbered. Resumed
    runs continue in the folder of their checkpoint. Checkpoints go to `checkpoints/` in it unless the checkpoint
    callback names another place. The config also goes to the loggers as hyperparameters, including defaults.
    """

    path: Path | None = None
    _text: str | None = None
    _lock: RunLock | None = None

    @property
    def config_file(self) -> Path | None:
        """The file of the resolved config; None before the run has a folder."""
        return None if self.path is None else self.path / self.config_filename

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the folder on the first process and send its name to the others; a trial run creates none."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.path is None:
            path = self._choose_folder(trainer) if trainer.is_global_zero else None
            self.path = Path(trainer.strategy.broadcast(str(path)))
        if stage == "fit" and trainer.is_global_zero:
            self._lock = self._lock or RunLock(self.path)
            with _unwritable_refused(self.path):
                self._lock.take()
            let_loggers_fail(trainer)
        for callback in trainer.checkpoint_callbacks if stage == "fit" else ():
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.path / CHECKPOINT_FOLDER)
        super().setup(trainer, pl_module, stage)

    def _choose_folder(self, trainer: Trainer) -> Path:
        resumed = self.config.get("ckpt_path") if _command(trainer) == "fit" else None
        return (resumed and find_run(resumed)) or _make_folder(Path(self._root(trainer)), _command(trainer))

    def _root(self, trainer: Trainer) -> str:
        # Lightning replaces a missing root with the working folder; the config still shows that it was left out.
        configured = self.config.trainer.default_root_dir
        return str(trainer.default_root_dir) if configured else DEFAULT_ROOT

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the resolved config and pass it to the loggers; called on the first process."""
        assert self.path is not None
        # The file reproduces the run from its start, so it does not say where this process resumed it.
        config = self.config.clone()
        config.ckpt_path = None
        self._text = self.parser.dump(config, skip_none=False)
        with _unwritable_refused(self.path):
            self._write_config()
        hyperparameters = {
            key: value
            for key, value in self.config.as_dict().items()
            if key in ("model", "data", "trainer", "seed_everything")
        }
        for logger in trainer.loggers:
            if isinstance(logger, Logger):
                logger.log_hyperparams(as_loggable(hyperparameters))

    def _write_config(self) -> None:
        assert self.path is not None
        assert self._text is not None
        (self.path / self.config_filename).write_text(self._text, encoding="utf-8")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the config again if the run folder was deleted: without it, the checkpoint could not be resumed."""
        if self._text is not None and self.config_file is not None and not self.config_file.is_file():
            with optional_output(trainer, "config file"):
                self.config_file.parent.mkdir(parents=True, exist_ok=True)
                self._write_config()

    def on_train_batch_end(self, *args: object) -> None:
        """Show other runs that this one is alive."""
        if self._lock is not None:
            self._lock.show_life()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other processes resume the run."""
        if self._lock is not None:
            self._lock.release()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Tell the checkpoint callbacks where their files are now, so that they can find the best one."""
        for callback in trainer.checkpoint_callbacks if _command(trainer) == "fit" else ():
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and state:
                folders = (Path(callback.dirpath), Path(str(trainer.ckpt_path)).parent)
                checkpoint["callbacks"][callback.state_key] = _move_checkpoints(state, *folders)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let others resume the run, and remove its folder if it did nothing; otherwise the traceback goes there."""
        if self._lock is not None:
            self._lock.release()
        if self.path is not None:
            note_run_folder(exception, self.path)
        if self.path is not None and trainer.is_global_zero and not trainer.global_step:
            contents = list(self.path.iterdir()) if self.path.is_dir() else []
            if [path.name for path in contents] == [self.config_filename]:
                contents[0].unlink()
                self.path.rmdir()


def find_run_folder(trainer: Trainer) -> Path:
    """Find the run folder; without the command line, the folder that Lightning uses."""
    run = find_saved_run(trainer)
    return run.path if run is not None and run.path is not None else Path(trainer.log_dir or trainer.default_root_dir)


def find_saved_run(trainer: Trainer) -> SavedRun | None:
    """Find the callback that manages the run folder; None without the command line."""
    return next((one for one in trainer.callbacks if isinstance(one, SavedRun)), None)  # type: ignore[attr-defined]


def _move_checkpoints(state: dict[str, Any], folder: Path, source: Path) -> dict[str, Any]:
    """Rewrite the paths in the state of a checkpoint callback to the files that are in `folder` now.

    Other paths are kept only if they are checkpoints below one of the two folders: the callback can delete and upload
    the files in its state, which the author of the checkpoint chose. If none are left, the next checkpoint saved is the
    best.

    Args:
        state: state from the checkpoint.
        folder: where the callback keeps its files.
        source: the folder of the checkpoint that is resumed.
    """

    def move(path: str) -> str:
        for one, known in ((folder / Path(path).name, folder), (Path(path), folder), (Path(path), source)):
            real = Path(os.path.realpath(one))
            is_below = real.is_relative_to(os.path.realpath(known))
            if is_below and real.is_file() and one.suffix == ModelCheckpoint.FILE_EXTENSION:
                return str(one)
        return ""

    kept = {there: score for path, score in state["best_k_models"].items() if (there := move(path))}
    moved = {**state, "dirpath": str(folder), "best_k_models": kept}
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        moved[name] = move(state[name])
    if state["best_k_models"] and not Path(moved["best_model_path"]).is_file():
        logger.warning(
            "The best checkpoint so far, %s, no longer exists; the best one from now on replaces it.",
            state["best_model_path"],
        )
        moved |= {"best_model_path": "", "best_model_score": None, "kth_best_model_path": "", "best_k_models": {}}
    return moved


def _command(trainer: Trainer) -> str:
    assert trainer.state.fn is not None
    return str(trainer.state.fn.value)


def _make_folder(root: Path, command: str) -> Path:
    """Create a new folder; `mkdir` itself decides which of several runs gets a name."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{command}"
    number = 1
    while True:
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            with _unwritable_refused(path):
                path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


@contextmanager
def _unwritable_refused(path: Path) -> Iterator[None]:
    """Refuse a run folder in which nothing can be written."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise MisconfigurationException(
            f"the run folder {path} cannot be written ({error.strerror}). Give another --trainer.default_root_dir."
        ) from error


def as_loggable(value: Any) -> Any:
    """Turn a value of a parsed config into a form that every logger can store, if necessary text."""
    plain = as_plain(value)
    return json.loads(json.dumps(plain, default=str))
