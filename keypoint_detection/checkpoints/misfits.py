"""Whether the weights of a checkpoint fit the network that is made from its settings."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["explain_misfit"]


def explain_misfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Say how the weights of a checkpoint differ from those that a network expects; None if they fit.

    Names and shapes differ when another version of the network's class wrote the checkpoint.

    >>> import torch
    >>> explain_misfit({"a": torch.zeros(2)}, {"a": torch.zeros(2)}) is None
    True
    """
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    names = [name for name in (wanted | found) if found.get(name) != wanted.get(name)]
    if not names:
        return None
    name = names[0]
    return (
        f"the weights do not fit the network that the checkpoint describes: {len(names)} of {len(wanted | found)} "
        f"differ, e.g. {name} has shape {found.get(name, 'none')}, and {wanted.get(name, 'none')} is expected. Another "
        "version of the network wrote them: use that version, or train again with "
        "--model.init_from=CHECKPOINT, which takes the weights that fit"
    )
