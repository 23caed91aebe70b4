"""Groups of images that belong together, such as the frames of a video, in the parts of a data set."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import PurePath

import numpy as np

from keypoint_detection.counting import agree
from keypoint_detection.data.checks.findings import Finding, shorten_list
from keypoint_detection.data.checks.parts import Part
from keypoint_detection.data.grouping import guess_group

# With fewer images than this in the average group, the images are not frames of videos.
MIN_MEAN_SIZE = 3
# The approximate share of the images for validation.
VAL_SHARE = 0.2
N_NAMES = 5
# Names of folders that contain one part of a data set; the same video can be in several.
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
        names, others = _guess_recordings(second), set(_guess_recordings(first))
        shared = np.array([name in others for name in names], dtype=bool)
        count = int(shared.sum())
        if not count:
            continue
        text = (
            f"of {len(names)} {second.name} images {agree(count, 'has a name', 'have names')} that differ from those "
            f"of {first.name} images only in a running number: if they are frames of one video, expect larger errors "
            f"on other videos. To hold out whole videos, leave the {second.name} file out (data.group_by=names)."
        )
        groups = sorted({name for name, is_shared in zip(names, shared, strict=True) if is_shared})
        source = f"{first.path}, {second.path}"
        findings.append(Finding("warning", "split_groups", source, count, text, tuple(groups)))
    return findings


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
