"""The images of a COCO keypoint file: their ids, files and sizes."""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from keypoint_detection.data.coco_file import ImageEntry
from keypoint_detection.data.image_bounds import ImageBounds, MissingImages
from keypoint_detection.data.problems import Problems

# Ids are stored as signed 64-bit integers.
ID_LIMIT = 2**63
# For this many files in a folder, listing it once is cheaper than looking up each file.
N_BEFORE_LISTING = 32
# Composed and decomposed accents: what most systems write, and what macOS writes.
UNICODE_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
# File names that can be joined to a folder unchanged: no empty part, no part that begins with a dot.
PLAIN_NAME = re.compile(r"(?:[^/\\:.][^/\\:]*/)*[^/\\:.][^/\\:]*")


class CocoImages(NamedTuple):
    """The images of a file, in order.

    Attributes:
        ids: unique.
        paths: UTF-8 bytes.
        sizes: (height, width) in pixels; (0, 0) if not given.
        missing: names of the files that do not exist.
        skipped: ids of the images left out because of that.
    """

    ids: list[int]
    paths: list[bytes]
    sizes: list[tuple[int, int]]
    missing: list[str]
    skipped: set[int]


class _Folders:
    """Tells which files exist, accessing the disk as rarely as possible."""

    def __init__(self) -> None:
        self._n_questions: Counter[str] = Counter()
        self._names: dict[str, set[str]] = {}

    def has_file(self, path: str) -> bool:
        folder, name = os.path.split(path)
        self._n_questions[folder] += 1
        if self._n_questions[folder] == N_BEFORE_LISTING:
            self._names[folder] = _list_files(folder)
        # A disk that ignores case, or encodes accents differently, may list a file under a name other than the one
        # requested.
        return name in self._names.get(folder, ()) or os.path.isfile(path)


def _list_files(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:  # it does not exist, or cannot be listed although its files can be read
        return set()


def read_images(
    entries: list[ImageEntry], root: Path, bounds: ImageBounds, when_missing: MissingImages, problems: Problems
) -> CocoImages:
    """Read the images of a file.

    Args:
        entries: their entries in the file.
        root: the folder that their file names are relative to.
        bounds: determines where they may be.
        when_missing: whether an image whose file is missing is an error, and kept, or skipped.
        problems: collects the problems.
    """
    images = CocoImages([], [], [], [], set())
    seen: set[int] = set()
    folders = _Folders()
    prefix = str(root / "name")[: -len("name")]
    for entry in entries:
        identifier, file_name = entry.id, entry.file_name
        if not _is_new_id(identifier, file_name, seen, problems):
            continue
        seen.add(identifier)
        if not isinstance(file_name, str) or not file_name:
            problems.add("image name", f"image {identifier} has no 'file_name'.")
            continue
        is_plain = PLAIN_NAME.fullmatch(file_name)
        file = prefix + file_name if is_plain else str(root / file_name)
        exists = folders.has_file(file)
        if not exists and "\\" in file_name:  # of Windows
            file = str(root / file_name.replace("\\", "/"))
            exists = folders.has_file(file)
        if not exists and not file_name.isascii():
            spelt = {str(root / unicodedata.normalize(form, file_name)) for form in UNICODE_FORMS}
            found = [other for other in spelt if folders.has_file(other)]
            exists = len(found) == 1
            file = found[0] if exists else file
        if exists and not is_plain and not bounds.encloses(file):
            problems.add("image outside", f"image {identifier}: {bounds.describe_outside(file_name)}")
        if not exists:
            images.missing.append(file_name)
            if when_missing == "skip":
                images.skipped.add(identifier)
                continue
            problems.add("image file", f"image {identifier}: {file} does not exist.")
        images.ids.append(identifier)
        images.paths.append(file.encode())
        images.sizes.append(_read_size(entry))
    if images.missing and not images.ids:
        problems.add("image file", f"not one image exists below {root}, e.g. {images.missing[0]}.")
    return images


def _is_new_id(identifier: Any, file_name: Any, seen: set[int], problems: Problems) -> bool:
    """Return whether an id is valid and new; record the problem if it is not."""
    if isinstance(identifier, bool) or not isinstance(identifier, int):
        kind = " (a string)" if isinstance(identifier, str) else ""
        problems.add("image id", f"image {file_name!r} has the id {identifier!r:.80}{kind}; an integer is expected.")
        return False
    if abs(identifier) >= ID_LIMIT:
        problems.add("image id size", f"image {file_name!r} has the id {identifier}, which takes more than 64 bits.")
        return False
    if identifier in seen:
        problems.add("image twice", f"the image id {identifier} is used more than once (again by {file_name!r}).")
        return False
    return True


def is_side(value: Any) -> bool:
    """Whether a value can be the height or width of an image in pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < ID_LIMIT


def _read_size(entry: ImageEntry) -> tuple[int, int]:
    height, width = (side if is_side(side) else 0 for side in (entry.height, entry.width))
    return (height, width) if height and width else (0, 0)
