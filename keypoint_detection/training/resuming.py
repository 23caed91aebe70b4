"""How a run is resumed: whose settings count, what may not change, and where the other steps take place.

1. `read_stored` reads the checkpoint and, if it is in a run folder, the config of that run. Their settings become the
   defaults of the options, so that everything the user sets takes precedence.
2. `compare` refuses changes that a resumed run cannot make, and reports the others. 3. `run_folder.SavedRun` continues
in the folder of the run, which `run_lock` reserves for one process group at a time. 4. Lightning restores weights,
optimiser, schedule and progress, and `restoring` checks them. `exact_resume` restores what Lightning does not:
generators, half-accumulated gradients, the sums behind means. 5. The loader of the data module starts where training
stopped, in the same order (`data/sampling.py`).

Measuring a checkpoint begins in the same way, but ends after step 2.
"""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from keypoint_detection.checkpoints.files import (
    CONFIG_FILE,
    CheckpointError,
    find_run,
    read_checkpoint,
    read_training,
    resolve_checkpoint,
)
from keypoint_detection.checkpoints.settings import SPLIT_SETTINGS, as_json, carried, public, read_settings, settings_of
from keypoint_detection.checkpoints.specifications import canonical_class_path
from keypoint_detection.checkpoints.stored_destinations import refuse_destinations, refuse_links
from keypoint_detection.checkpoints.trust import current_trust
from keypoint_detection.counting import count_in_words
from keypoint_detection.lightning_internals import Progress, has_extra_epoch, trained_so_far

logger = logging.getLogger(__name__)

# The settings on which the optimiser's state in a checkpoint depends, and those that defined its validation images.
FIXED_SETTINGS = (
    "channels",
    "backbone",
    "group",
    "optimizer",
    "lr_scheduler",
    "lr",
    "encoder_lr_factor",
    "decay_norms_and_biases",
    *SPLIT_SETTINGS,
)


class Stored(NamedTuple):
    """A checkpoint that a command starts from, and the settings that come with it.

    Attributes:
        path: the path of its file.
        checkpoint: its content.
        run: the folder of the run that `kpd fit` resumes; None if the checkpoint is not in one, or is measured.
        settings: by option name.
    """

    path: str
    checkpoint: dict[str, Any]
    run: Path | None
    settings: dict[str, Any]

    def refuse_unknown(self, options: Collection[str]) -> None:
        """Refuse settings that are not among the options of the command.

        Raises:
            CheckpointError: there are some; the message names them.
        """
        unknown = [name for name in self.settings if f"--{name}" not in options]
        if unknown:
            raise CheckpointError(
                f"{self.path if self.run is None else self.run / CONFIG_FILE} has settings that this version of kpd "
                f"does not know: {', '.join(unknown)}. Use the version that wrote it, or remove them."
            )


def read_stored(command: str, reference: str, is_given: Callable[[Path], bool]) -> Stored:
    """Read the checkpoint that a command starts from; from then on, vet the classes that settings name.

    Args:
        command: `fit` resumes training; the others measure.
        reference: a path, or `wandb://entity/project/name:alias`, which is downloaded.
        is_given: whether the user gives a config of their own.

    Raises:
        ValueError: the checkpoint or the config of its run cannot be used.
    """
    path = str(resolve_checkpoint(reference))
    is_resumed = command == "fit"
    checkpoint = read_training(path) if is_resumed else read_checkpoint(path)
    run = find_run(path) if is_resumed else None
    settings: dict[str, Any] = {}
    if run is not None:
        if not is_given(run / CONFIG_FILE):
            refuse_links(run)
        logger.info("Resuming the run %s with the settings of its %s.", run, CONFIG_FILE)
        settings = read_settings(run / CONFIG_FILE)
    current_trust().is_vetting = True
    return Stored(path, checkpoint, run, settings or settings_of(checkpoint, with_files=is_resumed))


