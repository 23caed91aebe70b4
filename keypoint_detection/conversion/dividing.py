"""Divide images into parts for training, validation and test, so that no group of images is split between two parts."""

import numpy as np

from keypoint_detection.conversion.label_set import LabelledImage
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.grouping import BY_TIME, guess_group, name_groups, number_in_time
from keypoint_detection.data.splitting import TOLERANCE, count_neighbours
from keypoint_detection.types import DataError


def divide_images(
    images: list[LabelledImage], val_fraction: float, test_fraction: float, group_by: int | str | None, seed: int
) -> list[str]:
    """Set the `split` of every image to train, val or test.

    Groups are drawn in random order; each part takes groups until another one would bring it no closer to its fraction,
    but at least one. If there are too few videos for that, or the guessed ones are too unequal, each is divided in
    time.

    Args:
        images: the images; those between two parts of one video are removed.
        val_fraction: share of the images to validate on.
        test_fraction: share of the images to test on.
        group_by: see `name_groups`; `time` to divide each video in time. None: the groups in the source, such as
            videos; otherwise `names`.
        seed: seed of the draw.

    Returns:
        Notes for the user.

    Raises:
        DataError: there are too few groups, or the expression does not match.
    """
    if not val_fraction + test_fraction < 1:
        raise DataError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave no images for training; their sum "
            "must be below 1."
        )
    groups: dict[str, list[LabelledImage]] = {}
    for image, name in zip(images, _name_groups(images, group_by), strict=True):
        groups.setdefault(name, []).append(image)
    wanted = {"val": val_fraction * len(images), "test": test_fraction * len(images)}
    parts = [split for split, number in wanted.items() if number]
    n_images = len(images)
    is_guessed = group_by is None and not all(image.group for image in images)
    sizes = [len(group) for group in groups.values()]
    are_few = len(groups) <= len(parts) or (is_guessed and max(sizes) > len(images) / 2)
    if group_by == BY_TIME or (group_by is None and are_few and max(sizes) > 1):
        fractions = (val_fraction, test_fraction)
        kept = [one for group in groups.values() for one in _divide_in_time(group, *fractions, len(groups) == 1)]
        images[:] = kept
        videos = count_in_words(len(groups), "video is", "videos are each")
        left_out = count_in_words(n_images - len(kept), "image between the parts is", "images between the parts are")
        notes = [
            f"{videos} divided in time, and {left_out} left out: a whole video of its own would make a better test."
        ]
        return notes + _note_misses(images, wanted, n_images)
    if len(groups) <= len(parts):
        kind = f"groups by {group_by!r}" if group_by else "images or videos"
        raise DataError(
            f"there are {len(groups)} {kind} ({', '.join(sorted(groups)[:3])}), too few for train, "
            f"{' and '.join(parts)}. If one group may be split between two parts, which makes the result look too "
            "good, give --group_by=image."
        )
    names = sorted(groups)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    for position, split in enumerate(parts):
        n_parts_after = len(parts) - position  # the parts after it, and training
        taken = _take(order, groups, wanted[split], len(order) - n_parts_after)
        order = [name for name in order if name not in taken]
        for name in taken:
            for image in groups[name]:
                image.split = split
    for name in order:
        for image in groups[name]:
            image.split = "train"
    return _note_misses(images, wanted, n_images)


def _divide_in_time(
    group: list[LabelledImage], val_fraction: float, test_fraction: float, is_alone: bool
) -> list[LabelledImage]:
    """Set the parts of one video, training first, and return its images without those between two parts.

    A video too short for all parts is trained on, if it is not alone.

    Raises:
        DataError: it has too few images for that.
    """
    moments = np.unique(number_in_time([image.name for image in group]), return_inverse=True)[1].reshape(-1)
    n_moments = int(moments.max()) + 1
    shares = {"val": val_fraction, "test": test_fraction}
    sizes = {split: max(1, round(share * n_moments)) for split, share in shares.items() if share}
    n_gap = count_neighbours(n_moments)
    n_train = n_moments - sum(sizes.values()) - n_gap * len(sizes)
    if n_train < 1 and is_alone:
        raise DataError(
            f"{group[0].group or 'the images'}: {count_in_words(len(group), 'image is', 'images are')} too few to "
            f"divide into train, {' and '.join(sizes)} in time; --group_by=image divides them at random."
        )
    if n_train < 1:
        sizes, n_train = {}, n_moments
    split_of = ["train"] * n_train
    for split, size in sizes.items():
        split_of += [""] * n_gap + [split] * size
    for image, moment in zip(group, moments.tolist(), strict=True):
        image.split = split_of[moment]
    return [image for image in group if image.split]


def _note_misses(images: list[LabelledImage], wanted: dict[str, float], n_images: int) -> list[str]:
    """Report parts whose sizes differ much from those requested, as happens with few groups."""
    notes = []
    for split, number in wanted.items():
        count = sum(image.split == split for image in images)
        if number and abs(count - number) > TOLERANCE * number and abs(count - number) >= 1:
            share = f"{count / n_images:.0%} of the images instead of {number / n_images:.0%}"
            notes.append(
                f"{split} has {share}, because whole groups are in one part; --group_by={BY_TIME} divides each in time."
            )
    return notes


def _take(order: list[str], groups: dict[str, list[LabelledImage]], wanted: float, n_most: int) -> set[str]:
    taken: set[str] = set()
    n_images = 0
    for name in order:
        size = len(groups[name])
        if len(taken) < n_most and abs(n_images + size - wanted) < abs(n_images - wanted):
            taken.add(name)
            n_images += size
    if not taken:  # every group is more than twice as large as the part
        taken.add(min(order, key=lambda name: len(groups[name])))
    return taken


def _name_groups(images: list[LabelledImage], group_by: int | str | None) -> list[str]:
    if group_by is None or group_by == BY_TIME:
        return [image.group or guess_group(image.name) for image in images]
    try:
        return name_groups([image.name for image in images], group_by)
    except DataError as error:
        # The option has a different name here than in `kpd fit`.
        raise DataError(str(error).replace("data.group_by", "group_by")) from error
