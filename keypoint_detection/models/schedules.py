"""The built-in learning-rate schedule, and checks of those from torch."""

import logging
import math

from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

logger = logging.getLogger(__name__)

# The share of training during which the learning rate rises: Adam's second moments need some steps to settle.
WARMUP_FRACTION = 0.05
# The learning rate at the end, as a share of the maximum: any lower, and steps would change nothing.
FINAL_FACTOR = 0.01
# Until this share of a time limit has passed, the number of steps in it is not estimated from any less.
SMALLEST_SHARE = 1e-3


def expect_steps(step: int, n_steps: float, share: float | None) -> float:
    """Estimate the number of steps of a training that a number of steps or a time limit ends, whichever comes first.

    Args:
        step: optimiser steps taken so far.
        n_steps: optimiser steps of the whole training; infinite if they do not end it.
        share: share of the time limit that has passed; None without a limit.

    >>> expect_steps(50, math.inf, 0.25), expect_steps(50, 100, 0.25), expect_steps(0, math.inf, 0.0)
    (200.0, 100, 1000.0)
    """
    return n_steps if share is None else min(n_steps, max(step, 1) / max(share, SMALLEST_SHARE))


def warmup_cosine(step: int, n_steps: float) -> float:
    """Compute the learning-rate factor: a linear rise, then half a cosine down to a hundredth.

    After Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, section 3, without restarts.

    Args:
        step: optimiser steps taken so far.
        n_steps: optimiser steps of the whole training; infinite if training has no end, in which case the factor stays
            1.

    >>> [round(warmup_cosine(step, 100), 2) for step in (0, 5, 100)]
    [0.2, 1.0, 0.01]
    """
    if math.isinf(n_steps):
        return 1.0
    n_warmup = max(1, round(WARMUP_FRACTION * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = min(1.0, (step - n_warmup) / max(1.0, n_steps - n_warmup))
    return FINAL_FACTOR + (1 - FINAL_FACTOR) * 0.5 * (1 + math.cos(math.pi * progress))


def check_length(scheduler: LRScheduler, n_epochs: float) -> None:
    """Compare the length that a schedule plans for with that of training, and warn if the schedule is longer.

    Args:
        scheduler: stepped once per epoch.
        n_epochs: epochs of training; infinite if it has no end.

    Raises:
        ValueError: the schedule would refuse to be stepped that often.
    """
    name = type(scheduler).__name__
    for setting in ("total_steps", "T_max"):
        planned = getattr(scheduler, setting, None)
        if planned is None or math.isinf(n_epochs):
            continue
        found = (
            f"model.lr_scheduler: {name} has {setting}={planned}, but it is stepped once per epoch, {n_epochs:g} times."
        )
        if isinstance(scheduler, OneCycleLR) and planned < math.floor(n_epochs):
            raise ValueError(f"{found} Set it to the number of epochs.")
        if planned > math.ceil(n_epochs):
            logger.warning("%s It will not reach its end.", found)