def compare(stored: Stored, command: str, config: Namespace, given: Collection[tuple[str, str]]) -> None:
    """Refuse settings that are incompatible with a checkpoint, and log where others differ from it.

    Args:
        stored: the checkpoint.
        command: the name of the command.
        config: its parsed settings.
        given: the texts that the user wrote, each with its option.

    Raises:
        ValueError: settings are incompatible; the message names them and the fix.
    """
    if config.model.group is None:  # in the config.yaml of versions that did not group points
        config.model.group = stored.checkpoint["hyper_parameters"]["group"]
    if command == "fit":
        n_epochs, n_steps = _count_progress(stored, config.trainer.max_epochs)
        refuse_other_training(stored.checkpoint, config, n_epochs, n_steps)
        refuse_destinations(stored.settings, config, given)
        if stored.run is not None:
            refuse_absent_files(stored.settings, config)
        if n_epochs == config.trainer.max_epochs or n_steps == config.trainer.max_steps:
            _report_end(stored, config, n_epochs, n_steps)
    elif command == "validate":
        refuse_training_images(stored.checkpoint, config)
    elif command == "test":
        refuse_training_file(stored.checkpoint, config)
    if command != "fit":
        refuse_other_network(stored.checkpoint, config)
    report_overrides(stored.checkpoint, config)


def _count_progress(stored: Stored, max_epochs: int | None) -> Progress:
    """Count finished epochs and steps, without the extra epoch that a callback appends to the planned ones."""
    n_epochs, n_steps = trained_so_far(stored.checkpoint)
    planned = max_epochs if stored.run is None else stored.settings.get("trainer.max_epochs", max_epochs)
    is_beyond = planned == max_epochs and n_epochs == (max_epochs or 0) + 1
    return Progress(n_epochs - (is_beyond and has_extra_epoch(stored.checkpoint)), n_steps)


def _report_end(stored: Stored, config: Namespace, n_epochs: int, n_steps: int) -> None:
    """Report that a run is finished, and refuse settings that come too late."""
    limit = "max_steps" if n_steps == config.trainer.max_steps else "max_epochs"
    text = (
        f"this run is finished ({count_in_words(n_epochs, 'epoch')}, {count_in_words(n_steps, 'step')}); a larger "
        f"--trainer.{limit} resumes it."
    )
    refuse_changes({} if stored.run is None else stored.settings, config, text)
    logger.info("%s", text[0].upper() + text[1:])


def refuse_other_training(checkpoint: dict[str, Any], config: Namespace, n_epochs: int, n_steps: int) -> None:
    """Refuse settings that a resumed run cannot change because the checkpoint fixes them.

    Args:
        checkpoint: the checkpoint to resume from.
        config: the parsed settings of `kpd fit`.
        n_epochs: finished epochs behind the checkpoint.
        n_steps: optimiser steps behind it.

    Raises:
        ValueError: model, optimiser, schedule or split differ, or training is already past its new end.
    """
    fixed = [change for change in _changes(checkpoint, config) if change.name.split(".")[1] in FIXED_SETTINGS]
    if fixed:
        listed = "; ".join(f"{name} is {new}, the checkpoint has {old}" for name, new, old in fixed)
        raise ValueError(
            f"--ckpt_path resumes training with the original network, optimiser, schedule and split: {listed}. Leave "
            "these settings out to resume, or start a new run from the checkpoint's weights: "
            "--model.init_from=FILE.ckpt instead of --ckpt_path."
        )
    limits = (("max_epochs", n_epochs, config.trainer.max_epochs), ("max_steps", n_steps, config.trainer.max_steps))
    for name, done, limit in limits:
        if limit is not None and 0 <= limit < done:
            raise ValueError(
                f"--trainer.{name}={limit}: the checkpoint has already been trained for {done} "
                f"{name.removeprefix('max_')}. Give more than {done} to resume it, or start a new run from its "
                "weights: --model.init_from=FILE.ckpt instead of --ckpt_path."
            )


def refuse_absent_files(settings: dict[str, Any], config: Namespace) -> None:
    """Refuse to resume where the files of the run cannot be found.

    Args:
        settings: those of the run, by option name.
        config: the parsed settings.

    Raises:
        ValueError: a data file that the run names, and the user does not, is missing.
    """
    for name in ("train", "val"):
        path = settings.get(f"data.{name}")
        if path and config.data.get(name) == path and not Path(path).expanduser().is_file():
            raise ValueError(
                f"{path}: no such file. The run {find_run(config.ckpt_path)} was started in a folder that has it; "
                f"this is {Path.cwd()}. Resume it from there, or give --data.{name}."
            )


