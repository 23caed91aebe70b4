"""Groups of images that belong together, such as the frames of a video, guessed from their file names."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from keypoint_detection.data.checks.findings import shorten_list

# With fewer images than this in the average group, they are not frames of videos.
MIN_MEAN_SIZE = 3
# The approximate share of the images for validation.
VAL_SHARE = 0.2
N_NAMES = 5
# The group of files that are named by a number alone.
NUMBERED = "numbered files"


def find_groups(paths: Sequence[str]) -> list[str] | None:
    """Name the group of each image: the part of its name before the frame number, or else its folder.

    Returns:
        One name per image; None if the names suggest no groups, or only one.

    >>> find_groups(["a/clip1_001.jpg", "a/clip1_002.jpg", "a/clip1_003.jpg", "a/x_1.jpg", "a/x_2.jpg", "a/x_3.jpg"])
    ['clip1', 'clip1', 'clip1', 'x', 'x', 'x']
    """
    folders = [str(PurePath(path).parent) for path in paths]
    stems = [re.sub(r"[\W_]*(frame|img|image)?[\W_]*\d+$", "", PurePath(path).stem, flags=re.I) for path in paths]
    stems = [stem or NUMBERED for stem in stems]
    # Names first: one folder may contain several videos.
    for groups in (stems, folders):
        n_groups = len(set(groups))
        if n_groups > 1 and len(paths) / n_groups >= MIN_MEAN_SIZE:
            return groups
    return None


def propose_split(groups: Sequence[str]) -> str:
    """Suggest groups for the validation part: about a fifth of the images, in few groups."""
    sizes = Counter(groups)
    target = VAL_SHARE * len(groups)
    picked: list[str] = []
    # The largest that still fit, so that the training keeps the variety of many groups.
    for name, size in sizes.most_common():
        if sum(sizes[one] for one in picked) + size <= target or (not picked and name == sizes.most_common()[-1][0]):
            picked.append(name)
    share = sum(sizes[name] for name in picked) / len(groups)
    return (
        f"the names suggest {len(sizes)} groups ({shorten_list(list(sizes), N_NAMES)}): validate on "
        f"{shorten_list(picked, N_NAMES)}, {share:.0%} of the images, and train on the others; or let "
        "data.group_by keep them together"
    )
