"""Find where missing image files could be, and suggest what to do about them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from keypoint_detection.counting import agree
from keypoint_detection.data.video import VIDEO_SUFFIXES
from keypoint_detection.destinations import shorten_path

# Maximum number of folders searched; a home folder can contain millions.
MAX_FOLDERS = 5000


def advise_on_missing(names: Sequence[str], n_images: int, root: Path, file: Path | None) -> str:
    """Suggest where missing images are likely to be, and how to leave them out.

    Args:
        names: their names in the label file.
        n_images: number of images in that file.
        root: the folder where they were expected. It and its parent are searched.
        file: the COCO file of a command that finds images only by their whole names; None for `kpd convert`, which also
            finds them by their last part.
    """
    skip = " To leave them out, give --data.missing_images=skip." if len(names) < n_images else ""
    return _say_where(names, len(names) == n_images, root, file) + skip


def _say_where(names: Sequence[str], is_all: bool, root: Path, file: Path | None) -> str:
    root = Path(os.path.abspath(root))
    wanted = [PurePosixPath(name.replace("\\", "/")) for name in names]
    first = wanted[0]
    found: dict[Path, bool] = {}
    is_there = False
    in_other_case: Path | None = None
    places = [root.parent / part for part in _list_ends(first) if (root.parent / part).is_file()]
    for folder, files in _walk([root]):
        places += [folder / name for name in files if name.lower() == first.name.lower()]
    # An image list inside the root names its files directly, so another root does not help.
    for there in [] if any(path.is_relative_to(root) for path in wanted) else places:
        n_equal = _count_equal_parts(first, there)
        if not n_equal:
            in_other_case = in_other_case or there
            continue
        is_there = True
        n_dropped = len(first.parts) - n_equal
        folder = Path(*there.parts[:-n_equal])
        files_there = {folder.joinpath(*path.parts[n_dropped:]) for path in wanted}
        is_allowed = folder == root.parent or folder.is_relative_to(root)
        is_given = folder == root and file is None
        is_distinct = len(files_there) == len(set(wanted))
        if is_allowed and not is_given and is_distinct and all(path.is_file() for path in files_there):
            found[folder] = n_dropped == 0
    if len(found) == 1:
        ((place, is_whole),) = found.items()
        folder_name = shorten_path(place)
        if not is_all:
            return f"Images of these names are in {folder_name}."
        if is_whole:
            return f"With --data.image_root={folder_name}, all would be found."
        if file is None:
            option = f"--data.image_root={folder_name}"
            return f"Images of these names are in {folder_name}: if they are the right ones, give {option}."
        return (
            f"Images of these names are in {folder_name}: if they are the right ones, `kpd convert {file} "
            f"--image_root={folder_name} --output=NEW.json` writes a file that finds them."
        )
    if in_other_case and not is_there:
        return f"{shorten_path(in_other_case)} differs from {first} only in upper and lower case: rename one of them."
    if is_there:
        return "No single folder nearby has all of them."
    kind = "video" if first.suffix.lower() in VIDEO_SUFFIXES else "image"
    elsewhere = "; if they are elsewhere, give their folder with --data.image_root" if is_all else ""
    return f"No {kind} of {agree(len(names), 'this name', 'these names')} was found nearby{elsewhere}."


def _list_ends(path: PurePosixPath) -> list[Path]:
    return [Path(*path.parts[start:]) for start in range(len(path.parts)) if path.parts[start] != "/"]


def _count_equal_parts(name: PurePosixPath, there: Path) -> int:
    """Count the trailing parts that two paths have in common."""
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
