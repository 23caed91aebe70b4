"""The settings that a checkpoint brings along, which stand below everything that the user says."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

__all__ = ["find_checkpoint_path", "report_overrides", "settings_of"]

logger = logging.getLogger(__name__)

# Of the data settings that a checkpoint carries, those that say what the network gets to see: a test repeats them.
CARRIED_DATA_SETTINGS = ("image_size", "resize", "coordinates", "visible_only")


def find_checkpoint_path(words: Sequence[str]) -> str | None:
    """The last `ckpt_path` that flags or config files give."""
    path: str | None = None
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if word in ("-c", "--config"):
            path = _checkpoint_of_config(following) or path
        elif word.startswith("--config="):
            path = _checkpoint_of_config(word.removeprefix("--config=")) or path
        elif word == "--ckpt_path":
            path = following
        elif word.startswith("--ckpt_path="):
            path = word.removeprefix("--ckpt_path=")
    return None if path in (None, "", "null") else path


def _checkpoint_of_config(path: str) -> str | None:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None  # the parser says what is wrong with the file
    value = content.get("ckpt_path") if isinstance(content, dict) else None
    return str(value) if value else None


def settings_of(checkpoint: dict[str, Any]) -> list[str]:
    """The words that repeat a checkpoint's model and what its network saw of the pictures."""
    model = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
    data = checkpoint.get("datamodule_hyper_parameters", {})
    carried = {name: data[name] for name in CARRIED_DATA_SETTINGS if name in data}
    words = [f"--model={json.dumps(model)}"]
    return [*words, f"--data={json.dumps(carried)}"] if carried else words


def report_overrides(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Say which settings differ from the checkpoint's, because the user's win."""
    data = checkpoint.get("datamodule_hyper_parameters", {})
    carried = {f"data.{name}": data[name] for name in CARRIED_DATA_SETTINGS if name in data}
    stored = {
        f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")
    }
    for name, old in _flatten({**stored, **carried}).items():
        new = config.get(name)
        new = new.as_dict() if isinstance(new, Namespace) else new
        if _comparable(new) != _comparable(old):
            logger.info("%s: %s as given (the checkpoint has %s)", name, _comparable(new), old)


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Take class specifications apart, so that one changed parameter is reported alone."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and "class_path" in value:
            flat[f"{name}.class_path"] = value["class_path"]
            flat |= {f"{name}.init_args.{key}": entry for key, entry in (value.get("init_args") or {}).items()}
        else:
            flat[name] = value
    return flat


def _comparable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
