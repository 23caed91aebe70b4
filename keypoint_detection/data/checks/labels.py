"""Checks on the labels, given the sizes of the images: cheap enough to run at the start of training."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.codec.votes import CLOSEST_CENTRES_PX
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.findings import Finding, shorten_list
from keypoint_detection.data.checks.parts import Part, Requirements, measure_to_nearest, pair_within_groups

# A channel with fewer points than this has hardly been labelled; a file with fewer images is only a trial.
FEW_POINTS = 10
# Number of points needed before their common range is informative.
N_POINTS_FOR_RANGE = 10
# Coordinates in percent end at 100, whereas images are much larger.
PERCENT_LIMIT, PERCENT_MIN_SIDE_PX = 100, 200
# Share of the points outside that swapping x and y must bring inside before it is suggested as the cause.
SWAPPED_SHARE = 0.95
# If a larger share of the points is outside, the remaining points are wrong as well.
MOSTLY = 0.5
# Number of names that a message lists before it only counts.
N_NAMES = 8
# Nobody reads more examples than this, and describing a million takes a long time.
N_DESCRIBED = 100


def check_labels(part: Part, requirements: Requirements) -> list[Finding]:
    """Check the labels of a single part: coordinates, channels, numbers of points and their distances."""
    return [
        *check_coordinates(part),
        *check_channels(part),
        *check_counts(part, requirements),
        *check_distances(part, requirements),
        *check_objects(part, requirements),
    ]


def are_shares(points: NDArray[np.floating[Any]]) -> bool:
    """Whether (P, 2) coordinates look like fractions of a side instead of pixels; a few points prove nothing."""
    return len(points) >= N_POINTS_FOR_RANGE and bool(points.min() >= 0 and points.max() <= 1)


def check_coordinates(part: Part) -> list[Finding]:
    """Find coordinates that are not pixels of their images: shares of a side, percent, swapped axes, outside."""
    points, source = part.table.truths.points, str(part.path)
    # Whether a point is outside can be told only where the size of its image is known.
    is_known: NDArray[np.bool_] = part.sizes[part.owners].min(axis=1) > 0
    examples = _describe(part, np.flatnonzero(is_known))
    if are_shares(points):
        text = (
            "labelled points, which is all of them, have coordinates between 0 and 1: they look like fractions of the "
            "sides; multiply them by width and height."
        )
        return [Finding("error", "normalised", source, len(points), text, examples)]
    sides = part.sizes[part.sizes.all(axis=1)]
    if (
        len(points) >= N_POINTS_FOR_RANGE
        and len(sides)
        and points.min() >= 0
        and points.max() <= PERCENT_LIMIT
        and sides.min() > PERCENT_MIN_SIDE_PX
        and (points > PERCENT_LIMIT / 2).any()
    ):
        text = (
            "labelled points, which is all of them, have coordinates between 0 and 100, and the smallest side of an "
            f"image is {sides.min()} px: they look like percentages; multiply them by width / 100 and height / 100."
        )
        return [Finding("warning", "percent", source, len(points), text, examples)]
    rows = np.flatnonzero(part.is_outside)
    if not len(rows):
        return []
    n_points = int(is_known.sum())
    text = f"of {count_in_words(n_points, 'labelled point')} "
    text += agree(len(rows), "is outside its image and is left out.", "are outside their image and are left out.")
    is_most = len(rows) >= N_POINTS_FOR_RANGE and len(rows) > MOSTLY * n_points
    if is_most:
        text = f"of {n_points} labelled points are outside their image: the coordinates do not belong to these images."
    limits = part.sizes[part.owners][:, ::-1]
    would_fit = (points[:, ::-1] >= 0).all(axis=1) & (points[:, ::-1] <= limits).all(axis=1) & is_known
    if len(rows) >= N_POINTS_FOR_RANGE and would_fit.sum() > SWAPPED_SHARE * n_points:
        text += " With x and y swapped, nearly all would be inside: are they in the order (x, y)?"
    return [Finding("error" if is_most else "warning", "outside", source, len(rows), text, _describe(part, rows))]


def check_channels(part: Part) -> list[Finding]:
    """Find channels with no or few points, and keypoint types that no channel collects."""
    counts = dict(zip(part.channels, part.in_channels.sum(axis=0).tolist(), strict=True))
    source, findings = str(part.path), []
    empty = [name for name, count in counts.items() if not count]
    few = [f"{name} ({count})" for name, count in counts.items() if 0 < count < FEW_POINTS]
    if empty:
        text = agree(len(empty), "channel has", "channels have")
        done = {"train": "learned", "": "learned or measured"}.get(part.name, "measured")
        text += f" no labelled points, so nothing can be {done}: {_names(empty)}."
        findings.append(Finding("warning", "empty_channel", source, len(empty), text))
    if part.name in ("", "train") and len(part.sizes) < FEW_POINTS:
        text = agree(len(part.sizes), "image is hardly enough to train on.", "images are hardly enough to train on.")
        findings.append(Finding("note", "few_images", source, len(part.sizes), text))
    elif few and part.name in ("", "train"):
        text = agree(len(few), "channel has", "channels have")
        text += f" fewer than {FEW_POINTS} labelled points: {_names(few)}."
        findings.append(Finding("warning", "few_points", source, len(few), text))
    types = part.table.keypoint_types
    unused = [
        str(one) for one in types if not any(one.answers_to(text) for texts in part.channels.values() for text in texts)
    ]
    if unused:
        text = agree(len(unused), "keypoint type is", "keypoint types are")
        text += f" in no channel: {_names(unused)}. {agree(len(unused), 'Its', 'Their')} points are ignored."
        findings.append(Finding("note", "unused_type", source, len(unused), text))
    return findings


def check_counts(part: Part, requirements: Requirements) -> list[Finding]:
    """Find images with more points of a channel than a detector returns."""
    per_image = count_per_image(part)  # (I, C)
    limit = requirements.max_keypoints
    images = [] if limit is None else np.flatnonzero(per_image.max(axis=1, initial=0) > limit).tolist()
    if not images:
        return []
    names = list(part.channels)
    examples = tuple(
        f"{part.describe_image(image)}: {per_image[image].max()} points of channel '{names[per_image[image].argmax()]}'"
        for image in images
    )
    text = (
        f"{agree(len(images), 'image has', 'images have')} more points of a channel than model.max_keypoints, "
        f"{limit}: the others cannot be found. Set --model.max_keypoints={per_image.max()}."
    )
    return [Finding("warning", "max_keypoints", str(part.path), len(images), text, examples)]


def check_distances(part: Part, requirements: Requirements) -> list[Finding]:
    """Find pairs of points of a channel that are closer together than the minimum distance between two detections."""
    pairs, distances = _find_close_pairs(part, requirements)
    if not len(pairs):
        return []
    examples = tuple(
        f"{distance:.2f} px apart: {part.describe_point(a)} and {part.describe_point(b)}"
        for (a, b), distance in zip(pairs[:N_DESCRIBED].tolist(), distances[:N_DESCRIBED].tolist(), strict=True)
    )
    text = (
        f"{agree(len(pairs), 'pair of points of one channel is', 'pairs of points of one channel are')} closer in the "
        f"network's input than model.min_distance_px, {requirements.min_distance_px:g}: only one of the two can be "
        "found. "
    )
    size = "its own size" if requirements.image_size is None else f"data.image_size {list(requirements.image_size)}"
    text += f"Each image is resized to {size}; a larger one, or a smaller distance, keeps them apart."
    return [Finding("warning", "min_distance", str(part.path), len(pairs), text, examples)]


def _find_close_pairs(part: Part, requirements: Requirements) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (N, 2) the rows of too close points of one channel and image, and (N,) their distances in input px."""
    points_input = part.table.truths.points * part.scales(requirements)[part.owners]
    rows, channels = np.nonzero(part.in_channels)
    groups = part.owners[rows] * len(part.channels) + channels
    order = np.argsort(groups, kind="stable")
    rows, groups = rows[order], groups[order]
    pairs, distances = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for firsts, seconds in pair_within_groups(groups):
        candidates = np.stack([rows[firsts], rows[seconds]], axis=1)
        apart = np.linalg.norm(points_input[candidates[:, 0]] - points_input[candidates[:, 1]], axis=1)
        is_close = apart < requirements.min_distance_px
        pairs.append(candidates[is_close])
        distances.append(apart[is_close])
    return np.concatenate(pairs), np.concatenate(distances)


