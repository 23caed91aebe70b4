"""Report progress without a progress bar: a line at each validation."""

import logging
import math
import time

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ProgressBar
from rich.console import Console

from keypoint_detection.checkpoints.files import SMOOTHED_KEY
from keypoint_detection.lightning_internals import seconds_left
from keypoint_detection.training.checkpointing import find_best_checkpoint

logger = logging.getLogger(__name__)

# The metrics on every line, and the names of others by which the best checkpoint can be chosen.
SHOWN = ("val/loss", "val/mAP", "val/error_px/median")
NAMES = {f"val/{SMOOTHED_KEY}": "averaged mAP"}
# The precision in which everything is computed in at least 32 bits.
FULL_PRECISION = "32-true"
SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600


class ProgressLines(Callback):
    """Write a line at each validation if there is no terminal, as in a cluster's log file, or no progress bar.

    It gives the epoch and step, the losses, mAP and median error, the metric that chooses the best checkpoint, whether
    it is the best so far, and the time left. At the start of training, a line says if the processor would be faster in
    another precision; at the end, why training ended early, if it did.
    """

    def __init__(self) -> None:
        self._started_at = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and name the faster precision."""
        self._started_at, self._first_step = time.monotonic(), trainer.global_step
        for callback in _find_early_stopping(trainer):
            callback.stopping_reason_message = None  # set by the run that is resumed
        if trainer.is_global_zero and trainer.precision == FULL_PRECISION and _has_fast_bfloat16():
            device = "GPU" if trainer.strategy.root_device.type == "cuda" else "processor"
            logger.info("This %s has fast bf16: --trainer.precision=bf16-mixed would be about twice as fast.", device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line."""
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not (is_training and trainer.is_global_zero) or _shows_progress(trainer):
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        error, share = values.get("val/error_px/median", math.nan), values.get("val/detection_rate", 1.0)
        # Errors are measured on the points found: without their share, a detector that finds few would look too good.
        of_some = f" ({share:.0%} found)" if share < 1 else ""
        shown = [
            f"epoch {trainer.current_epoch + 1}",
            f"step {trainer.global_step}",
            f"loss {values.get('train/loss', math.nan):.4g} (val {values.get('val/loss', math.nan):.4g})",
            f"mAP {values.get('val/mAP', math.nan):.3f}",
            "no point found" if math.isnan(error) else f"median error {error:.2f} px{of_some}",
        ]
        # Checkpoint callbacks are called last: they still hold the best score before this validation.
        best = find_best_checkpoint(trainer)
        if best is not None:
            value = values.get(best.monitor, math.nan)
            if best.monitor not in SHOWN and not math.isnan(value):
                shown.append(f"{NAMES.get(best.monitor, best.monitor)} {value:.3g}")
            if best.is_surpassed_by(value):
                shown.append("best so far")
        left = self._seconds_left(trainer)
        if left is not None:
            shown.append(f"{_write_duration(left)} left")
        logger.info("%s", ", ".join(shown))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log why training ended early, if a callback ended it."""
        n_all = float(trainer.estimated_stepping_batches)
        if not trainer.is_global_zero or trainer.global_step >= n_all:
            return
        of_all = "" if math.isinf(n_all) else f" of {n_all:.0f}"
        for callback in _find_early_stopping(trainer):
            if reason := callback.stopping_reason_message:
                reason = reason.removesuffix(" Signaling Trainer to stop.")
                logger.info("EarlyStopping ended training at step %d%s. %s", trainer.global_step, of_all, reason)
        if seconds_left(trainer) <= 0:
            logger.info("The time limit ended training at step %d%s.", trainer.global_step, of_all)

    def _seconds_left(self, trainer: Trainer) -> float | None:
        """Estimate the time left from the steps so far and the time limit; None if training has no end."""
        n_done, n_all = trainer.global_step - self._first_step, float(trainer.estimated_stepping_batches)
        left = seconds_left(trainer)
        if n_done:
            left = min(left, (time.monotonic() - self._started_at) / n_done * (n_all - trainer.global_step))
        return None if math.isinf(left) else max(0.0, left)


def _find_early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]


def _shows_progress(trainer: Trainer) -> bool:
    has_bar = any(isinstance(one, ProgressBar) for one in trainer.callbacks)  # type: ignore[attr-defined]
    return has_bar and Console().is_terminal


def _write_duration(seconds: float) -> str:
    """Format a duration in suitable units.

    >>> _write_duration(75), _write_duration(4000)
    ('1 min 15 s', '1 h 06 min')
    """
    seconds = round(seconds)
    if seconds >= SECONDS_PER_HOUR:
        return f"{int(seconds // SECONDS_PER_HOUR)} h {int(seconds % SECONDS_PER_HOUR // SECONDS_PER_MINUTE):02d} min"
    minutes = int(seconds // SECONDS_PER_MINUTE)
    return f"{f'{minutes} min ' if minutes else ''}{seconds % SECONDS_PER_MINUTE} s"


def _has_fast_bfloat16() -> bool:
    """Whether this machine multiplies in bfloat16 natively: GPUs from Ampere on, processors with AMX or AVX512-bf16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Torch reports this for processors from 2.10 on.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
