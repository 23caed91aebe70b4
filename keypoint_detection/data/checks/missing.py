"""Where missing image files could be instead, and what to do about them."""

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


def advise_on_missing(names: Sequence[str], n_images: int, root: Path, file: Path | None) -> str:
    """Say where missing images are likely to be, and how to leave them out.

    Args:
        names: their names in the file of labels.
        n_images: number of images in that file.
        root: the folder where they were expected. It, its parent and the working folder are searched.
        file: the COCO file of a command that finds images only by their whole names; None for `kpd convert`, which also
            finds them by their last part.
    """
    skip = " To leave them out, give --data.missing_images=skip." if len(names) < n_images else ""
    return _say_where(names, len(names) == n_images, root, file) + skip


def _say_where(names: Sequence[str], is_all: bool, root: Path, file: Path | None) -> str:
    wanted = [PurePosixPath(name.replace("\\", "/")) for name in names[:N_WANTED]]
    by_name = {path.name.lower(): path for path in wanted}
    whole, others = Counter[Path](), Counter[Path]()
    in_other_case: tuple[str, Path] | None = None
    for folder, files in _walk([root, root.parent, Path.cwd()]):
        for name in files:
            path = by_name.get(name.lower())
            if path is None:
                continue
            there = folder / name
            n_equal = _count_equal_parts(path, there)
            if not n_equal:
                in_other_case = in_other_case or (str(path), there)
            elif n_equal == len(path.parts) and not path.is_absolute():
                whole[Path(*there.parts[:-n_equal])] += 1
            else:
                others[Path(*there.parts[:-n_equal])] += 1
    if whole:
        folder, count = whole.most_common(1)[0]
        share = "all" if count >= len(wanted) else f"{count} of the first {len(wanted)}"
        if is_all:
            return f"With --data.image_root={shorten_path(folder)}, {share} would be found."
        return f"Images of these names are in {shorten_path(folder)}."
    if others:
        folder = shorten_path(others.most_common(1)[0][0])
        if file is None:
            return f"Images of these names are in {folder}: if they are the ones, give --data.image_root={folder}."
        return (
            f"Images of these names are in {folder}: if they are the ones, `kpd convert {file} "
            f"--image_root={folder} --output=NEW.json` writes a file that finds them."
        )
    if in_other_case:
        name, there = in_other_case
        return f"{name} is there with other upper and lower case: {there}."
    return "No image of these names was found nearby."


def _count_equal_parts(name: PurePosixPath, there: Path) -> int:
    """Count the last parts that two paths have in common."""
    pairs = zip(reversed(name.parts), reversed(there.parts), strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), len(name.parts))


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
