"""The settings in a checkpoint, which rank below everything that the user sets."""

import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from keypoint_detection.checkpoints.files import CONFIG_FILE, CheckpointError, find_run
from keypoint_detection.checkpoints.specifications import canonical_class_path
from keypoint_detection.checkpoints.trust import refuse_untrusted
from keypoint_detection.documents import read_yaml

logger = logging.getLogger(__name__)

# Which images of the training file were held out for validation.
SPLIT_SETTINGS = ("val_fraction", "split_seed", "n_folds", "fold", "group_by")
# The data settings in a checkpoint that say what the network sees, which images were held out, and what a mirrored
# image shows: measuring reuses them.
CARRIED_DATA_SETTINGS = (
    "image_size",
    "resize",
    "coordinates",
    "categories",
    "visible_only",
    *SPLIT_SETTINGS,
    "flip_pairs",
)
# The sections of a config whose entries are options themselves.
SETTING_GROUPS = ("model", "data", "trainer")
SEED = "seed_everything"
ROOT_SETTING = "default_root_dir"
# Names of settings of the Trainer's parts that are folders or files, and of those that are read by people.
FOLDER_SETTING = re.compile(r"(path|dir|folder|root|config)$")
PROSE = ("notes", "tags", "class_path")
# The data settings that name folders to write in, and the file by which one that is in use already is recognised.
DATA_FOLDERS = {("data", "cache_folder"): "used", ("data", "synthetic", "folder"): "synthetic.json"}
DEFAULT_CACHE_FOLDER = "~/.cache/kpd/images"
# The settings that the optimiser's state in a checkpoint belongs to, and those that defined its validation images.
FIXED_SETTINGS = (
    "channels",
    "backbone",
    "optimizer",
    "lr_scheduler",
    "lr",
    "encoder_lr_factor",
    "decay_norms_and_biases",
    *SPLIT_SETTINGS,
)


def settings_of(checkpoint: dict[str, Any], with_files: bool) -> dict[str, Any]:
    """Return a checkpoint's model and data settings, by option name.

    Args:
        checkpoint: what `read_checkpoint` returned.
        with_files: return all data settings, including the files, to resume a training; otherwise only those that say
            what the network saw and which images were held out.
    """
    data = checkpoint.get("datamodule_hyper_parameters", {}) if with_files else _carried(checkpoint)
    named = {f"model.{name}": value for name, value in _public(checkpoint["hyper_parameters"]).items()}
    return named | {f"data.{name}": value for name, value in _public(data).items() if name != "channels"}


def read_settings(config: Path) -> dict[str, Any]:
    """Read the settings of a saved config, by option name: those of model, data and trainer, and the seed.

    Raises:
        DataError: it cannot be read as a config, or names something that is not trusted.
    """
    content = read_yaml(config, "the config of the run that is resumed")
    if not isinstance(content, dict):
        raise CheckpointError(f"{config} contains no settings; restore it, or resume with --config=FILE instead.")
    settings = {SEED: content[SEED]} if SEED in content else {}
    for group in SETTING_GROUPS:
        value = content.get(group) or {}
        if not isinstance(value, dict):
            raise CheckpointError(f"{config}: {group} is {value!r}; a mapping of settings is expected.")
        settings |= {f"{group}.{name}": entry for name, entry in value.items()}
    refuse_untrusted({group: content.get(group) for group in SETTING_GROUPS}, str(config))
    root, folder = settings.get(f"trainer.{ROOT_SETTING}"), config.parent.parent
    if root is not None and os.path.realpath(os.path.expanduser(str(root))) != os.path.realpath(folder):
        settings[f"trainer.{ROOT_SETTING}"] = str(folder)  # where the run lies, whoever moved it
    _leave_out_client_settings(settings.get("trainer.logger"), config)
    return settings


def _leave_out_client_settings(loggers: Any, config: Path) -> None:
    """Let a stored logger not say to which server the key of the user's account is sent."""
    for one in loggers if isinstance(loggers, list) else [loggers]:
        for arguments in (one.get("init_args"), one.get("dict_kwargs")) if isinstance(one, dict) else ():
            if isinstance(arguments, dict) and arguments.pop("settings", None) is not None:
                logger.warning(
                    "Left out the settings of trainer.logger in %s: they say where the key of your account is sent. If "
                    "they are your own, give them again: --trainer.logger.settings=…",
                    config,
                )


