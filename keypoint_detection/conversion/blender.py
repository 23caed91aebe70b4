"""The box data sets of the Blender generator that kpd's predecessor was trained on: one JSON file.

`dataset` lists the images: `image_path`, and lists of points such as `corner_keypoints`, `flap_corner_keypoints` and
`flap_center_keypoints`, each also with `_visible` at its end. A point is [x, y] or [x, y, depth] in fractions of the
image's width and height, with the origin at the BOTTOM left. Points in a `_visible` list have v=2, points only in the
full list v=1. The order of the points in an image means nothing, so train them on one channel: `model.channels:
{corner: [corner0, corner1, …]}`.
"""

import math
from pathlib import Path
from typing import Any

from keypoint_detection.conversion.image_finder import ImageFinder
from keypoint_detection.conversion.label_set import (
    Category,
    Format,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
)
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_json
from keypoint_detection.types import OCCLUDED, VISIBLE, DataError

CATEGORY = "box"
SUFFIX, VISIBLE_SUFFIX = "_keypoints", "_keypoints_visible"
# Points in the two lists agree to within the generator's rounding.
SAME_POINT = 1e-6

# A point in fractions of the image size, and its flag.
_Flagged = tuple[float, float, int]


def _is_blender(content: Any) -> bool:
    """Whether this is the content of such a file."""
    return isinstance(content, dict) and isinstance(content.get("dataset"), list)


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a box data set of the Blender generator.

    Raises:
        DataError: the file is broken, or its images are missing.
    """
    content = _load(source)
    problems = Problems()
    names = [[str(entry.get("image_path"))] for entry in content["dataset"] if isinstance(entry, dict)]
    finder = ImageFinder([source.parent], names, reading.bound_images(source), reading, problems)
    found: list[tuple[LabelledImage, dict[str, list[_Flagged]]]] = []
    for number, entry in enumerate(content["dataset"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("image_path"), str):
            problems.add("image_path", f"entry {number} of 'dataset' has no 'image_path': {entry!r:.80}.")
            continue
        kinds = _read_kinds(entry, problems)
        image = finder.find([entry["image_path"]])
        if image is not None:
            found.append((image, kinds))
    notes = finder.conclude()
    starts, keypoints = _number([kinds for _, kinds in found])
    if not keypoints and not problems.by_kind:
        problems.add("keypoints", "no entry has points in a list '…_keypoints' or '…_keypoints_visible'.")
    problems.raise_if_any(source)
    n_outside = 0
    for image, kinds in found:
        instance = make_instance(0, len(keypoints))
        for kind, points in kinds.items():
            n_outside += _place(instance, starts[kind], points, image.size)
        image.instances = [instance]
    notes += [f"Left out: {count_in_words(n_outside, 'point')} outside the image."] if n_outside else []
    return LabelSet([Category(CATEGORY, keypoints)], [image for image, _ in found], notes)


def _number(images: list[dict[str, list[_Flagged]]]) -> tuple[dict[str, int], list[str]]:
    """Name the keypoint types of each kind, as many as the fullest image has; return where each starts, and names."""
    starts: dict[str, int] = {}
    names: list[str] = []
    for kind in dict.fromkeys(kind for kinds in images for kind in kinds):
        starts[kind] = len(names)
        names += [f"{kind}{index}" for index in range(max(len(kinds.get(kind, [])) for kinds in images))]
    return starts, names


def _load(path: Path) -> dict[str, Any]:
    content = read_json(path, "a box data set of the Blender generator (JSON)")
    if not _is_blender(content):
        raise DataError(f"{path}: has no list 'dataset'; expected a box data set of the Blender generator.")
    found: dict[str, Any] = content
    return found


def _read_kinds(entry: dict[str, Any], problems: Problems) -> dict[str, list[_Flagged]]:
    """Read the points of an image by kind; points only in the visible list are added to the full list."""
    kinds: dict[str, list[_Flagged]] = {}
    for key in entry:
        if key.endswith((SUFFIX, VISIBLE_SUFFIX)):
            kind = key.removesuffix("_visible").removesuffix(SUFFIX)
            kinds.setdefault(kind, [])
    for kind in kinds:
        full = _read_points(entry, kind + SUFFIX, problems)
        visible = _read_points(entry, kind + VISIBLE_SUFFIX, problems)
        flagged = [(x, y, VISIBLE if any(_is_same((x, y), one) for one in visible) else OCCLUDED) for x, y in full]
        only_visible = [(x, y, VISIBLE) for x, y in visible if not any(_is_same((x, y), one) for one in full)]
        kinds[kind] = flagged + only_visible
    return kinds


def _read_points(entry: dict[str, Any], key: str, problems: Problems) -> list[tuple[float, float]]:
    points = entry.get(key) or []
    for point in points if isinstance(points, list) else [points]:
        if not isinstance(point, list) or len(point) not in (2, 3) or not all(map(_is_number, point)):
            problems.add(
                "point", f"{entry['image_path']}: {key} has {point!r:.60}; [x, y] or [x, y, depth] is expected."
            )
            return []
    return [(float(point[0]), float(point[1])) for point in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) < SAME_POINT and abs(a[1] - b[1]) < SAME_POINT


def _place(instance: Instance, start: int, points: list[_Flagged], size: tuple[int, int]) -> int:
    """Set the points of a kind, and count those outside the image."""
    n_outside = 0
    height, width = size
    for index, (x, y, visibility) in enumerate(points, start=start):
        if 0 <= x <= 1 and 0 <= y <= 1:
            instance.points[index] = x * width, (1 - y) * height
            instance.visibility[index] = visibility
        else:
            n_outside += 1
    return n_outside


BLENDER = Format(
    title="Blender boxes",
    coordinates="continuous",
    recognises=lambda source: False,
    recognises_json=_is_blender,
    read=read,
    source_suffix=".json",
)
