"""Sort parameters by learning rate and weight decay."""

from typing import Any

from torch import nn


def make_parameter_groups(
    network: nn.Module, slow_part: nn.Module | None, *, lr: float, slow_lr_factor: float, decays_all: bool
) -> list[dict[str, Any]]:
    """Sort the parameters of a network into the groups of an optimiser.

    Args:
        network: the network; parameters that need no gradient are left out.
        slow_part: a part of the network, e.g. a pretrained encoder; None if there is none.
        lr: learning rate.
        slow_lr_factor: factor applied to the learning rate of the slow part.
        decays_all: whether the optimiser's weight decay also applies to normalisation layers and biases. It would
            shrink scales and offsets that do not add to a network's complexity.

    Returns: The groups that are not empty, in the order of the parameters.
    """
    slow = {id(parameter) for parameter in slow_part.parameters()} if slow_part is not None else set()
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        is_slow = id(parameter) in slow and slow_lr_factor != 1
        # Scales and offsets of normalisation layers, and biases, have one dimension; weights of layers have more.
        decays = decays_all or parameter.ndim > 1
        settings = {
            "params": [],
            "lr": lr * (slow_lr_factor if is_slow else 1),
            **({} if decays else {"weight_decay": 0.0}),
        }
        groups.setdefault((is_slow, decays), settings)["params"].append(parameter)
    return list(groups.values())