def refuse_destinations(names: Collection[str], config: Namespace, given: Collection[tuple[str, str]]) -> None:
    """Refuse to write where only a file that came with a checkpoint says so.

    A run folder may have its files written in itself, logs also below the working folder, where they are by default,
    and caches and drawn images where such are already.

    Args:
        names: the stored settings, by option name.
        config: the parsed settings of `kpd fit`, with the checkpoint's path.
        given: the texts that the user wrote, each after the option it belongs to.

    Raises:
        CheckpointError: with the first such setting, and the words that allow it.
    """
    run = find_run(config.ckpt_path)
    source = config.ckpt_path if run is None else run / CONFIG_FILE
    hint = "" if run is None else f", or, if the run is your own, all of them: --config={source}"
    approved = {(place.rpartition(".")[2], os.path.normpath(text)) for place, text in given}
    for name in names:
        for place, text in _walk_texts(_as_json(config.get(name)), (*name.split("."),)):
            is_approved = (place[-1], os.path.normpath(text)) in approved
            if not is_approved and (reason := _reason_against(place, text, config, run)):
                raise CheckpointError(
                    f"{source}: its setting {'.'.join(place)} is {text}, {reason}. What comes with a checkpoint does "
                    f"not decide where files are written: give this setting yourself{hint}."
                )


def refuse_links(run: Path) -> None:
    """Refuse a run folder in which files would be written through a link to elsewhere, or into a pipe.

    Raises:
        CheckpointError: with the first link, and the words that allow it.
    """
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if not (path.is_file() or path.is_dir()) or not _is_below(path, run):
                raise CheckpointError(
                    f"{path} leads out of the run folder, or is not a file: what is written there could replace "
                    f"anything. Delete it, or, if the run is your own, give --config={run / CONFIG_FILE}."
                )