def check_objects(part: Part, requirements: Requirements) -> list[Finding]:
    """Count images with several objects, and find objects that are hard to tell apart or split over annotations."""
    n_images = count_grouped_images(part)
    if not n_images:
        return []
    rows, _ = _list_objects(part)
    images = part.owners[rows]
    centres = part.table.truths.centres[rows] * part.scales(requirements)[images]
    close = (measure_to_nearest(centres, images) < CLOSEST_CENTRES_PX).mean()
    text = (
        f"{agree(n_images, 'image has', 'images have')} several objects, so points are grouped (model.group). The "
        f"centres of {close:.0%} of all objects are less than {CLOSEST_CENTRES_PX:g} px from another's in the "
        "network's input, too close to tell their points apart."
    )
    return [Finding("note", "several_objects", str(part.path), n_images, text), *_find_split_objects(part)]


def _list_objects(part: Part) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (N,) the row of the first used point of each object, in order of images, and (N,) its number of points."""
    used = np.flatnonzero(part.in_channels.any(axis=1))
    starts = np.flatnonzero(np.diff(part.number_objects(used), prepend=-1))
    return used[starts], np.diff(starts, append=len(used))


def _find_split_objects(part: Part) -> list[Finding]:
    """Find images in which one object seems to be two annotations: without a common type, one inside the other."""
    table = part.table
    found = []
    n_objects = np.bincount(part.owners[_list_objects(part)[0]])
    for image in np.flatnonzero(n_objects > 1):
        rows = np.arange(table.offsets[image], table.offsets[image + 1])
        by_object = [rows[table.truths.instances[rows] == one] for one in np.unique(table.truths.instances[rows])]
        if any(_are_parts(part, one, other) for one, other in itertools.permutations(by_object, 2)):
            found.append(int(image))
    if not found:
        return []
    text = (
        f"{agree(len(found), 'image has', 'images have')} two annotations of one category without a common keypoint "
        "type, one inside the other: if they are parts of one object, join them into one annotation."
    )
    examples = tuple(part.describe_image(image) for image in found[:N_DESCRIBED])
    return [Finding("warning", "split_objects", str(part.path), len(found), text, examples)]


def _are_parts(part: Part, one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether the points of one annotation (rows) lie among those of another one, which has other types."""
    types, points = part.table.types, part.table.truths.points
    categories = {part.table.keypoint_types[index].category for index in (types[one[0]], types[other[0]])}
    if len(categories) > 1 or set(types[one].tolist()) & set(types[other].tolist()):
        return False
    low, high = points[other].min(axis=0), points[other].max(axis=0)
    return bool(((points[one] >= low) & (points[one] <= high)).all())


def count_per_image(part: Part) -> NDArray[np.int64]:
    """Return (I, C) the number of points of each channel in each image."""
    total = np.concatenate([np.zeros((1, len(part.channels)), np.int64), part.in_channels.cumsum(axis=0)])
    counts: NDArray[np.int64] = np.diff(total[part.table.offsets], axis=0)
    return counts


def count_grouped_images(part: Part) -> int:
    """Count the images with several objects, one of which has several points."""
    rows, n_points = _list_objects(part)
    images = part.owners[rows]
    is_large = np.bincount(images, n_points > 1) > 0
    return int(((np.bincount(images) > 1) & is_large).sum())


def _describe(part: Part, rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"{part.describe_point(row)} of {_size(part, row)}" for row in rows[:N_DESCRIBED].tolist())


def _size(part: Part, row: int) -> str:
    height, width = part.sizes[part.owners[row]]
    return f"{height}x{width} (height x width)"


def _names(names: list[str]) -> str:
    return shorten_list(names, N_NAMES)
