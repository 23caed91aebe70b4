"""Findings on duplicate images, within a file and on both sides of a split."""

import os
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.duplicates import find_copies, find_neighbours
from keypoint_detection.data.checks.findings import Finding, Level
from keypoint_detection.data.checks.groups import find_groups, propose_split
from keypoint_detection.data.checks.parts import Part
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.data.splitting import HeldOut
from keypoint_detection.images import ImageScan

# If this share of the images shows the scene of another one, all are treated as one recording.
SCENE_SHARE = 0.5
NO_GROUPS = (
    "The names suggest no groups to split by: keep the frames of one video, or images taken in one session, on one "
    "side, or divide them in time, as data.group_by=time does if the validation file is left out"
)


class ScannedPart:
    """The readable images of a part.

    Attributes:
        part: their labels.
        indices: (N,) their indices in the part.
        digests: (N) hashes of their files.
        thumbnails: (N, side, side) their small grey versions.
        names: (N) their file names, relative to the folder that contains the whole part.
    """

    def __init__(self, part: Part, scans: Sequence[ImageScan | None]) -> None:
        self.part = part
        read = [(index, scan) for index, scan in enumerate(scans) if scan is not None]
        self.indices: NDArray[np.int64] = np.array([index for index, _ in read], dtype=np.int64)
        self.digests = [scan.digest for _, scan in read]
        self.thumbnails: NDArray[np.uint8] = np.stack([scan.thumbnail for _, scan in read])
        paths = [part.table.image_paths[index].decode() for index in self.indices]
        # The folder of a whole part, such as `train/` beside `val/`, does not define a group of images.
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        self.names = [os.path.relpath(path, root) for path in paths]

    def describe(self, position: int) -> str:
        """Name an image for a message."""
        return self.part.describe_image(int(self.indices[position]))


def check_copies(seen: ScannedPart) -> list[Finding]:
    """Find files with equal content within a part, separately by whether their labels agree or differ."""
    table, source = seen.part.table, str(seen.part.path)
    equal: list[str] = []
    different: list[str] = []
    for group in find_copies(seen.digests):
        text = " = ".join(seen.describe(position) for position in group)
        labels = {_labels_of(table, int(seen.indices[position])) for position in group}
        (equal if len(labels) == 1 else different).append(text)
    findings = []
    if equal:
        text = agree(
            len(equal),
            "image occurs more than once, with equal labels; it counts double.",
            "images occur more than once, with equal labels; they count double.",
        )
        findings.append(Finding("warning", "copies", source, len(equal), text, tuple(equal)))
    if different:
        text = agree(len(different), "image occurs", "images occur")
        text += " more than once, with different labels: which are right?"
        findings.append(
            Finding("warning", "copies_labelled_differently", source, len(different), text, tuple(different))
        )
    return findings


def check_part_likeness(seen: ScannedPart, held_out: HeldOut | None) -> list[Finding]:
    """Find images that are nearly the same within a part, which a random split would put on both sides.

    Args:
        seen: the part.
        held_out: which of its images are held out; None if none are, or nobody knows.
    """
    found = find_neighbours(seen.thumbnails, None)
    n_near, n_scene = int(found.is_nearly_same.sum()), int(found.is_same_scene.sum())
    if not n_near and n_scene < SCENE_SHARE * len(seen.names):
        return []
    pairs = {frozenset((one, int(other))) for one, other in enumerate(found.nearest) if found.is_nearly_same[one]}
    examples = tuple(" ~ ".join(seen.describe(one) for one in sorted(pair)) for pair in sorted(pairs, key=sorted))
    text = f"of {count_in_words(len(seen.names), 'image')} "
    if n_near:
        text += f"{agree(n_near, 'is', 'are')} nearly the same as another one, and {n_scene} "
    text += f"{agree(n_scene, 'shows', 'show')} the scene of another one"
    if held_out is None:
        text += f". Do not split them at random. {_advise(seen.names)}."
    elif held_out.is_random:
        text += ": a random part is held out for validation, which will then measure what was trained on. "
        text += f"{_advise(seen.names)}."
    else:
        text += ": data.group_by keeps neighbours on one side."
    level: Level = "warning" if held_out is not None and held_out.is_random else "note"
    return [Finding(level, "alike", str(seen.part.path), n_near or n_scene, text, examples)]


def check_split_likeness(parts: Sequence[ScannedPart]) -> list[Finding]:
    """Find images on both sides of a split: copies, near-duplicates, and other frames of the same scene."""
    findings = []
    for one, other in combinations(parts, 2):
        findings += _compare_parts(one, other)
    return findings


def _compare_parts(first: ScannedPart, second: ScannedPart) -> list[Finding]:
    """Find the images of the second part that are in the first one too."""
    names, source = (first.part.name, second.part.name), f"{first.part.path}, {second.part.path}"
    position_of = {digest: position for position, digest in enumerate(first.digests)}
    is_copy = np.array([digest in position_of for digest in second.digests])
    findings = []
    if is_copy.any():
        copies = tuple(
            f"{second.describe(position)} = {first.describe(position_of[second.digests[position]])}"
            for position in np.flatnonzero(is_copy).tolist()
        )
        text = f"of {count_in_words(len(is_copy), f'{names[1]} image')} "
        text += agree(
            len(copies),
            f"is also a {names[0]} image: it is not held out.",
            f"are also {names[0]} images: they are not held out.",
        )
        findings.append(Finding("warning", "split_copies", source, len(copies), text, copies))
    found = find_neighbours(second.thumbnails, first.thumbnails)
    near, scene = found.is_nearly_same & ~is_copy, found.is_same_scene & ~is_copy
    advice = _advise([*first.names, *second.names])
    n_near, n_scene = int(near.sum()), int(scene.sum())
    which, count, text = near, n_near, ""
    total = f"of {count_in_words(len(near), f'{names[1]} image')}"
    if n_near:
        text = f"{total} {agree(n_near, 'is', 'are')} nearly the same as a {names[0]} image"
        text += f", and {n_scene} show the scene of one" if n_scene > n_near else ""
    elif n_scene > SCENE_SHARE * len(scene):
        which, count = scene, n_scene
        text = f"{total} {agree(n_scene, 'shows', 'show')} the scene of a {names[0]} image"
    if text:
        examples = tuple(
            f"{second.describe(position)} ~ {first.describe(int(found.nearest[position]))}"
            for position in np.flatnonzero(which).tolist()
        )
        text += f": frames of one video? Then {names[1]} says little about other videos. {advice}."
        findings.append(Finding("warning", "split_alike", source, count, text, examples))
    return findings


def _advise(names: Sequence[str]) -> str:
    groups = find_groups(names)
    if groups is None:
        return NO_GROUPS
    proposal = propose_split(groups)
    return proposal[0].upper() + proposal[1:]


def _labels_of(table: CocoKeypoints, index: int) -> bytes:
    rows = slice(table.offsets[index], table.offsets[index + 1])
    return table.truths.points[rows].tobytes() + table.types[rows].tobytes()