def _reason_against(place: tuple[str, ...], text: str, config: Namespace, run: Path | None) -> str | None:
    """Say why nothing is written where a stored setting says; None if it may be, or is not a place."""
    path = Path(os.path.expanduser(os.path.expandvars(text)))
    if (marker := DATA_FOLDERS.get(place)) is not None:
        is_unused = place[1:] == ("cache_folder",) and (config.data.cache != "disk" or text == DEFAULT_CACHE_FOLDER)
        is_allowed = is_unused or (path / marker).is_file() or _is_below(path, Path.cwd())
        return None if is_allowed else "which is outside the working folder"
    if place[0] != "trainer" or place[1] == ROOT_SETTING or place[-1] in PROSE:
        return None
    if re.match(r"\w[\w+.-]*::?//|\w+::", text):
        return "which is not on this disk"
    if ".." in path.parts:
        return "which leads out of its folder"
    if run is not None and _is_below(path, run):
        return None
    if place[1] == "logger":
        return None if _is_below(path, Path.cwd()) else f"which is outside {run} and the working folder"
    return f"which is outside {run}" if path.is_absolute() or FOLDER_SETTING.search(place[-1]) else None


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path, when all links are followed, is in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _walk_texts(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the texts among nested settings, each after the names that lead to it."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _walk_texts(entry, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _walk_texts(entry, place)
    elif isinstance(value, str):
        yield place, value


def refuse_absent_files(settings: dict[str, Any], config: Namespace) -> None:
    """Refuse to resume where the files of the run cannot be found.

    Args:
        settings: those of the run, by option name.
        config: the parsed settings.

    Raises:
        ValueError: a data file that the run names, and the user does not, is not there.
    """
    for name in ("train", "val"):
        path = settings.get(f"data.{name}")
        if path and config.data.get(name) == path and not Path(path).expanduser().is_file():
            raise ValueError(
                f"{path}: no such file. The run {find_run(config.ckpt_path)} was started in a folder that has it; "
                f"this is {Path.cwd()}. Resume it from there, or give --data.{name}."
            )


def report_overrides(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Log which settings differ from the checkpoint's, since the user's take precedence."""
    for change in _changes(checkpoint, config):
        logger.info("%s: %s as given (the checkpoint has %s)", *change)


def refuse_changes(settings: dict[str, Any], config: Namespace, reason: str) -> None:
    """Refuse settings that would have no effect, since nothing is trained any more.

    Args:
        settings: those of the training, by option name.
        config: the parsed settings.
        reason: why they have no effect, and the way out.

    Raises:
        ValueError: the data, the model or the seed are set to something else.
    """
    own = {name: value for name, value in settings.items() if name.startswith(("model.", "data.", "seed_"))}
    changes = [change.name for change in _compare(own, config)]
    if changes:
        raise ValueError(f"{', '.join(changes)} would have no effect: {reason}")


def refuse_other_training(checkpoint: dict[str, Any], config: Namespace, n_epochs: int, n_steps: int) -> None:
    """Refuse settings that a resumed training cannot change, because the checkpoint fixes them.

    Args:
        checkpoint: the one to resume from.
        config: the parsed settings of `kpd fit`.
        n_epochs: finished epochs behind the checkpoint.
        n_steps: optimiser steps behind it.

    Raises:
        ValueError: model, optimiser, schedule or split differ, or the training is already past its new end.
    """
    fixed = [change for change in _changes(checkpoint, config) if change.name.split(".")[1] in FIXED_SETTINGS]
    if fixed:
        listed = "; ".join(f"{name} is {new}, the checkpoint has {old}" for name, new, old in fixed)
        raise ValueError(
            f"--ckpt_path resumes a training with its network, optimiser, schedule and split as they were: {listed}. "
            "Leave these settings out to resume, or start a new training from the checkpoint's weights: "
            "--model.init_from=FILE.ckpt instead of --ckpt_path."
        )
    limits = (("max_epochs", n_epochs, config.trainer.max_epochs), ("max_steps", n_steps, config.trainer.max_steps))
    for name, done, limit in limits:
        if limit is not None and 0 <= limit < done:
            raise ValueError(
                f"--trainer.{name}={limit}: the checkpoint has already been trained for {done} "
                f"{name.removeprefix('max_')}. Give more than {done} to resume it, or start a new training from its "
                "weights: --model.init_from=FILE.ckpt instead of --ckpt_path."
            )


def refuse_training_images(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse to validate on images of the training file that were trained on.

    Raises:
        ValueError: no validation file is given, and the training had one or held out other images.
    """
    stored = checkpoint.get("datamodule_hyper_parameters", {})
    if not config.data.train or config.data.val:
        return
    if stored.get("val"):
        raise ValueError(
            f"the training held out nothing of {config.data.train}: it validated on {stored['val']}. A part of its "
            f"training images would measure too well; give --data.val, e.g. --data.val={stored['val']}."
        )
    changed = [name for name in SPLIT_SETTINGS if _as_json(config.data.get(name)) != _as_json(stored.get(name))]
    if stored and changed:
        listed = "; ".join(f"data.{name} is {config.data.get(name)}, it was {stored.get(name)}" for name in changed)
        raise ValueError(
            f"the training held out other images ({listed}): those it was trained on would measure too well. Leave "
            "these settings out, or give --data.val."
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
            f"file would measure too well. `kpd validate --ckpt_path=… --data.train={train}` measures its fold, and "
            "`kpd summarize` all folds together; a test needs a separate file."
        )


def refuse_other_network(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Refuse a network that the checkpoint's weights do not fit.

    Raises:
        ValueError: the backbone or the number of channels differs from the checkpoint's.
    """
    changes = [change for change in _changes(checkpoint, config) if change.name.startswith("model.backbone.")]
    n_given, n_stored = len(config.model.channels), len(checkpoint["hyper_parameters"]["channels"])
    if n_given != n_stored:
        changes.append(_Change("the number of model.channels", n_given, n_stored))
    if changes:
        listed = "; ".join(f"{name} is {new}, the checkpoint has {old}" for name, new, old in changes)
        raise ValueError(f"the weights of the checkpoint do not fit: {listed}. Leave these settings out.")


class _Change(NamedTuple):
    name: str
    new: Any
    old: Any


def _changes(checkpoint: dict[str, Any], config: Namespace) -> list[_Change]:
    """List the parsed settings that differ from the checkpoint's."""
    stored = {f"model.{name}": value for name, value in _public(checkpoint["hyper_parameters"]).items()}
    stored |= {f"data.{name}": value for name, value in _carried(checkpoint).items()}
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
            if is_comparable and _as_json(new.get(key)) != _as_json(value):
                changes.append(_Change(key, _as_json(new.get(key)), _as_json(value)))
    return changes


def _carried(checkpoint: dict[str, Any]) -> dict[str, Any]:
    data = checkpoint.get("datamodule_hyper_parameters", {})
    return {name: data[name] for name in CARRIED_DATA_SETTINGS if name in data}


def _public(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not name.startswith("_")}


def _flatten(name: str, value: Any) -> dict[str, Any]:
    """Flatten a class specification, so that a changed parameter is reported by itself."""
    if not (isinstance(value, dict) and "class_path" in value):
        return {name: value}
    flat = {f"{name}.class_path": canonical_class_path(value["class_path"])}
    return flat | {f"{name}.init_args.{key}": entry for key, entry in (value.get("init_args") or {}).items()}


def _as_json(value: Any) -> Any:
    # Classes in a list are parsed to namespaces.
    return json.loads(json.dumps(value, default=lambda one: one.as_dict() if isinstance(one, Namespace) else str(one)))
