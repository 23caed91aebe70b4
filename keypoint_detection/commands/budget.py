"""The default length of a training: a number of optimiser steps, whatever the number of images."""

import logging

from jsonargparse import Namespace

__all__ = ["fill_in_budget"]

logger = logging.getLogger(__name__)

# An epoch of 20 images is two steps, one of 60 000 images is thousands; what a network learns depends on steps. This
# many were enough on data sets of 20 to 400 images.
DEFAULT_STEPS = 1000
# How often a training measured in steps validates.
N_VALIDATIONS = 25


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
    if counts_steps and trainer.val_check_interval is None and trainer.check_val_every_n_epoch == 1:
        trainer.check_val_every_n_epoch = None
        trainer.val_check_interval = max(1, trainer.max_steps // N_VALIDATIONS) * trainer.accumulate_grad_batches
