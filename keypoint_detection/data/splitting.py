"""Choose the images to train on and those to hold out: by group, by fold, and in growing parts.

Pure functions of the groups and a seed: every process and every later measurement gets the same split. If every image
is a separate group, the splits are as even as possible. Guessed groups that are too few or too unequal to hold out
whole are divided in time, so that neighbouring images are not on both sides.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.data.grouping import (
    BY_NAMES,
    BY_TIME,
    Integers,
    list_file_names,
    name_groups,
    number_groups,
    number_in_time,
)
from keypoint_detection.types import DataError

# When a group is divided in time, this share of its images is left out, half on each side of those held out, rounded
# up: they show the same moment. Groups with fewer images than the minimum have none to spare.
GAP = 0.05
MIN_IMAGES_FOR_GAP = 10
# A part is reported if its size differs from the requested one by more than this share of it.
TOLERANCE = 1 / 3
# How many held-out groups a message lists.
N_NAMES = 3

# Distinct from the seeds of the split itself: the images that training leaves out are independent of those held out.
FRACTION_STREAM = 1


class Split(NamedTuple):
    """Indices of images, in the order of the file.

    Attributes:
        train: (N,) those to train on.
        val: (M,) those held out; any others lie between the two in time.
    """

    train: Integers
    val: Integers


class SplitOptions(NamedTuple):
    """How images are held out, as configured in `data`.

    Attributes:
        group_by: which images stay together, see `name_groups`.
        val_fraction: the share to hold out, in (0, 1), if there are no folds.
        seed: same seed, same split.
        n_folds: number of folds; None: a share is held out.
        fold: the fold to hold out, from 0; None: a share is held out.
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
        if _is_divided_in_time(groups, options):
            return divide_in_time(groups, number_in_time(list_file_names(table, image_root)), options)
        return _hold_out_groups(groups, options)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error


class HeldOut(NamedTuple):
    """What a split holds out.

    Attributes:
        n_images: the number of held-out images.
        text: which they are: a sentence that follows their number.
        is_random: whether every image is a group of its own.
    """

    n_images: int
    text: str
    is_random: bool


def describe_split(table: CocoKeypoints, image_root: str | None, options: SplitOptions) -> HeldOut:
    """Say which images are held out.

    Args:
        table: the file's content.
        image_root: the folder that the file names are relative to; None for that of the file.
        options: how images are held out.

    Raises:
        DataError: the images cannot be held out in this way.
    """
    names = np.array(name_groups(list_file_names(table, image_root), options.group_by))
    split = split_images(table, image_root, options)
    held_out, n_groups = np.unique(names[split.val]), len(np.unique(names))
    n_val = len(split.val)
    text = f"of {count_in_words(len(names), 'image')} {agree(n_val, 'is', 'are')} held out"
    if n_groups == len(names):
        return HeldOut(n_val, f"{text} at random: each image is a group of its own (data.group_by).", is_random=True)
    listed = ", ".join(held_out[:N_NAMES].tolist()) + (", …" if len(held_out) > N_NAMES else "")
    if np.isin(names, held_out).sum() == n_val:  # whole groups
        wanted = options.val_fraction if options.n_folds is None else 1 / options.n_folds
        is_uneven = abs(n_val / len(names) - wanted) > TOLERANCE * wanted
        note = f" That is {n_val / len(names):.0%} instead of {wanted:.0%}: groups stay whole." if is_uneven else ""
        text = f"{text}: {len(held_out)} of {n_groups} groups, {listed} (data.group_by).{note}"
        return HeldOut(n_val, text, is_random=False)
    n_between = len(names) - len(split.train) - n_val
    between = f", and {count_in_words(n_between, 'image')} next to them left out" if n_between else ""
    text = (
        f"{text}, with consecutive numbers in {listed}{between} (data.group_by). If these are frames of a video, "
        "expect larger errors on other videos; if images are unrelated, --data.group_by=image splits them at random."
    )
    return HeldOut(n_val, text, is_random=False)


