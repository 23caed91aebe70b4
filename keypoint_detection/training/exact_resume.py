"""Add what Lightning's checkpoints lack, so that a resumed run ends exactly like one that was never stopped."""

import copy
import logging
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from keypoint_detection.lightning_internals import (
    count_last_step,
    find_epoch_sums,
    find_metrics,
    forget_marked_batch,
    is_between_steps,
    is_in_validation,
    is_validation_due,
    is_validation_scheduled,
    mark_validation_due,
    restore_epoch_sums,
)
from keypoint_detection.training.checkpointing import forget_later_checkpoints

logger = logging.getLogger(__name__)

RESUME_KEY = "resume"


class ExactResume(Callback):
    """Save everything else that determines how training continues, and restore it when a run is resumed.

    This includes the random generators of every process, the gradients accumulated since the last step, and the metrics
    on which callbacks decide at the end of an epoch. A validation that was due or under way starts again from the
    beginning. A validation that only took place because of a stop does not count for `EarlyStopping`.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self._is_validating = False
        self._undecided: list[tuple[EarlyStopping, dict[str, Any]]] = []

    # --- saving ------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state; every process takes part."""
        if trainer.state.fn != "fit":
            return
        if (has_begun := is_in_validation(trainer)) or is_validation_due(trainer):
            mark_validation_due(checkpoint, has_begun)
        elif trainer.validating and not is_validation_scheduled(trainer):
            count_last_step(checkpoint)
        if self._is_validating:
            _exchange_averages(trainer, checkpoint)
        _drop_functions(checkpoint)
        gradients = {} if is_between_steps(trainer) else _read_gradients(pl_module)
        epoch_sums = {} if trainer.is_last_batch else find_epoch_sums(trainer)
        own = {"generators": _read_generators(), "gradients": gradients, "epoch_sums": epoch_sums}
        checkpoint[RESUME_KEY] = {
            "processes": _gather(own),
            "metrics": {name: value.detach().cpu() for name, value in find_metrics(trainer).items()},
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
        }

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the model has the weights of averaging callbacks, and record the state of EarlyStopping."""
        self._is_validating = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self._is_validating:
            forget_marked_batch(trainer)
        if self._is_validating and not is_validation_scheduled(trainer):
            self._undecided = [(one, one.state_dict()) for one in _find(trainer, EarlyStopping)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that they have removed them again."""
        self._is_validating = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make EarlyStopping forget a validation that an uninterrupted run would not have."""
        undecided, self._undecided = self._undecided, []
        for callback, state in undecided:
            callback.load_state_dict(state)

    # --- resuming ----------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training starts, and the patience set for this run."""
        if trainer.state.fn != "fit":
            return
        self._restored = checkpoint.get(RESUME_KEY)
        for callback in _find(trainer, EarlyStopping):
            if (state := checkpoint["callbacks"].get(callback.state_key)) is not None:
                state["patience"] = callback.patience
        for callback in _find(trainer, ModelCheckpoint):
            if (state := checkpoint["callbacks"].get(callback.state_key)) is not None:
                callback.current_score = state["current_score"]  # Lightning saves it only

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the state."""
        if self._restored is None:
            return
        forget_later_checkpoints(trainer)
        trainer.callback_metrics.update(
            {name: value.to(pl_module.device) for name, value in self._restored["metrics"].items()}
        )
        _begin_averaging(trainer, pl_module)
        trainer.accumulate_grad_batches = self._restored["accumulate_grad_batches"]
        _stop_again(trainer)
        processes = self._restored["processes"]
        if len(processes) != trainer.world_size:
            logger.warning(
                "The checkpoint is from a run with %d processes; with %d, random numbers differ from those of a run "
                "that was never stopped.",
                *(len(processes), trainer.world_size),
            )
            self._restored = None
            return
        own = processes[trainer.global_rank]
        for name, parameter in pl_module.named_parameters():
            if name in own["gradients"]:
                parameter.grad = own["gradients"][name].to(parameter.device)
        _set_generators(own["generators"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add the values that the epoch had logged before training was stopped."""
        if self._restored is not None:
            restore_epoch_sums(trainer, self._restored["processes"][trainer.global_rank]["epoch_sums"])
            self._restored = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add nothing to the next epoch."""
        self._restored = None


def _find(trainer: Trainer, kind: type[Any]) -> list[Any]:
    return [one for one in trainer.callbacks if isinstance(one, kind)]  # type: ignore[attr-defined]


def _begin_averaging(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make SWA set its learning rates, and begin its extra epoch; Lightning does so only at the start of an epoch."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    epoch, is_begun = trainer.current_epoch, progress.ready > progress.processed
    for callback in _find(trainer, StochasticWeightAveraging):
        end = callback.swa_end
        epochs = [min(epoch, end)]
        if epoch > end + 1 or (epoch > end and is_begun):
            epochs.append(end + 1)
        # In the extra epoch it also starts from averages and without statistics: those in the checkpoint are more
        # advanced.
        state = copy.deepcopy(pl_module.state_dict())
        for progress.completed in epochs:
            callback.on_train_epoch_start(trainer, pl_module)
        progress.completed = epoch
        pl_module.load_state_dict(state)


def _stop_again(trainer: Trainer) -> None:
    """Stop a run that EarlyStopping had ended, unless its patience has been increased."""
    for callback in _find(trainer, EarlyStopping):
        is_over = callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED
        if callback.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            is_over = callback.wait_count >= callback.patience
        if is_over:
            logger.warning(
                "EarlyStopping had ended this run; to continue, increase its patience or leave it out of "
                "trainer.callbacks."
            )
            trainer.should_stop = True


def _exchange_averages(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Undo in a checkpoint the change that a weight-averaging callback makes for the duration of a validation."""
    if _find(trainer, WeightAveraging):
        names = ("state_dict", "current_model_state")
        checkpoint[names[0]], checkpoint[names[1]] = checkpoint[names[1]], checkpoint[names[0]]


def _drop_functions(checkpoint: dict[str, Any]) -> None:
    """Leave out functions held by schedules of older torch versions: a file that names one would be refused."""
    states = [state.get("scheduler_state") for state in checkpoint["callbacks"].values() if isinstance(state, dict)]
    for state in (*states, *checkpoint["lr_schedulers"]):
        for name in [name for name, value in (state or {}).items() if callable(value)]:
            del state[name]


def _read_gradients(model: LightningModule) -> dict[str, Tensor]:
    return {name: one.grad.detach().cpu() for name, one in model.named_parameters() if one.grad is not None}


def _read_generators() -> dict[str, Any]:
    """Return the states of this process's random generators in a form that a checkpoint can hold."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
    }


def _set_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002


def _gather(own: dict[str, Any]) -> list[dict[str, Any]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    states: list[dict[str, Any]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(states, own)
    return states
