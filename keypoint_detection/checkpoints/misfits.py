"""Which stored weights fit a network, and how the others differ."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

# Minimum share of matching weights; below it, the weights belong to another network.
SMALLEST_SHARE = 0.5


class Misfits(NamedTuple):
    """Names of the weights that do not match between a checkpoint and a network.

    Attributes:
        missing: only in the network.
        surplus: only in the checkpoint.
        reshaped: in both, with different shapes, or whole numbers instead of fractional ones.
    """

    missing: list[str]
    surplus: list[str]
    reshaped: list[str]


def find_misfits(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Misfits:
    """Compare the weights of a checkpoint with those of a network, by name and shape.

    >>> import torch
    >>> find_misfits({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3), "c": torch.zeros(1)})
    Misfits(missing=['c'], surplus=['b'], reshaped=['a'])
    """
    return Misfits(
        missing=[name for name in expected if name not in stored],
        surplus=[name for name in stored if name not in expected],
        reshaped=[name for name in expected if name in stored and not _is_alike(expected[name], stored[name])],
    )


def _is_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def find_not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """List the weights that contain NaN or infinity, as they do after training has diverged."""
    return [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]


def find_fitting(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the stored weights that a network has under the same name and with the same shape.

    >>> import torch
    >>> list(find_fitting({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3), "b": torch.zeros(1)}))
    ['b']
    """
    misfits = find_misfits(stored, expected)
    unfit = {*misfits.surplus, *misfits.reshaped}
    return {name: value for name, value in stored.items() if name not in unfit}


def explain_misfit(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Describe how the weights of a checkpoint differ from those that a network expects; None if they fit.

    Names and shapes differ when another version of the network's class wrote the checkpoint.
    """
    misfits = find_misfits(stored, expected)
    names = [*misfits.reshaped, *misfits.missing, *misfits.surplus]
    if not names:
        return None
    name = names[0]
    has, wants = (_describe(part[name]) if name in part else "none" for part in (stored, expected))
    return (
        f"the weights do not fit the network that the checkpoint describes: {len(names)} of "
        f"{len(stored.keys() | expected.keys())} differ, e.g. {name} has shape {has}, and {wants} is expected. They "
        "were written by another version of the network: use that version, or train again with "
        "--model.init_from=CHECKPOINT, which takes the weights that fit"
    )


def _describe(value: Tensor) -> str:
    return f"{tuple(value.shape)}{'' if value.is_floating_point() else ' of whole numbers'}"
