"""The settings in a checkpoint, which rank below everything that the user sets."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from keypoint_detection.checkpoints.files import CheckpointError
from keypoint_detection.checkpoints.trust import refuse_untrusted
from keypoint_detection.documents import read_yaml

logger = logging.getLogger(__name__)

# Which images of the training file were held out for validation.
SPLIT_SETTINGS = ("val_fraction", "split_seed", "n_folds", "fold", "group_by")
# The data settings in a checkpoint that determine what the network sees, which images were held out, and which types
# swap when an image is mirrored: measuring reuses them.
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
DEFAULT_CACHE_FOLDER = "~/.cache/kpd/images"


def settings_of(checkpoint: dict[str, Any], with_files: bool) -> dict[str, Any]:
    """Return a checkpoint's model and data settings, by option name.

    Args:
        checkpoint: what `read_checkpoint` returned.
        with_files: return all data settings, including the files, to resume a run; otherwise only those that determine
            what the network saw and which images were held out.
    """
    data = checkpoint.get("datamodule_hyper_parameters", {}) if with_files else carried(checkpoint)
    named = {f"model.{name}": value for name, value in public(checkpoint["hyper_parameters"]).items()}
    return named | {f"data.{name}": value for name, value in public(data).items() if name != "channels"}


def read_settings(config: Path) -> dict[str, Any]:
    """Read the settings of a saved config, by option name: those of model, data and trainer, and the seed.

    Raises:
        DataError: it cannot be read as a config, or names a class that is not trusted.
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
    for name in ("callbacks", "logger"):
        parts = settings.get(f"trainer.{name}") or []
        listed = parts if isinstance(parts, list) else [parts]
        if parts is not True and not all(isinstance(one, dict) for one in listed):
            raise CheckpointError(f"{config}: trainer.{name} is {parts!r:.80}; classes and arguments are expected.")
    root, folder = settings.get(f"trainer.{ROOT_SETTING}"), config.parent.parent
    if root is not None and os.path.realpath(os.path.expanduser(str(root))) != os.path.realpath(folder):
        settings[f"trainer.{ROOT_SETTING}"] = str(folder)  # where the run is now, in case it was moved
    _leave_out_client_settings(settings.get("trainer.logger"), config)
    return settings


def _leave_out_client_settings(loggers: Any, config: Path) -> None:
    """Keep a stored logger from choosing the server that the user's account key is sent to."""
    for one in loggers if isinstance(loggers, list) else [loggers]:
        for arguments in (one.get("init_args"), one.get("dict_kwargs")) if isinstance(one, dict) else ():
            if isinstance(arguments, dict) and arguments.pop("settings", None) is not None:
                logger.warning(
                    "Ignoring the settings of trainer.logger in %s: they decide where the key of your account is "
                    "sent. If they are your own, give them again: --trainer.logger.settings=…",
                    config,
                )


def carried(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the data settings of a checkpoint that measuring reuses."""
    data = checkpoint.get("datamodule_hyper_parameters", {})
    return {name: data[name] for name in CARRIED_DATA_SETTINGS if name in data}


def public(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out settings that only Lightning uses."""
    return {name: value for name, value in settings.items() if not name.startswith("_")}


def as_json(value: Any) -> Any:
    """Return a setting as it would be stored in a file, to compare it with one read from a file."""
    # Classes in a list are parsed to namespaces.
    return json.loads(json.dumps(value, default=lambda one: one.as_dict() if isinstance(one, Namespace) else str(one)))
