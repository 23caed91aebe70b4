"""Groups of images that belong together, such as the frames of a video, in the parts of a data set."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import agree
from keypoint_detection.data.checks.findings import Finding, shorten_list
from keypoint_detection.data.checks.parts import Part
from keypoint_detection.data.grouping import guess_group, number_in_time

# With fewer images than this in the average group, the images are not frames of videos.
MIN_MEAN_SIZE = 3
# The approximate share of the images for validation.
VAL_SHARE = 0.2
N_NAMES = 5
# A part of a video that is held out in one piece has images of the other part before and after it at most.
MAX_CHANGES = 2
# Folders that contain a part of a data set; the same video may be in several.
PART_FOLDER = re.compile(r"train|training|val|valid|validation|test|testing|eval", re.I)


def find_groups(paths: Sequence[str]) -> list[str] | None:
    """Guess the group of each image from its folder and name.

    Returns:
        One name per image; None if the names suggest no groups, or only one.
    """
    groups = [guess_group(path) for path in paths]
    n_groups = len(set(groups))
    return groups if n_groups > 1 and len(paths) / n_groups >= MIN_MEAN_SIZE else None


def check_shared_groups(parts: Sequence[Part]) -> list[Finding]:
    """Find images whose names suggest that another part has frames of the same video."""
    findings = []
    for first, second in combinations(sorted(parts, key=lambda part: part.name != "train"), 2):
        others, names = np.array(_guess_recordings(first)), np.array(_guess_recordings(second))
        shared = np.isin(names, others)
        if not shared.any():
            continue
        groups, count = np.unique(names[shared]).tolist(), int(shared.sum())
        text = (
            f"of {len(names)} {second.name} images {agree(count, 'has a name', 'have names')} that differ from those "
            f"of {first.name} images only in a running number ({shorten_list(groups, N_NAMES)}): if they are frames of "
            "one video, expect larger errors on other videos"
        )
        is_mixed = _is_mixed([first, second], np.concatenate([others, names]))
        if is_mixed:
            text += f", and much larger ones than on {second.name}, whose images lie between those of {first.name}"
        examples = tuple(second.describe_image(index) for index in np.flatnonzero(shared).tolist())
        source = f"{first.path}, {second.path}"
        findings.append(Finding("warning" if is_mixed else "note", "split_groups", source, count, f"{text}.", examples))
    return findings


def _is_mixed(parts: Sequence[Part], names: NDArray[np.str_]) -> bool:
    """Whether the images of a group in two parts are not divided in time; names are those of all images' groups."""
    paths = [path.decode() for part in parts for path in part.table.image_paths]
    sides = np.repeat(np.arange(len(parts)), [len(part.table.image_paths) for part in parts])
    groups = np.unique(names, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((number_in_time(paths), groups))
    is_change = (np.diff(sides[order]) != 0) & (np.diff(groups[order]) == 0)
    return bool((np.bincount(groups[order][1:][is_change]) > MAX_CHANGES).any())


def _guess_recordings(part: Part) -> list[str]:
    """Guess the group of each image, leaving out the folders of parts where the name identifies the video."""
    names = []
    for path in part.table.image_paths:
        group = PurePath(guess_group(path.decode()))
        folders = [one for one in group.parent.parts if not PART_FOLDER.fullmatch(one)]
        names.append(str(group if group.name == "*" else PurePath(*folders, group.name)))
    return names


def propose_split(groups: Sequence[str]) -> str:
    """Suggest groups for the validation part: about a fifth of the images, in few groups."""
    sizes = Counter(groups)
    target = VAL_SHARE * len(groups)
    picked: list[str] = []
    # The largest that still fit, so that training keeps the variety of many groups.
    for name, size in sizes.most_common():
        if sum(sizes[one] for one in picked) + size <= target or (not picked and name == sizes.most_common()[-1][0]):
            picked.append(name)
    share = sum(sizes[name] for name in picked) / len(groups)
    return (
        f"the names suggest {len(sizes)} groups ({shorten_list(list(sizes), N_NAMES)}): validate on "
        f"{shorten_list(picked, N_NAMES)}, {share:.0%} of the images, and train on the others; or leave the validation "
        "file out, and data.group_by=names keeps them together"
    )
