"""The length of training: by default a fixed number of optimiser steps, whatever the number of images."""

import logging
import math
from datetime import timedelta

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from keypoint_detection.counting import count_in_words

logger = logging.getLogger(__name__)

# An epoch of 20 images is two steps, one of 60,000 images is thousands; what a network learns depends on steps. This
# many were enough on data sets of 20 to 400 images.
DEFAULT_STEPS = 1000
# How many times training measured in steps or by the clock validates, and the minimum number of steps and seconds
# between: fewer change little.
N_VALIDATIONS, MIN_STEPS_BETWEEN, MIN_SECONDS_BETWEEN = 25, 10, 5


def check_batches(trainer: Trainer, n_train: int, n_val: int, batch_size: int) -> None:
    """Compare the length and the intervals of training with the number of batches in the data.

    A minimum length beyond the maximum only causes a warning.

    Args:
        trainer: the trainer.
        n_train: number of images to train on.
        n_val: number of images to validate on.
        batch_size: images per batch and process.

    Raises:
        ValueError: validation would never take place, or would have no batch.
    """
    n_batches = math.ceil(n_train / (batch_size * trainer.world_size))
    _require_due_validations(trainer, n_batches)
    _require_validated_batches(trainer, math.ceil(n_val / (batch_size * trainer.world_size)))
    limit = trainer.limit_train_batches
    n_used = min(n_batches, limit) if isinstance(limit, int) else max(1, int(n_batches * limit))
    _warn_of_minimum(trainer, math.ceil(n_used / trainer.accumulate_grad_batches))


def _require_due_validations(trainer: Trainer, n_batches: int) -> None:
    """Refuse a validation interval of more batches than an epoch has."""
    # A Trainer that validates at time intervals has no such attribute.
    interval = getattr(trainer, "val_check_interval", None)
    if trainer.check_val_every_n_epoch is not None and isinstance(interval, int) and interval > n_batches:
        batches = count_in_words(n_batches, "batch", "batches")
        raise ValueError(
            f"trainer.val_check_interval is {interval}, but an epoch has only {batches}. Give "
            "--trainer.check_val_every_n_epoch=null to count batches across epochs."
        )


def _require_validated_batches(trainer: Trainer, n_batches: int) -> None:
    """Refuse a share of the batches that leaves none to validate on; Lightning would blame another setting."""
    share = trainer.overfit_batches  # type: ignore[attr-defined]
    if n_batches and isinstance(share, float) and share > 0 and int(share * n_batches) == 0:
        raise ValueError(
            f"trainer.overfit_batches is {share:g}, which leaves none of "
            f"{count_in_words(n_batches, 'batch', 'batches')} to validate on. Give their number, e.g. "
            "--trainer.overfit_batches=1."
        )


def _warn_of_minimum(trainer: Trainer, steps_per_epoch: int) -> None:
    """Warn of a minimum length beyond the maximum."""
    max_epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    limits = {"max_epochs": max_epochs * steps_per_epoch, "max_steps": trainer.max_steps}
    ends = {name: math.inf if steps < 0 else steps for name, steps in limits.items()}
    end = min(ends, key=ends.__getitem__)
    minima = {"min_steps": trainer.min_steps or 0, "min_epochs": (trainer.min_epochs or 0) * steps_per_epoch}
    for name, steps in minima.items():
        if steps > ends[end]:
            logger.warning(
                "trainer.%s is %d, but trainer.%s=%d ends training after %s.",
                *(name, getattr(trainer, name), end, getattr(trainer, end), count_in_words(int(ends[end]), "step")),
            )


def fill_in_budget(trainer: Namespace) -> None:
    """Fill in the length of training if it was left out, and log that.

    Args:
        trainer: the parsed settings of the Trainer; changed in place.
    """
    if trainer.fast_dev_run or trainer.max_time is not None:
        return
    if trainer.max_epochs is None and trainer.max_steps == -1:
        trainer.max_steps = DEFAULT_STEPS
        logger.info(
            "Training for %d steps, since neither --trainer.max_steps nor --trainer.max_epochs is given.",
            DEFAULT_STEPS,
        )


def choose_validations(trainer: Namespace) -> dict[str, int | float | timedelta | None]:
    """Choose how often training validates if that was left out.

    It is not a setting of the run: longer training with the same settings validates equally many times, at longer
    intervals.

    Args:
        trainer: the parsed settings of the Trainer.

    Returns: The Trainer's arguments for it.
    """
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    counts_steps = trainer.max_epochs is None and trainer.max_steps > 0
    is_limited = trainer.fast_dev_run or trainer.max_time is not None
    counts_time = trainer.max_time is not None and not trainer.fast_dev_run and trainer.max_steps == -1
    if counts_time and trainer.max_epochs in (None, -1) and every == 1 and interval is None:
        seconds = Timer(trainer.max_time).time_remaining()
        assert seconds is not None
        between = timedelta(seconds=max(seconds / N_VALIDATIONS, MIN_SECONDS_BETWEEN))
        return {"check_val_every_n_epoch": None, "val_check_interval": between}
    if counts_steps and not is_limited and every == 1 and (interval is None or isinstance(interval, int)):
        # Training that counts steps also counts them between validations, whatever the length of an epoch.
        every = None
        if interval is None:
            n_steps = min(max(-(-trainer.max_steps // N_VALIDATIONS), MIN_STEPS_BETWEEN), trainer.max_steps)
            interval = n_steps * trainer.accumulate_grad_batches
    return {"check_val_every_n_epoch": every, "val_check_interval": interval}
