"""Start training from the weights of a trained detector."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from keypoint_detection.channels import complete_channels
from keypoint_detection.checkpoints.files import read_checkpoint
from keypoint_detection.checkpoints.misfits import SMALLEST_SHARE, find_fitting, find_misfits

logger = logging.getLogger(__name__)

N_EXAMPLES = 3
# Batch counters, which match between any two networks and so say nothing.
COUNTER = "num_batches_tracked"


def load_initial_weights(
    reference: str,
    backbone: nn.Module,
    head: nn.Module,
    vote_head: nn.Module | None,
    hyper_parameters: Mapping[str, Any],
) -> None:
    """Copy the weights of a checkpoint into a new detector's backbone and head, and log what was not copied.

    Weights match by name and shape. Channels of the head continue those with the same types or name; others start
    afresh.

    Args:
        reference: the checkpoint's path, or `wandb://entity/project/name:alias`.
        backbone: changed in place; weights that do not match are left unchanged.
        head: changed in place where channels continue.
        vote_head: likewise; None if the new detector does not group points.
        hyper_parameters: those of the new detector: `channels` and `backbone` as stored in a checkpoint.

    Raises:
        ValueError: the checkpoint cannot be found or read, or its backbone is a different one: less than half of the
            smaller network matches.
    """
    try:
        checkpoint = read_checkpoint(reference)
    except ValueError as error:
        raise ValueError(f"model.init_from: {error}") from error
    of_backbone = _part(checkpoint["state_dict"], "network.backbone.")
    of_head = _part(checkpoint["state_dict"], "network.head.")
    new = backbone.state_dict()
    fitting = find_fitting(of_backbone, new)
    differences = _differences(of_backbone, new)
    stored = checkpoint["hyper_parameters"]
    if _count(fitting) < SMALLEST_SHARE * min(_count(of_backbone), _count(new)):
        raise ValueError(
            f"model.init_from: the backbone of {reference} is {_describe(stored['backbone'])}, this one is "
            f"{_describe(hyper_parameters['backbone'])}; of the {_count(new)} weights of this one "
            f"{_count(fitting)} fit: {'; '.join(differences)}. Give a model.backbone of the same kind, or leave "
            "model.init_from out."
        )
    backbone.load_state_dict(fitting, strict=False)
    if differences:
        logger.info(
            "model.init_from: %d of the %d weights of the backbone are those of %s; %s.",
            *(_count(fitting), _count(new), reference, "; ".join(differences)),
        )
    old_channels, new_channels = (complete_channels(settings["channels"]) for settings in (stored, hyper_parameters))
    sources = _match_channels(old_channels, new_channels)
    if vote_head is not None:
        of_votes = _part(checkpoint["state_dict"], "network.vote_head.")
        # Without votes in the checkpoint, all start afresh.
        hidden, output = (vote_head.get_submodule(name) for name in ("hidden", "output"))
        if _copy_rows(output, _part(of_votes, "output."), sources, len(old_channels), 2):
            hidden.load_state_dict(find_fitting(_part(of_votes, "hidden."), hidden.state_dict()), strict=False)
    has_rows = _copy_rows(head, of_head, sources, len(old_channels))
    result = _describe_channels(sources if has_rows else {}, list(old_channels), list(new_channels), reference)
    # Which parts of the backbone are not from there has just been reported.
    logger.info("model.init_from: %s.", result.removeprefix("backbone and ") if differences else result)


def _copy_rows(
    module: nn.Module, state: Mapping[str, Tensor], sources: Mapping[int, int], n_old: int, n_rows: int = 1
) -> bool:
    """Copy the rows of the channels that continue, `n_rows` each.

    Returns:
        False if none continues or the weights do not fit; then all rows start afresh.
    """
    fresh = module.state_dict()
    # The rows are the channels; the inputs belong to the backbone.
    fits = all(
        name in state and state[name].shape == (n_rows * n_old, *value.shape[1:]) for name, value in fresh.items()
    )
    if not (sources and fits):
        return False
    for name, value in fresh.items():
        rows, old_rows = (weights.unflatten(0, (-1, n_rows)) for weights in (value, state[name]))
        for row, source in sources.items():
            rows[row] = old_rows[source]
    module.load_state_dict(fresh)
    return True


def _describe_channels(sources: Mapping[int, int], old: list[str], new: list[str], reference: str) -> str:
    """Say which channels of the head continue which old ones, (row in the new head: row in the old one)."""
    if not sources:
        names = f"channels {', '.join(new)} (the checkpoint has {', '.join(old)})"
        return f"backbone from {reference}; the head starts afresh, for {names}"
    if list(sources.items()) == [(row, row) for row in range(len(old))] and len(old) == len(new):
        renamed = "" if old == new else f", channels {', '.join(old)} continuing as {', '.join(new)}"
        return f"backbone and head from {reference}{renamed}"
    continuing = ", ".join(
        new[row] if new[row] == old[source] else f"{old[source]} as {new[row]}" for row, source in sources.items()
    )
    starting = ", ".join(name for row, name in enumerate(new) if row not in sources)
    afresh = f"; {starting} start afresh" if starting else ""
    return f"backbone and head of channels {continuing} from {reference}{afresh}"


def _match_channels(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> dict[int, int]:
    """Find the old channel that each new one continues: one with the same types, or else with the same name.

    If none match but their number is equal, they are taken to be the same channels, renamed.

    >>> _match_channels({"a": ["x"], "b": ["y"]}, {"c": ["y"], "a": ["z"], "d": ["w"]})
    {0: 1, 1: 0}
    """
    by_types = {frozenset(types): index for index, types in enumerate(old.values())}
    by_name = {name: index for index, name in enumerate(old)}
    found = {row: by_types[frozenset(types)] for row, types in enumerate(new.values()) if frozenset(types) in by_types}
    for row, name in enumerate(new):
        if row not in found and name in by_name and by_name[name] not in found.values():
            found[row] = by_name[name]
    if not found and len(old) == len(new):
        return {row: row for row in range(len(new))}
    return dict(sorted(found.items()))


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _differences(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[str]:
    """Name the weights that do not match between two modules, counted and with examples."""
    old, new = _without_counters(old), _without_counters(new)
    missing, surplus, reshaped = find_misfits(old, new)
    texts = []
    if missing:
        texts.append(f"{len(missing)} weights are not in the checkpoint, e.g. {', '.join(missing[:N_EXAMPLES])}")
    if surplus:
        texts.append(f"{len(surplus)} weights are only there, e.g. {', '.join(surplus[:N_EXAMPLES])}")
    if reshaped:
        examples = [f"{name} {tuple(old[name].shape)} -> {tuple(new[name].shape)}" for name in reshaped[:N_EXAMPLES]]
        texts.append(f"{len(reshaped)} weights have a different shape, e.g. {', '.join(examples)}")
    return texts


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith(COUNTER)}


def _count(state: Mapping[str, Tensor]) -> int:
    return len(_without_counters(state))


def _describe(specification: Mapping[str, Any]) -> str:
    """Write a class specification as a call.

    >>> _describe({"class_path": "a.b.Unet", "init_args": {"n_channels": 8}})
    'Unet(n_channels=8)'
    """
    arguments = ", ".join(f"{name}={value!r}" for name, value in (specification.get("init_args") or {}).items())
    return f"{specification['class_path'].rpartition('.')[2]}({arguments})"
