"""Where image files that are missing could be instead."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

__all__ = ["advise_on_missing"]

# How many folders are looked into; a home directory may hold millions.
MAX_FOLDERS = 5000
# How many of the missing files are looked for: they are seldom in more than one place.
N_WANTED = 50


def advise_on_missing(names: Sequence[str], root: Path) -> str:
    """Say where missing images would be found, as a way out for the message; empty where nothing is found.

    Args:
        names: their file names in the COCO file.
        root: the folder that they were looked for in. It, the one above it and the working folder are searched.
    """
    wanted = [PurePosixPath(name.replace("\\", "/")) for name in names[:N_WANTED]]
    found = Counter[Path]()
    renamed: tuple[str, Path] | None = None
    by_name = {path.name.lower(): path for path in wanted}
    for folder, files in _walk([root, root.parent, Path.cwd()]):
        for file in files:
            path = by_name.get(file.lower())
            if path is None:
                continue
            tail = (folder / file).parts[-len(path.parts) :]
            if not path.is_absolute() and tail == path.parts:
                found[Path(*(folder / file).parts[: -len(path.parts)])] += 1
            else:
                renamed = renamed or (str(path), folder / file)
    if found:
        folder, count = found.most_common(1)[0]
        if any("\\" in name for name in names):
            return f"file_name is written with backslashes; with / the images lie below {folder}. Replace them."
        share = "all" if count >= len(wanted) else f"{count} of the first {len(wanted)}"
        return f"{share} would be found with --data.image_root={_shorten(folder)}"
    if renamed:
        name, there = renamed
        reason = "in upper or lower case otherwise" if there.name != Path(name).name else "in another folder"
        root_hint = f"; --data.image_root={_shorten(there.parent)} finds them once file_name is the bare name"
        return f"{name} is there {reason}: {there}{root_hint if reason == 'in another folder' else ''}"
    return ""


def _walk(roots: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Give the files of folders and of those below, each folder once, up to a limit."""
    seen: set[str] = set()
    for root in roots:
        for folder, below, files in os.walk(root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if len(seen) >= MAX_FOLDERS:
                return
            key = os.path.realpath(folder)
            if key in seen:
                below.clear()
                continue
            seen.add(key)
            yield Path(folder), files


def _shorten(folder: Path) -> str:
    """The folder as it is typed: relative where it lies below the working folder."""
    absolute = Path(os.path.abspath(folder))
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
