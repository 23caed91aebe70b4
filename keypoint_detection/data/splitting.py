"""Which images are trained on and which are held out: by group, by fold, and a growing part of them.

Pure functions of the groups and a seed: every process and every later measurement arrives at the same split. A group is
never divided. If every image is a group of its own, the splits are as even as possible.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.types import DataError

Integers = NDArray[np.int64]

# Distinct from the seeds of the split itself: what a training leaves out is independent of what is held out.
FRACTION_STREAM = 1


class Split(NamedTuple):
    """Indices of images, in the order of the file.

    Attributes:
        train: (N,) those to train on.
        val: (M,) those held out.
    """

    train: Integers
    val: Integers


class SplitOptions(NamedTuple):
    """How images are held out, as configured in `data`.

    Attributes:
        group_by: the images that stay together, see `name_groups`; None: every image by itself.
        val_fraction: the share to hold out, in (0, 1), if there are no folds.
        seed: same seed, same split.
        n_folds: number of folds; None: a share is held out.
        fold: which of them is held out, from 0; None: a share is.
    """

    group_by: int | str | None
    val_fraction: float
    seed: int
    n_folds: int | None
    fold: int | None


def split_images(table: CocoKeypoints, image_root: str | None, options: SplitOptions) -> Split:
    """Divide the images of a file into those to train on and those held out.

    Args:
        table: the file's content.
        image_root: the folder that the file names are relative to; None for that of the file.
        options: how.

    Raises:
        DataError: nothing would be left to train on, or there are more folds than groups.
    """
    groups = number_groups(table, image_root, options.group_by)
    try:
        if options.n_folds is None or options.fold is None:
            return keep_aside(groups, options.val_fraction, options.seed)
        return hold_out_fold(groups, options.n_folds, options.fold, options.seed)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error


def number_groups(table: CocoKeypoints, image_root: str | None, group_by: int | str | None) -> Integers:
    """Number the group of each image of a file, (I,); without `group_by` every image is a group of its own.

    Args:
        table: the file's content.
        image_root: the folder that the file names are relative to; None for that of the file.
        group_by: a folder level or a regular expression, see `name_groups`.

    Raises:
        DataError: an image has no such folder, or the expression is wrong or does not match its file name.
    """
    if group_by is None:
        return np.arange(len(table.image_ids))
    root = Path(image_root) if image_root is not None else table.path.parent
    paths = [Path(path.decode()) for path in table.image_paths]
    files = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    try:
        names = name_groups([file.as_posix() for file in files], group_by)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error
    numbers: Integers = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64).reshape(-1)
    return numbers


def name_groups(file_names: Sequence[str], group_by: int | str) -> list[str]:
    r"""Name the group that each file belongs to.

    Args:
        file_names: as in the COCO file, with forward slashes.
        group_by: 1 for the folder that a file is in, 2 for the one above it, and so on; or a regular expression
            searched for in the name, where the text of its groups counts (or of the whole match if it has none).

    Raises:
        DataError: a file has no such folder, or the expression is wrong or does not match.

    >>> name_groups(["a/cam0/1.png", "a/cam1/1.png"], 1), name_groups(["mouse3_017.png"], r"mouse(\d+)")
    (['a/cam0', 'a/cam1'], ['3'])
    """
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


def keep_aside(groups: Integers, fraction: float, seed: int) -> Split:
    """Hold out roughly a share of the images, in whole groups drawn at random.

    Args:
        groups: (I,) the group of each image.
        fraction: the share to hold out, in (0, 1); at least one group.
        seed: same seed, same split.

    Raises:
        DataError: nothing would be left to train on.
    """
    target = max(1, round(len(groups) * fraction))
    order, sizes = _shuffle_groups(groups, np.random.default_rng(seed))
    chosen: list[int] = []
    n_images = 0
    for group in order.tolist():
        # A group is taken if that comes closer to the target; a large one may be skipped in favour of a small one.
        if abs(n_images + sizes[group] - target) < abs(n_images - target):
            chosen.append(group)
            n_images += int(sizes[group])
    chosen = chosen or [int(order[sizes[order].argmin()])]
    if len(chosen) >= len(order):
        what = f"{len(groups)} image(s)" if len(order) == len(groups) else f"{len(order)} group(s) of images"
        raise DataError(f"{what} cannot be split into training and validation; give data.val.")
    return _split(np.isin(groups, chosen))


def check_folds(n_folds: int | None, fold: int | None) -> None:
    """Refuse a fold that cannot exist.

    Raises:
        DataError: one of the two is missing, there is only one fold, or there is no such fold.
    """
    if n_folds is None and fold is None:
        return
    if n_folds is None:
        raise DataError(f"data.fold is {fold}, but data.n_folds is missing: give --data.n_folds too, e.g. 5.")
    if n_folds == 1:
        raise DataError("data.n_folds is 1: a single fold would leave nothing to train on; at least 2 are expected.")
    if fold is None:
        raise DataError(
            f"data.n_folds is {n_folds}, but data.fold is missing: give the fold to hold out, 0 to {n_folds - 1}."
        )
    if not 0 <= fold < n_folds:
        raise DataError(f"data.fold is {fold}; with data.n_folds={n_folds} the folds are 0 to {n_folds - 1}.")


def hold_out_fold(groups: Integers, n_folds: int, fold: int, seed: int) -> Split:
    """Hold out one of several parts of about equal size, made of whole groups; each image is in one part.

    Args:
        groups: (I,) the group of each image.
        n_folds: the number of parts.
        fold: which of them is held out, from 0.
        seed: same seed, same parts.

    Raises:
        DataError: there are fewer groups than folds.
    """
    order, sizes = _shuffle_groups(groups, np.random.default_rng(seed))
    if len(order) < n_folds:
        what = "image(s)" if len(order) == len(groups) else f"group(s) of {len(groups)} images (data.group_by)"
        raise DataError(
            f"data.n_folds is {n_folds}, but there are only {len(order)} {what}, and each fold needs one; use fewer "
            "folds or smaller groups."
        )
    n_images = np.zeros(n_folds, dtype=np.int64)
    fold_of_group = np.zeros(len(sizes), dtype=np.int64)
    # The largest first, each into the emptiest fold.
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_group[group] = n_images.argmin()
        n_images[fold_of_group[group]] += sizes[group]
    return _split(fold_of_group[groups] == fold)


def take_fraction(groups: Integers, fraction: float, seeds: Sequence[int]) -> Integers:
    """Draw roughly a share of the images in whole groups; a larger part contains every smaller one.

    Args:
        groups: (N,) the group of each image.
        fraction: the share, in (0, 1]; at least one group.
        seeds: same seeds, same part.

    Returns:
        Positions of the images, ascending.
    """
    order, sizes = _shuffle_groups(groups, np.random.default_rng([*seeds, FRACTION_STREAM]))
    n_images = np.cumsum(sizes[order])
    n_groups = int(np.abs(n_images - len(groups) * fraction).argmin()) + 1
    return np.flatnonzero(np.isin(groups, order[:n_groups]))


def _shuffle_groups(groups: Integers, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Return the existing groups in random order, and the number of images for every group number."""
    return generator.permutation(np.unique(groups)), np.bincount(groups)


def _split(is_held_out: NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
