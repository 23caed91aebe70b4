"""Make the optimiser that the user chose, with a parameter group for each learning rate and weight decay."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from keypoint_detection.models.parameter_groups import make_parameter_groups

# Optimisers that evaluate a batch several times per step, or expect sparse gradients.
UNSUITED = (torch.optim.LBFGS, torch.optim.SparseAdam)


def make_optimizer(
    factory: Callable[[Iterable[dict[str, Any]], float], Optimizer],
    network: nn.Module,
    slow_part: nn.Module | None,
    *,
    lr: float,
    slow_lr_factor: float,
    decays_all: bool,
) -> Optimizer:
    """Make the optimiser of a network.

    Args:
        factory: makes the optimiser from parameter groups and a learning rate.
        network: all of its parameters that need a gradient are optimised.
        slow_part: a part of the network, e.g. an encoder; None if there is none.
        lr: learning rate.
        slow_lr_factor: factor applied to the learning rate of the slow part.
        decays_all: whether weight decay also applies to normalisation layers and biases.

    Raises:
        ValueError: this kind of optimiser cannot train the network.
    """
    try:
        # Only an optimiser with weight decay needs to know which weights decay; some accept only a single group.
        probe = factory([{"params": [nn.Parameter(torch.zeros(1))]}], lr)
        decays_all = decays_all or not probe.defaults.get("weight_decay")
        groups = make_parameter_groups(network, slow_part, lr=lr, slow_lr_factor=slow_lr_factor, decays_all=decays_all)
        optimizer = factory(groups, lr)
    except ValueError as error:
        raise ValueError(f"model.optimizer: {error} Choose another one, e.g. AdamW.") from error
    if isinstance(optimizer, UNSUITED):
        raise ValueError(
            f"model.optimizer: {type(optimizer).__name__} cannot train this network: an optimiser that takes one dense "
            "gradient per step is expected, e.g. AdamW."
        )
    return optimizer
