"""The default length of a training: a number of optimiser steps, whatever the number of images."""

import logging
import math

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from keypoint_detection.counting import count_in_words

__all__ = ["check_validation_interval", "fill_in_budget"]

logger = logging.getLogger(__name__)

# An epoch of 20 images is two steps, one of 60 000 images is thousands; what a network learns depends on steps. This
# many were enough on data sets of 20 to 400 images.
DEFAULT_STEPS = 1000
# How often a training measured in steps validates.
N_VALIDATIONS = 25


def check_validation_interval(trainer: Trainer, n_images: int, batch_size: int) -> None:
    """Refuse to count batches within an epoch that has fewer of them.

    Args:
        trainer: of the training.
        n_images: number of images to train on.
        batch_size: images per batch and process.

    Raises:
        ValueError: a validation would never come.
    """
    interval = trainer.val_check_interval
    n_batches = math.ceil(n_images / (batch_size * trainer.world_size))
    if trainer.check_val_every_n_epoch is not None and isinstance(interval, int) and interval > n_batches:
        batches = count_in_words(n_batches, "batch", "batches")
        raise ValueError(
            f"trainer.val_check_interval is {interval}, but an epoch has only {batches}. Give "
            "--trainer.check_val_every_n_epoch=null to count batches across epochs."
        )


def fill_in_budget(trainer: Namespace) -> None:
    """Fill in the length of a training if it was left out, and how often it validates, and log that.

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
    counts_steps = trainer.max_epochs is None and trainer.max_steps > 0
    interval = trainer.val_check_interval
    if counts_steps and trainer.check_val_every_n_epoch == 1 and isinstance(interval, int):
        # A training that counts steps counts them from one validation to the next, too, whatever an epoch is.
        trainer.check_val_every_n_epoch = None
    if counts_steps and interval is None and trainer.check_val_every_n_epoch == 1:
        trainer.check_val_every_n_epoch = None
        trainer.val_check_interval = -(-trainer.max_steps // N_VALIDATIONS) * trainer.accumulate_grad_batches
