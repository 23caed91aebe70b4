"""Check where results will be written before they are computed."""

import os
from pathlib import Path, PurePath

from keypoint_detection.types import DataError


def refuse_unwritable(path: Path, option: str) -> None:
    """Refuse a file or folder that could not be written.

    Args:
        path: path of the output; it may already exist, and its parent folders may be missing.
        option: the option that names it, for the message, e.g. `--output`.

    Raises:
        DataError: it lies below a file, or you have no write permission there.
    """
    place = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.exists(one))
    reason = ""
    if place != path.absolute() and not place.is_dir():
        reason = f"{place} is a file"
    elif not os.access(place, os.W_OK):
        reason = f"you have no write permission in {place}"
    if reason:
        raise DataError(f"{option}: {path} cannot be written ({reason}); give another {option}.")


def path_below(name: str) -> Path:
    """Turn a file name that may point elsewhere into a path that stays below any folder it is joined to.

    Args:
        name: a name such as `../images/a.png` or `/data/a.png`; drive, root and `..` are left out.

    >>> path_below("../images/a.png").as_posix()
    'images/a.png'
    """
    path = PurePath(name)
    return Path(*(part for part in path.parts if part not in (path.anchor, "..")))


def shorten_path(path: str | Path) -> Path:
    """Write a path as one would type it: relative if it is below the working folder."""
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def relate_path(path: str | Path, folder: Path) -> str:
    """Write a path relative to a folder, with forward slashes; absolute if they are on different drives."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).absolute().as_posix()
