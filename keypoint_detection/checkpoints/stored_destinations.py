"""Restrict where settings that came with a checkpoint can have files written."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from keypoint_detection.checkpoints.files import CONFIG_FILE, CheckpointError, find_run
from keypoint_detection.checkpoints.settings import DEFAULT_CACHE_FOLDER, ROOT_SETTING, as_json

# Names of settings of the Trainer's parts that are folders or files, and of those that are only for people to read.
FOLDER_SETTING = re.compile(r"(path|dir|folder|root|config)$")
# Placeholders allowed in a file name, e.g. {epoch}, {val/mAP:.2f}: formats such as {step:c} could give a slash.
PATTERN = re.compile(r"\{\w[\w/-]*(\.\w[\w/-]*)*(:0?\d*(\.\d+)?[defg%]?)?\}")
PROSE = ("notes", "tags", "class_path")
# The data settings that name folders to write in, and the file by which a folder already in use is recognised.
DATA_FOLDERS = {("data", "cache_folder"): "used", ("data", "synthetic", "folder"): "synthetic.json"}


def refuse_destinations(names: Collection[str], config: Namespace, given: Collection[tuple[str, str]]) -> None:
    """Refuse to write to places that only a file that came with a checkpoint names.

    Files may be written inside the run folder; logs also below the working folder, their default place; caches and
    drawn images also in folders that already contain some.

    Args:
        names: the stored settings, by option name.
        config: the parsed settings of `kpd fit`, with the checkpoint's path.
        given: the texts that the user wrote, each with its option.

    Raises:
        CheckpointError: naming the first such setting, and the option that allows it.
    """
    run = find_run(config.ckpt_path)
    source = config.ckpt_path if run is None else run / CONFIG_FILE
    hint = "" if run is None else f", or, if the run is your own, all of them: --config={source}"
    approved = {(place.rpartition(".")[2], os.path.normpath(text)) for place, text in given}
    for name in names:
        for place, text in _walk_texts(as_json(config.get(name)), (*name.split("."),)):
            is_approved = (place[-1], os.path.normpath(text)) in approved
            if not is_approved and (reason := _reason_against(place, text, config, run)):
                raise CheckpointError(
                    f"{source}: its setting {'.'.join(place)} is {text}, {reason}. Files that come with a checkpoint "
                    f"cannot decide where files are written: give this setting yourself{hint}."
                )


def refuse_links(run: Path) -> None:
    """Refuse a run folder in which files would be written through a link to elsewhere, or into a pipe.

    Raises:
        CheckpointError: naming the first link, and the option that allows it.
    """
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if not (path.is_file() or path.is_dir()) or not _is_below(path, run):
                raise CheckpointError(
                    f"{path} leads out of the run folder, or is not a file: writing to it could replace any file. "
                    f"Delete it, or, if the run is your own, give --config={run / CONFIG_FILE}."
                )


def _reason_against(place: tuple[str, ...], text: str, config: Namespace, run: Path | None) -> str | None:
    """Explain why nothing is written where a stored setting says; None if it is allowed or no path."""
    path = Path(os.path.expanduser(os.path.expandvars(text)))
    if (marker := DATA_FOLDERS.get(place)) is not None:
        is_unused = place[1:] == ("cache_folder",) and (config.data.cache != "disk" or text == DEFAULT_CACHE_FOLDER)
        is_allowed = is_unused or (path / marker).is_file() or _is_below(path, Path.cwd())
        return None if is_allowed else "which is outside the working folder"
    if place[0] != "trainer" or place[1] == ROOT_SETTING or place[-1] in PROSE:
        return None
    if re.match(r"\w[\w+.-]*::?//|\w+::", text):
        return "which is not on this disk"
    if ".." in path.parts or ("{" in text and ".." in text):
        return "which leads out of its folder"
    if re.search("[{}]", PATTERN.sub("", text)):
        return "which could turn into the name of any file"
    if run is not None and _is_below(path, run):
        return None
    if place[1] == "logger":
        return None if _is_below(path, Path.cwd()) else f"which is outside {run} and the working folder"
    return f"which is outside {run}" if path.is_absolute() or FOLDER_SETTING.search(place[-1]) else None


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path, with all links resolved, is in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _walk_texts(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the texts in nested settings, each with the names that lead to it."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _walk_texts(entry, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _walk_texts(entry, place)
    elif isinstance(value, str):
        yield place, value
