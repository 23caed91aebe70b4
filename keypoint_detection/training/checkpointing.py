"""Choose which checkpoints to keep, write them safely, and find the best one."""

import math
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse.typing import ClosedUnitInterval
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from keypoint_detection.checkpoints.files import VALIDATION_KEY, CheckpointError, find_intact, read_checkpoint
from keypoint_detection.checkpoints.writing import CheckpointWriteError, remove_leftovers, write_checkpoint
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.lightning_internals import is_validation_scheduled
from keypoint_detection.metrics.catalogue import OVERALL_METRICS, Metric
from keypoint_detection.metrics.report import EvaluationReport

# Bootstrap resamples that decide whether an earlier checkpoint is certain to be better.
N_RESAMPLES = 1000


class BestCheckpoint(ModelCheckpoint):
    """Keep the state of a training that is worth using as `best.ckpt`: the latest, unless an earlier one was better.

    With few validation images, the best of many validations is a lucky one, on other images often worse than the last,
    whose learning rate has come to rest. An earlier state is therefore kept only if it is certain to be better.

    Args:
        monitor: the validation metric that decides.
        mode: whether a higher value is better (`max`) or a lower one (`min`).
        certainty: the share of the bootstrap resamples of the validation images in which the best state so far must be
            better than a later one for that one not to replace it. 0 keeps the best of all validations, the latest of
            equals; so do metrics of single channels and `val/mAP_smoothed`.
    """

    def __init__(
        self, monitor: str = "val/mAP", mode: Literal["max", "min"] = "max", certainty: ClosedUnitInterval = 0.975
    ) -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best", enable_version_counter=False)
        self.certainty = float(certainty)
        # The best validation so far, which may be better than that of the checkpoint by chance.
        self._peak: dict[str, Any] | None = None

    @property
    def prefers_latest(self) -> bool:
        """Whether a later state replaces an earlier one unless that is certain to be better."""
        return self.certainty > 0 and self._metric is not None

    @property
    def _metric(self) -> Metric | None:
        return OVERALL_METRICS.get(str(self.monitor).removeprefix("val/"))

    @property
    def peak_score(self) -> float | None:
        """The best value so far; None if it is that of the checkpoint."""
        return None if self._peak is None else float(self._peak["score"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the metric is known: a resumed run can end an epoch before it has measured anything."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Decide whether to save; a validation that only a stop causes is not compared."""
        model, metric = trainer.lightning_module, self._metric
        if not self.certainty or metric is None or not isinstance(model, KeypointDetector):
            return self._is_best(trainer, current)
        rows = (model.latest_validation or {}).get("rows")
        if not rows or current is None or current.isnan():
            return self._is_best(trainer, current)
        if self.best_model_score is not None and not is_validation_scheduled(trainer):
            return False
        is_worse = False
        if self._peak is None or not _is_better(float(self._peak["score"]), float(current), self.mode):
            self._peak = {"score": current.detach().cpu(), "rows": rows}
        else:
            peak, latest = (model.val_metrics.pool([one]) for one in (self._peak["rows"], rows))
            share = peak.share_surpassing(latest, metric, N_RESAMPLES, seed=0)
            is_worse = share >= self.certainty
        return bool(trainer.strategy.reduce_boolean_decision(not is_worse))

    def _is_best(self, trainer: Trainer, current: Tensor | None) -> bool:
        """Whether a value is the best, or equal to it in a validation that is due, such as an mAP that is still 0."""
        is_equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return (is_equal and is_validation_scheduled(trainer)) or bool(super().check_monitor_top_k(trainer, current))

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning keeps, and the best validation so far."""
        return {**super().state_dict(), "peak": self._peak}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what a checkpoint has; those of older versions do not have the best validation."""
        super().load_state_dict(state_dict)
        self._peak = state_dict.get("peak")
        if self._peak is not None:
            self._peak = {"score": torch.as_tensor(self._peak["score"]), "rows": dict(self._peak["rows"])}


class ChosenCheckpoint(NamedTuple):
    """The best checkpoint of a run, according to the callback that chose it.

    Attributes:
        path: the file; None before the first one.
        monitor: the metric that decides.
        mode: whether the lowest (`min`) or the highest value (`max`) is best.
        score: its value for that file; None before the first one.
        peak: its best value so far; None before the first one.
        prefers_latest: whether a later state replaces it unless it is certain to be worse.
    """

    path: Path | None
    monitor: str
    mode: str
    score: float | None
    peak: float | None
    prefers_latest: bool

    def is_surpassed_by(self, value: float) -> bool:
        """Whether a value of the metric is better than all before; NaN never is."""
        return not math.isnan(value) and (self.peak is None or _is_better(value, self.peak, self.mode))


def _is_better(value: float, other: float, mode: str) -> bool:
    return value > other if mode == "max" else value < other


class MeasuredCheckpoint(NamedTuple):
    """A validation read back from a checkpoint.

    Attributes:
        epoch: the epoch that was measured, counted from 1.
        step: optimiser steps taken by then.
        report: the report, without the measurements that it was computed from.
        rows: the data from which `KeypointMetrics.pool` computes the report; empty in checkpoints of older versions.
    """

    epoch: int
    step: int
    report: EvaluationReport
    rows: dict[str, Tensor]

    def defined_numbers(self) -> dict[str, float]:
        """Return the numbers of the report that are defined, by their names in `as_scalars`."""
        return {name: value for name, value in self.report.as_scalars().items() if math.isfinite(value)}


def find_best_checkpoint(trainer: Trainer) -> ChosenCheckpoint | None:
    """Find the best checkpoint of a run; None if no callback chooses one.

    The first callback that monitors a metric chooses, whichever further ones there are: by default `BestCheckpoint`.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            score = None if callback.best_model_score is None else float(callback.best_model_score)
            path = Path(callback.best_model_path) if callback.best_model_path else None
            peak = callback.peak_score if isinstance(callback, BestCheckpoint) else None
            is_latest = isinstance(callback, BestCheckpoint) and callback.prefers_latest
            chosen = (path, callback.monitor, callback.mode, score)
            return ChosenCheckpoint(*chosen, score if peak is None else peak, is_latest)
    return None


def describe_choice(trainer: Trainer, step: int) -> str:
    """Say what the best checkpoint was chosen by, and what that means for its errors on other images.

    Args:
        trainer: the trainer after the training.
        step: optimiser steps that the checkpoint was trained for.
    """
    best = find_best_checkpoint(trainer)
    assert best is not None
    if not best.prefers_latest:
        return f"best.ckpt has the best {best.monitor} of all validations, so expect larger errors on other images."
    if step >= trainer.global_step:
        return "best.ckpt is the final state: these images did not choose it."
    return (
        f"best.ckpt is of step {step}: every later state was certain to be worse in {best.monitor}. These images chose "
        "it, so expect slightly larger errors on others."
    )


def read_best_validation(trainer: Trainer) -> MeasuredCheckpoint | None:
    """Read the validation stored in the best checkpoint; None if there is none.

    Several callbacks call this at the end of training; only the first has to wait for the file.
    """
    best = find_best_checkpoint(trainer)
    if best is None or best.path is None or not best.path.is_file():
        return None
    return _read_validation(best.path, best.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_validation(path: Path, changed_ns: int) -> MeasuredCheckpoint | None:
    """Read the validation in a checkpoint, once for each version of the file."""
    validation = read_checkpoint(str(path)).get(VALIDATION_KEY)
    if validation is None:
        return None
    try:
        report = EvaluationReport.from_state(validation["report"])
    except (TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{path}: its validation cannot be read ({error}).") from error
    # Copies, because the rows outlive the call and would keep the whole file mapped.
    rows = {name: values.clone() for name, values in validation.get("rows", {}).items()}
    return MeasuredCheckpoint(validation["epoch"], validation["step"], report, rows)


class LastCheckpoint(ModelCheckpoint):
    """Keep the latest state of training as `last.ckpt`, so that it can be resumed.

    It is written after every validation, whatever the result, and after every epoch of training without validation.
    Every run has one.
    """

    def __init__(self) -> None:
        # At the end of an epoch, Lightning counts it as done, even if training stopped in the middle of it.
        super().__init__(
            filename=ModelCheckpoint.CHECKPOINT_NAME_LAST, enable_version_counter=False, save_on_train_epoch_end=False
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the partial checkpoints left by a killed process."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero and self.dirpath is not None:
            remove_leftovers(Path(self.dirpath))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save here if no validation triggers a save."""
        if not trainer.enable_validation:
            super().on_validation_end(trainer, pl_module)


def find_last_checkpoint(trainer: Trainer) -> LastCheckpoint | None:
    """Find the callback that keeps `last.ckpt`; None if checkpoints are switched off."""
    return next((one for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint)), None)


def forget_later_checkpoints(trainer: Trainer) -> None:
    """Let a resumed run replace files that it had already written after the checkpoint that it resumes from.

    Otherwise Lightning, which never overwrites a file that its callback does not know, would keep both, the new one as
    `name-v1.ckpt`. Checkpoints of other runs, and earlier ones of this run, stay.

    Args:
        trainer: the trainer, whose state has been restored.
    """
    last = find_last_checkpoint(trainer)
    if last is None or last.dirpath is None:
        return
    folder = Path(last.dirpath).resolve()
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath:
            known = {callback.best_model_path, callback.last_model_path, *callback.best_k_models}
            paths = Path(callback.dirpath).rglob(f"*{callback.FILE_EXTENSION}") if trainer.is_global_zero else ()
            later = {
                str(path) for path in paths if _is_later(path, trainer.global_step, folder, last.state_key)
            } - known
            _let_replace(callback, trainer.strategy.broadcast(later - known))


def _is_later(path: Path, step: int, folder: Path, last_key: str) -> bool:
    """Whether a checkpoint belongs to the run whose `last.ckpt` is in a folder, and is not from before a step.

    A checkpoint with only weights belongs to the run whose folder it is in.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # noqa: TID251
        is_inside = path.resolve().is_relative_to(folder.parent)
        is_own = is_inside or Path(content["callbacks"][last_key]["dirpath"]).resolve() == folder
        return bool(is_own and content["global_step"] >= step)
    except Exception:  # noqa: BLE001  damaged files and those of other programs are not touched
        return False


def _let_replace(callback: ModelCheckpoint, paths: set[str]) -> None:
    """Make a callback treat files as absent until it has written them."""
    file_exists = callback.file_exists

    def exists(path: _PATH, trainer: Trainer) -> bool:
        if path in paths:
            paths.remove(str(path))
            return False
        return file_exists(path, trainer)

    callback.file_exists = exists  # type: ignore[method-assign, assignment]


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints completely or not at all, and check those that are read.

    Lightning's own method goes through the temporary folder, which is often on another disk: it then copies over the
    previous file, and a process killed in the middle leaves neither. URLs are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointWriteError: it cannot be written; the message says which one is left.
        """
        if _is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_checkpoint(checkpoint, Path(path))
        except CheckpointWriteError as error:
            left = next(find_intact(Path(path).parent), None)
            advice = (
                f" {left} is intact: `kpd fit --ckpt_path={shlex.quote(str(left))}` resumes from it."
                if left is not None
                else ""
            )
            raise CheckpointWriteError(f"{error}{advice}") from error

    def load_checkpoint(self, path: _PATH, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        if not _is_remote(path):
            read_checkpoint(str(path))
        # Not the one just read: it is memory-mapped, and its disk would be needed during the whole training.
        loaded: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        return loaded


def _is_remote(path: _PATH) -> bool:
    return "://" in str(path)