def _is_divided_in_time(groups: Integers, options: SplitOptions) -> bool:
    """Whether groups are divided: if the user asks for it, or if they are guessed and whole groups make no fair split.

    Fair means that at least half of the wanted images are held out, and at most half of all.
    """
    if options.group_by != BY_NAMES:
        return options.group_by == BY_TIME
    n_folds = options.n_folds
    wanted = len(groups) * (options.val_fraction if n_folds is None else 1 / n_folds)
    try:
        splits = [_hold_out_groups(groups, options._replace(fold=fold)) for fold in range(n_folds or 1)]
    except DataError:
        return len(np.unique(groups)) < len(groups) and len(groups) >= (n_folds or 2)
    return not all(wanted / 2 <= len(split.val) <= max(wanted, len(groups) / 2) for split in splits)


def _hold_out_groups(groups: Integers, options: SplitOptions) -> Split:
    if options.n_folds is None or options.fold is None:
        return keep_aside(groups, options.val_fraction, options.seed)
    return hold_out_fold(groups, options.n_folds, options.fold, options.seed)


def count_neighbours(n_moments: int) -> int:
    """Return how many moments of a group to leave out where it is divided in time."""
    return math.ceil(GAP * n_moments) if n_moments >= MIN_IMAGES_FOR_GAP else 0


def divide_in_time(groups: Integers, ranks: Integers, options: SplitOptions) -> Split:
    """Hold out consecutive images of each group, and leave out their neighbours.

    Args:
        groups: (I,) the group of each image.
        ranks: (I,) the order of the images in time; views of one moment share a rank, and their side.
        options: the share to hold out, which begins at a random place, or the fold: the folds follow each other.

    Raises:
        DataError: nothing would be left to train on, or nothing is held out.
    """
    role = np.zeros(len(groups), dtype=np.int64)  # 0: train, 1: left out, 2: held out
    generator = np.random.default_rng(options.seed)
    for number, group in enumerate(np.unique(groups).tolist()):
        members = np.flatnonzero(groups == group)
        moments = np.unique(ranks[members], return_inverse=True)[1].reshape(-1)
        n_moments = int(moments.max()) + 1
        if options.n_folds is None or options.fold is None:
            size = round(n_moments * options.val_fraction)
            start = int(generator.integers(n_moments - size + 1))
        else:
            # So that short groups are not all held out by the same folds.
            fold = (options.fold + number) % options.n_folds
            start = n_moments * fold // options.n_folds
            size = n_moments * (fold + 1) // options.n_folds - start
        n_gap = math.ceil(count_neighbours(n_moments) / 2) if size else 0
        role[members[(moments >= start - n_gap) & (moments < start + size + n_gap)]] = 1
        role[members[(moments >= start) & (moments < start + size)]] = 2
    split = Split(np.flatnonzero(role == 0), np.flatnonzero(role == 2))
    if not len(split.train) or not len(split.val):
        raise DataError(
            f"{count_in_words(len(groups), 'image')} cannot be divided in time into training and validation: give "
            "data.val, or set data.group_by=image to split them at random."
        )
    return split


def keep_aside(groups: Integers, fraction: float, seed: int) -> Split:
    """Hold out roughly a given share of the images, in whole groups drawn at random.

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
    """Hold out one of several parts of about equal size, made of whole groups; each image is in exactly one part.

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
    # The largest group first, each into the emptiest fold.
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_group[group] = n_images.argmin()
        n_images[fold_of_group[group]] += sizes[group]
    return _split(fold_of_group[groups] == fold)


def take_fraction(groups: Integers, fraction: float, seeds: Sequence[int]) -> Integers:
    """Draw roughly a given share of the images in whole groups; a larger part contains every smaller one.

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
    """Return the existing groups in random order, and the number of images for each group number."""
    return generator.permutation(np.unique(groups)), np.bincount(groups)


def _split(is_held_out: NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
