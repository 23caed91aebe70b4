"""Checks on the entries of a COCO file beyond their points: counts that do not add up, and repeated entries."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from keypoint_detection.channels import KeypointType
from keypoint_detection.counting import agree
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.coco_file import CocoFile
from keypoint_detection.data.coco_images import is_side
from keypoint_detection.data.coco_keypoints import name_category


def check_entries(source: str, file: CocoFile, types: Sequence[KeypointType]) -> list[Finding]:
    """Find wrong `num_keypoints`, repeated entries, impossible sizes, and keypoints without a name.

    Args:
        source: the name of the file.
        file: its entries.
        types: the keypoint types read from it.
    """
    said = _read_annotations(file)
    findings = []
    if said.miscounted:
        text = agree(
            len(said.miscounted),
            "annotation has a num_keypoints other than the number of its labelled points (v > 0)",
            "annotations have a num_keypoints other than the number of their labelled points (v > 0)",
        )
        text += ": was the file edited by hand?"
        findings.append(Finding("warning", "num_keypoints", source, len(said.miscounted), text, tuple(said.miscounted)))
    if said.repeated:
        text = agree(len(said.repeated), "annotation repeats", "annotations repeat")
        text += " the points of another one in the same image: each point occurs twice."
        findings.append(Finding("warning", "annotation_twice", source, len(said.repeated), text, tuple(said.repeated)))
    twice = [f"annotation id {name}: {count} times" for name, count in said.ids.items() if count > 1]
    if twice:
        text = agree(len(twice), "annotation id is", "annotation ids are")
        text += " used more than once; other tools may keep only one of the annotations."
        findings.append(Finding("warning", "annotation_id_twice", source, len(twice), text, tuple(twice)))
    findings += [*_check_sizes(source, file), *_check_names(source, file, types)]
    files = Counter(str(entry.file_name) for entry in file.images)
    listed = [f"{name}: {count} times" for name, count in files.items() if count > 1]
    if listed:
        text = agree(
            len(listed),
            "image file is listed more than once, each time with its own labels: merge its annotations.",
            "image files are listed more than once, each time with their own labels: merge their annotations.",
        )
        findings.append(Finding("warning", "image_listed_twice", source, len(listed), text, tuple(listed)))
    return findings


def _check_sizes(source: str, file: CocoFile) -> list[Finding]:
    """Find images whose size in the file is missing or impossible."""
    sizes = {str(entry.file_name): (entry.height, entry.width) for entry in file.images}
    wrong = [
        f"{name}: height {height!r:.20}, width {width!r:.20}"
        for name, (height, width) in sizes.items()
        if not (is_side(height) and is_side(width))
    ]
    if not wrong:
        return []
    text = agree(
        len(wrong),
        "image has no height and width in pixels, so it is unknown whether it is the image that was labelled.",
        "images have no height and width in pixels, so it is unknown whether they are the images that were labelled.",
    )
    return [Finding("warning", "size_unknown", source, len(wrong), text, tuple(wrong))]


def _check_names(source: str, file: CocoFile, types: Sequence[KeypointType]) -> list[Finding]:
    """Find keypoints that were numbered because their category does not name them."""
    unnamed = {name_category(category) for category in file.categories if not category.keypoints}
    numbered = [str(one) for one in types if one.name.rpartition("_")[0] in unnamed]
    if not numbered:
        return []
    text = agree(
        len(numbered),
        "keypoint has no name in `categories`, and is called by category and number",
        "keypoints have no name in `categories`, and are called by category and number",
    )
    text += ": add `keypoints: [names]` to the category."
    return [Finding("note", "unnamed", source, len(numbered), text, tuple(numbered))]


class _Annotations(NamedTuple):
    """Oddities of annotations, one line each, and how often each id is used."""

    miscounted: list[str]
    repeated: list[str]
    ids: Counter[str]


def _read_annotations(file: CocoFile) -> _Annotations:
    said = _Annotations([], [], Counter())
    seen: dict[tuple[str, ...], Any] = {}
    # Annotations are parsed from text on every pass, so they are processed only once.
    for entry in file.read_annotations():
        name = None if entry.id is msgspec.UNSET else entry.id
        if entry.id is not msgspec.UNSET:
            said.ids[str(name)] += 1
        values, stated = entry.keypoints, entry.num_keypoints
        if not isinstance(values, list):
            continue
        labelled = sum(1 for visibility in values[2::3] if visibility in (1, 2))
        if stated is not None and stated != labelled:
            said.miscounted.append(f"annotation {name}: {stated!r:.20} instead of {labelled}")
        if any(values[2::3]):
            key = (str(entry.image_id), str(entry.category_id), str(values))
            if key in seen:
                said.repeated.append(f"annotation {name} repeats annotation {seen[key]}")
            seen.setdefault(key, name)
    return said