def refuse_changes(settings: dict[str, Any], config: Namespace, reason: str) -> None:
    """Refuse settings that would have no effect because nothing more is trained.

    Args:
        settings: the settings of the run, by option name.
        config: the parsed settings.
        reason: why they have no effect, and the fix.

    Raises:
        ValueError: the data, the model or the seed are set to other values.
    """
    own = {name: value for name, value in settings.items() if name.startswith(("model.", "data.", "seed_"))}
    changes = [change.name for change in _compare(own, config)]
    if changes:
        raise ValueError(f"{', '.join(changes)} would have no effect: {reason}")


def refuse_training_images(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse to validate on those images of the training file that were trained on.

    Raises:
        ValueError: no validation file is given, but the run had one or held out other images.
    """
    stored = checkpoint.get("datamodule_hyper_parameters", {})
    if not config.data.train or config.data.val:
        return
    if stored.get("val"):
        raise ValueError(
            f"the run held out nothing from {config.data.train}: it validated on {stored['val']}. A part of its "
            f"training images would give results that are too good; give --data.val, e.g. --data.val={stored['val']}."
        )
    changed = [name for name in SPLIT_SETTINGS if as_json(config.data.get(name)) != as_json(stored.get(name))]
    if stored and changed:
        listed = "; ".join(f"data.{name} is {config.data.get(name)}, it was {stored.get(name)}" for name in changed)
        raise ValueError(
            f"the run held out other images ({listed}): images that it was trained on would give results that are too "
            "good. Leave these settings out, or give --data.val."
        )


def refuse_training_file(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse to test a detector of one fold on the file that it was trained on.

    Raises:
        ValueError: the test file is that file.
    """
    stored = checkpoint.get("datamodule_hyper_parameters", {})
    train, n_folds = stored.get("train"), stored.get("n_folds")
    if n_folds and train and config.data.test and Path(train).resolve() == Path(config.data.test).resolve():
        raise ValueError(
            f"this detector was trained on all of {train} except fold {stored['fold']} of {n_folds}, so most of the "
            f"file would give results that are too good. `kpd validate --ckpt_path=… --data.train={train}` measures "
            "its fold, and `kpd summarize` all folds together; a test needs a separate file."
        )


def refuse_other_network(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse a network that the checkpoint's weights do not fit.

    Raises:
        ValueError: the backbone, the number of channels or the grouping differs from the checkpoint's.
    """
    changes = [
        change
        for change in _changes(checkpoint, config)
        if change.name.startswith("model.backbone.") or change.name == "model.group"
    ]
    n_given, n_stored = len(config.model.channels), len(checkpoint["hyper_parameters"]["channels"])
    if n_given != n_stored:
        changes.append(_Change("the number of model.channels", n_given, n_stored))
    if changes:
        listed = "; ".join(f"{name} is {new}, the checkpoint has {old}" for name, new, old in changes)
        raise ValueError(f"the weights of the checkpoint do not fit: {listed}. Leave these settings out.")


def report_overrides(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Log which settings differ from the checkpoint's; the user's take precedence."""
    for change in _changes(checkpoint, config):
        logger.info("%s: %s as given (the checkpoint has %s)", *change)


class _Change(NamedTuple):
    name: str
    new: Any
    old: Any


def _changes(checkpoint: dict[str, Any], config: Namespace) -> list[_Change]:
    """List the parsed settings that differ from the checkpoint's."""
    stored = {f"model.{name}": value for name, value in public(checkpoint["hyper_parameters"]).items()}
    stored |= {f"data.{name}": value for name, value in carried(checkpoint).items()}
    return _compare(stored, config)


def _compare(stored: dict[str, Any], config: Namespace) -> list[_Change]:
    """List the parsed settings that differ from stored ones, which are given by option name."""
    changes = []
    for name, old in stored.items():
        parsed = config.get(name)
        new = _flatten(name, parsed.as_dict() if isinstance(parsed, Namespace) else parsed)
        for key, value in _flatten(name, old).items():
            # A different class has other arguments: naming the class is enough.
            is_comparable = key in new or not key.startswith(f"{name}.init_args.")
            if is_comparable and as_json(new.get(key)) != as_json(value):
                changes.append(_Change(key, as_json(new.get(key)), as_json(value)))
    return changes


def _flatten(name: str, value: Any) -> dict[str, Any]:
    """Flatten a class specification, so that a changed parameter is reported separately."""
    if not (isinstance(value, dict) and "class_path" in value):
        return {name: value}
    flat = {f"{name}.class_path": canonical_class_path(value["class_path"])}
    return flat | {f"{name}.init_args.{key}": entry for key, entry in (value.get("init_args") or {}).items()}
