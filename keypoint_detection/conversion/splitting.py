"""Dividing images into parts for training, validation and test, so that no group of images is in two."""

import numpy as np

from keypoint_detection.conversion.labels import LabelledImage
from keypoint_detection.data.splitting import name_groups
from keypoint_detection.types import DataError

__all__ = ["split_images"]


def split_images(
    images: list[LabelledImage], val_fraction: float, test_fraction: float, group_by: int | str | None, seed: int
) -> None:
    """Set the `split` of every image to train, val or test.

    Groups are drawn in random order; each part takes groups until another one would bring it no closer to its fraction,
    but at least one.

    Args:
        images: the images.
        val_fraction: share of the images to validate on.
        test_fraction: share of the images to test on.
        group_by: a folder level or a regular expression, see `name_groups`; `folder` for level 1, `image` to make each
            image its own group. None: the groups in the source, such as videos; otherwise `image`.
        seed: seed of the draw.

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
    if len(groups) <= len(parts):
        kind = f"groups by {group_by!r}" if group_by else "images or videos"
        raise DataError(
            f"there are {len(groups)} {kind} ({', '.join(sorted(groups)[:3])}), too few for train, "
            f"{' and '.join(parts)}. If images of one group may be in two parts, which "
            "flatters the result, give --group_by=image."
        )
    names = sorted(groups)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    for position, split in enumerate(parts):
        n_parts_after = len(parts) - position  # the later ones, and training
        taken = _take(order, groups, wanted[split], len(order) - n_parts_after)
        order = [name for name in order if name not in taken]
        for name in taken:
            for image in groups[name]:
                image.split = split
    for name in order:
        for image in groups[name]:
            image.split = "train"


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
    if group_by is None:
        return [image.group or image.name for image in images]
    names = [image.name for image in images]
    if group_by == "image":
        return names
    try:
        return name_groups(names, 1 if group_by == "folder" else group_by)
    except DataError as error:
        # The option has a different name here than in a training.
        raise DataError(str(error).replace("data.group_by", "group_by")) from error
