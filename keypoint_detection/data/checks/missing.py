"""Where missing image files could be instead."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from keypoint_detection.destinations import shorten_path

__all__ = ["advise_on_missing"]

# Maximum number of folders searched; a home folder may contain millions.
MAX_FOLDERS = 5000
# Maximum number of missing files looked for: they are seldom in more than one place.
N_WANTED = 50


def advise_on_missing(names: Sequence[str], root: Path) -> str:
    """Say where missing images would be found, as the way out in a message; empty if nothing is found.

    Args:
        names: their file names in the COCO file.
        root: the folder where they were expected. It, its parent and the working folder are searched.
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
            return f"file_name has backslashes; with /, the images are below {folder}. Replace them."
        share = "all" if count >= len(wanted) else f"{count} of the first {len(wanted)}"
        return f"{share} would be found with --data.image_root={shorten_path(folder)}"
    if renamed:
        name, there = renamed
        reason = "with other upper and lower case" if there.name != Path(name).name else "in another folder"
        root_hint = f"; --data.image_root={shorten_path(there.parent)} finds them once file_name is the bare name"
        return f"{name} is there {reason}: {there}{root_hint if reason == 'in another folder' else ''}"
    return ""


def _walk(roots: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield the files of folders and their subfolders, each folder once, up to a limit."""
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
