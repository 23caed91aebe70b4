"""Determine from folders and file names which images belong together, such as the frames of a video."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.types import DataError

Integers = NDArray[np.int64]

# Values of `group_by` besides a folder level and a regular expression: guess groups from folders and file names; make
# each image a group; guess groups, and divide each of them in time.
BY_NAMES = "names"
BY_IMAGE = "image"
BY_TIME = "time"
# A word for the level 1.
BY_FOLDER = "folder"

# "video_103" in "video_103_crop2_f2353": a recording and its number, followed by another number.
RECORDING = re.compile(
    r".*?(?<![a-z])(?:video|vid|clip|movie|film|session|recording|sequence|seq|trial)[\W_]*\d+(?!\d)(?=.*\d)", re.I
)
# "_f2353", "img0012", "017", and the time after a date.
RUNNING_NUMBER = re.compile(
    r"(?:(?<=\d{4}[-_]\d\d[-_]\d\d)[\W_t]+\d\d?[\W_]\d\d[\W_]\d\d|[\W_]*(?:(?<![a-z])(?:frame|image|img|f))?[\W_]*(?:\d+\.)?\d+)$",
    re.I,
)
# What Roboflow appends to a name, and what Label Studio puts before it.
EXPORTED = re.compile(r"(?:_(?:jpe?g|png|bmp|webp|tiff?))?\.rf\.[0-9a-z]+$|^[0-9a-f]{8}-(?=.)", re.I)
# Cameras that show one scene at the same time.
VIEW = re.compile(r"(?<![a-z])(?:cam|camera|view|left|right|top|side|front|back|bottom)[\W_]?\d{0,2}(?![a-z\d])", re.I)


def name_groups(file_names: Sequence[str], group_by: int | str | None) -> list[str]:
    r"""Name the group that each file belongs to.

    Args:
        file_names: as in the COCO file, with forward slashes.
        group_by: `names` or `time` to guess, see `guess_group`; `image` or None for each file by itself; `folder` or 1
            for the folder that a file is in, 2 for the one above it, and so on; or a regular expression searched for in
            the name, where the text of its groups counts (or of the whole match if it has none).

    Raises:
        DataError: a file has no such folder, or the expression is wrong or does not match.

    >>> name_groups(["a/cam0/1.png", "a/cam1/1.png"], 1), name_groups(["mouse3_017.png"], r"mouse(\d+)")
    (['a/cam0', 'a/cam1'], ['3'])
    """
    if group_by is None or group_by == BY_IMAGE:
        return list(file_names)
    if group_by in (BY_NAMES, BY_TIME):
        return [guess_group(file) for file in file_names]
    group_by = 1 if group_by == BY_FOLDER else group_by
    if group_by == "":
        raise DataError("data.group_by is empty; names, image, time, folder, a level or an expression is expected.")
    names = [_name_group(PurePosixPath(file), group_by) for file in file_names]
    missing = [file for file, name in zip(file_names, names, strict=True) if name is None]
    if missing:
        what = f"have fewer than {group_by} folders" if isinstance(group_by, int) else "do not match it"
        raise DataError(
            f"data.group_by={group_by!r}: {len(missing)} of {len(names)} file names {what}, e.g. {missing[0]!r}. Every "
            "image needs a group: give a folder level (1 for the folder that an image is in, 2 for the one above it) "
            r"or a regular expression that matches every file name, such as '(session\d+)'."
        )
    return [name for name in names if name is not None]


def guess_group(file_name: str) -> str:
    """Name the group of a file as a pattern: its folder and name, with a star for the running number.

    Names of recordings ("video_103") end the pattern. Views of one scene ("cam1", "left") share a group.

    >>> [guess_group(name) for name in ("a/mouse3_017.png", "a/video_103_crop2_f2353.png", "cam1/007.png", "tom.png")]
    ['a/mouse3*', 'a/video_103*', '*', 'tom.png']
    """
    file = PurePosixPath(file_name)
    folders = [part for part in file.parent.parts if VIEW.sub("", part)]
    stem = _clean(file)
    recording = RECORDING.match(stem)
    start = recording[0] if recording else RUNNING_NUMBER.sub("", stem)
    return str(PurePosixPath(*folders, file.name if start == file.stem else f"{start}*"))


def number_in_time(file_names: Sequence[str]) -> Integers:
    """Rank files by the numbers in their names, (I,): views of one scene at the same time have the same rank.

    >>> number_in_time(["cam1_9.png", "cam1_10.png", "cam2_9.png"]).tolist()
    [0, 1, 0]
    """
    stems = [_clean(PurePosixPath(name)) for name in file_names]
    keys = [([int(digits) for digits in re.findall(r"\d+", stem)], re.sub(r"\d+", "", stem)) for stem in stems]
    moments = {key: rank for rank, key in enumerate(sorted({(tuple(numbers), rest) for numbers, rest in keys}))}
    return np.array([moments[tuple(numbers), rest] for numbers, rest in keys], dtype=np.int64)


def _clean(file: PurePosixPath) -> str:
    """Return the name of a file without its suffix, its view, and what label tools add."""
    stem = EXPORTED.sub("", EXPORTED.sub("", file.stem))
    return re.sub(r"[\W_]+$", "", VIEW.sub("", stem))


def list_file_names(table: CocoKeypoints, image_root: str | None) -> list[str]:
    """List the files of a table's images relative to their root, where they are below it.

    Args:
        table: the content of a COCO file.
        image_root: the folder that the file names are relative to; None for that of the file.
    """
    root = Path(image_root) if image_root is not None else table.path.parent
    paths = [Path(path.decode()) for path in table.image_paths]
    return [(path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths]


def number_groups(table: CocoKeypoints, image_root: str | None, group_by: int | str | None) -> Integers:
    """Number the group of each image of a file, (I,).

    Args:
        table: the file's content.
        image_root: the folder that the file names are relative to; None for that of the file.
        group_by: see `name_groups`.

    Raises:
        DataError: an image has no such folder, or the expression is wrong or does not match its file name.
    """
    if group_by is None or group_by == BY_IMAGE:
        return np.arange(len(table.image_ids))
    try:
        names = name_groups(list_file_names(table, image_root), group_by)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error
    # Numbered by name, as always in runs with a folder level or an expression; guessed groups are numbered as they
    # appear, so that images without a group are split as if there were no groups.
    ordered = dict.fromkeys(names if group_by in (BY_NAMES, BY_TIME) else sorted(names))
    number_of = {name: number for number, name in enumerate(ordered)}
    return np.array([number_of[name] for name in names], dtype=np.int64)


def _name_group(file: PurePosixPath, group_by: int | str) -> str | None:
    """Name the group of a file; None if it has none."""
    if isinstance(group_by, int):
        parents = [str(parent) for parent in file.parents if parent.name]
        return parents[group_by - 1] if group_by <= len(parents) else None
    try:
        match = re.search(group_by, str(file))
    except re.error as error:
        raise DataError(f"data.group_by={group_by!r} is not a regular expression: {error}.") from error
    return None if match is None else "/".join(text or "" for text in match.groups()) or match[0]
