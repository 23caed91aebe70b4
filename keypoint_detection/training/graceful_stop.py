"""End training cleanly when asked to by Ctrl-C, a sweep's agent or a cluster."""

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

from keypoint_detection.checkpoints.files import CHECKPOINT_FOLDER
from keypoint_detection.checkpoints.trust import trust_words
from keypoint_detection.lightning_internals import (
    cluster_environment,
    drop_minimum_length,
    is_between_batches,
    is_between_steps,
)
from keypoint_detection.parsing.exit_codes import SIGNAL_EXIT_BASE
from keypoint_detection.ranks import outlive_parent
from keypoint_detection.training.checkpointing import find_last_checkpoint
from keypoint_detection.training.run_folder import find_run_folder, find_saved_run

logger = logging.getLogger(__name__)

# Clusters can announce the end of a job's time with SIGUSR1, which Windows does not have.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))

_Handler = Callable[[int, FrameType | None], Any] | int | None


class GracefulStop(Callback):
    """Respond to SIGINT (Ctrl-C), SIGTERM and SIGUSR1 with a checkpoint, one validation and a normal end.

    `last.ckpt` is written as soon as the current step is done; then the run validates once, so that it has metrics, and
    ends. A second signal ends it as soon as the checkpoint is written; a third immediately. On SLURM with automatic
    requeueing, Lightning saves and requeues, also after the current step, and handles SIGTERM itself.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, _Handler] = {}
        self._is_urgent = False
        self._is_alone = True
        self._requeue_signal: int | None = None
        self._is_to_requeue = False
        self._has_saved = False
        self._saved_path: Path | None = None
        self._trust = ""

    @property
    def exit_code(self) -> int:
        """0, or 128 plus the number of the signal; 0 in a sweep, whose agent treats anything else as a failure."""
        if self.signal_number is None or os.environ.get("WANDB_SWEEP_ID"):
            return 0
        return SIGNAL_EXIT_BASE + self.signal_number

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note that the processes are connected."""
        outlive_parent()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start handling the signals."""
        self._is_alone = trainer.world_size == 1
        environment = cluster_environment(trainer)
        handlers: dict[int, _Handler] = dict.fromkeys(SIGNALS, self._note_signal)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            del handlers[signal.SIGTERM]
            self._requeue_signal = environment.requeue_signal
            if self._requeue_signal is not None:
                handlers[self._requeue_signal] = self._note_requeue
        for number, handler in handlers.items():
            try:
                self._previous[number] = signal.signal(number, handler)
            except ValueError:
                return  # not in the main thread, e.g. in a notebook's worker, which gets no signals

    def _note_requeue(self, number: int, frame: FrameType | None) -> None:
        self._is_to_requeue = True

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            self._stop_listening()
            if self._has_saved or not self._is_alone:
                _end_at_once(number)
            else:
                self._is_urgent = True
            return
        self.signal_number = number
        name = signal.Signals(number).name
        if getattr(rank_zero_only, "rank", 0) == 0:
            logger.warning("%s: saving a checkpoint, validating and stopping. A second signal skips the rest.", name)

    def _stop_listening(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End after this batch if any process received a signal."""
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        """End in the middle of a validation if a second signal came; it is repeated when the run is resumed."""
        if self._is_urgent and trainer.state.fn == "fit":
            self._save(trainer)
            _end_at_once(self.signal_number)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End after a validation during which a signal came."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._requeue_signal is not None and _agree(trainer, self._is_to_requeue):
            self._is_to_requeue = False
            requeue = self._previous.get(self._requeue_signal)
            if callable(requeue):
                requeue(self._requeue_signal, None)
        # In the middle of a step, its first batches would be lost.
        if not is_between_steps(trainer) or not _agree(trainer, self.signal_number is not None) or self._has_saved:
            return
        self._save(trainer)
        if self._is_urgent:
            _end_at_once(self.signal_number)
            return
        # The minimum length no longer applies once the user stops training.
        drop_minimum_length(trainer)
        trainer.should_stop = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state that an impatient signal, or one that ended a worker process, would otherwise lose."""
        if (isinstance(exception, SIGTERMException) or trainer.received_sigterm) and self.signal_number is None:
            self.signal_number = signal.SIGTERM  # it came before training began, and went to Lightning's own handler
        is_training = trainer.state.fn == "fit"
        if not is_training or self.signal_number is None or self._has_saved or trainer.world_size > 1:
            return
        if is_between_batches(trainer):
            self._save(trainer)
        elif (last := find_last_checkpoint(trainer)) is not None and Path(last.best_model_path).is_file():
            logger.warning("Stopped in the middle of step %d, which no checkpoint can hold.", trainer.global_step + 1)
            self._saved_path = Path(last.best_model_path)

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
            saved = find_saved_run(trainer)
            settings = trainer.lightning_module.hparams if saved is None else saved.config.as_dict()
            self._trust = trust_words(settings)
            logger.warning("Saved %s.", path)

    def say_how_to_resume(self) -> None:
        """Show the command that resumes a stopped run; the command line does this last."""
        if self._saved_path is not None:
            logger.warning("To resume: kpd fit --ckpt_path=%s%s", shlex.quote(str(self._saved_path)), self._trust)


def _agree(trainer: Trainer, is_asked: bool) -> bool:
    """Whether any process was asked to stop; they must stop together."""
    if trainer.world_size == 1:
        return is_asked
    return trainer.strategy.reduce_boolean_decision(is_asked, all=False)


def _end_at_once(number: int | None) -> None:
    """Leave the end to the previous handlers of Python or Lightning."""
    signal.raise_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
