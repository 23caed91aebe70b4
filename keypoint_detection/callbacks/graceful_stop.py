"""End a training cleanly when asked to: by Ctrl-C, a sweep's agent or a cluster."""

import logging
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from keypoint_detection.callbacks.checkpointing import find_last_checkpoint
from keypoint_detection.callbacks.run_folder import find_run_folder
from keypoint_detection.checkpoints.files import CHECKPOINT_FOLDER
from keypoint_detection.parsing.internals import cluster_environment, drop_minimum_length

__all__ = ["GracefulStop"]

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A process ended by a signal exits with this plus the number of the signal.
SIGNAL_EXIT_BASE = 128

_Handler = Callable[[int, FrameType | None], Any] | int | None


class GracefulStop(Callback):
    """Answer SIGINT (Ctrl-C) and SIGTERM with a checkpoint, one validation and a normal end.

    `last.ckpt` is written as soon as the current step is done; then the training validates once, so that its metrics
    exist, and ends. A second signal ends it at once, without losing anything. On SLURM with automatic requeueing,
    SIGTERM is left to Lightning.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, _Handler] = {}
        self._has_saved = False
        self._saved_path: Path | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 plus the number of the signal; 0 in a sweep, whose agent takes anything else for a failure."""
        if self.signal_number is None or os.environ.get("WANDB_SWEEP_ID"):
            return 0
        return SIGNAL_EXIT_BASE + self.signal_number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle the signals from here on."""
        environment = cluster_environment(trainer)
        is_requeued = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        for number in SIGNALS:
            if number == signal.SIGTERM and is_requeued:
                continue
            try:
                self._previous[number] = signal.signal(number, self._note_signal)
            except ValueError:
                return  # not in the main thread, e.g. in a notebook's worker: signals go elsewhere

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        name = signal.Signals(number).name
        if getattr(rank_zero_only, "rank", 0) == 0:
            logger.warning("%s: saving a checkpoint, validating and stopping. A second signal stops at once.", name)
        self._stop_listening()

    def _stop_listening(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End after this batch if any process received a signal."""
        self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End after a validation during which a signal came."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        # In the middle of a step, the gradients of its first batches would be lost.
        if not _is_between_steps(trainer):
            return
        is_asked = self.signal_number is not None
        if trainer.world_size > 1:
            is_asked = trainer.strategy.reduce_boolean_decision(is_asked, all=False)
        if is_asked and not self._has_saved:
            self._save(trainer)
            # Whoever stops a training no longer wants its minimum length.
            drop_minimum_length(trainer)
            trainer.should_stop = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what a second signal, or one that ended a worker process, would otherwise lose."""
        if (isinstance(exception, SIGTERMException) or trainer.received_sigterm) and self.signal_number is None:
            self.signal_number = signal.SIGTERM  # it came before training began, to Lightning's own handler
        is_training = trainer.state.fn == "fit"
        if is_training and self.signal_number is not None and not self._has_saved and trainer.world_size == 1:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers."""
        self._stop_listening()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the signal handlers after an exception too."""
        self._stop_listening()

    def _save(self, trainer: Trainer) -> None:
        self._has_saved = True
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last = find_last_checkpoint(trainer)
        folder = last.dirpath if last is not None and last.dirpath else find_run_folder(trainer) / CHECKPOINT_FOLDER
        path = Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        if trainer.is_global_zero:
            self._saved_path = path
            logger.warning("Saved %s.", path)

    def say_how_to_resume(self) -> None:
        """Show the command that resumes a stopped training; the command line does so last."""
        if self._saved_path is not None:
            logger.warning("To resume: kpd fit --ckpt_path=%s", shlex.quote(str(self._saved_path)))


def _is_between_steps(trainer: Trainer) -> bool:
    """Whether the optimiser has used every batch so far; not so while gradients are accumulated."""
    return trainer.is_last_batch or (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
