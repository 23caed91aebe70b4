"""The built-in learning-rate schedule; any other comes from torch through `model.lr_scheduler`."""

import math

__all__ = ["warmup_cosine"]

# The share of the training in which the learning rate rises: Adam's second moments need some steps to settle.
WARMUP_FRACTION = 0.05
# The learning rate at the end, as a share of the maximum: below it, steps would change nothing.
FINAL_FACTOR = 0.01


def warmup_cosine(step: int, n_steps: float) -> float:
    """Compute the learning-rate factor: a linear rise, then half a cosine down to a hundredth.

    After Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, section 3, without restarts.

    Args:
        step: optimiser steps taken so far.
        n_steps: optimiser steps of the whole training; infinite if it has no end, in which case the factor stays 1.

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
