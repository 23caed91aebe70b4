"""Regions drawn in Label Studio as objects with points: parents, relations, labels and choices are separate entries."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from keypoint_detection.data.problems import Problems
from keypoint_detection.types import OCCLUDED, VISIBLE

LOOSE = "object"
OCCLUDED_WORDS = re.compile(r"occlu|hidden|invisible|not visible", re.IGNORECASE)
# Reasons for which regions cannot be used.
WITHOUT_PLACE = "without a place in the image"
WITHOUT_LABEL = "without a label"


@dataclass
class Region:
    """One drawn region; coordinates are percentages. Regions in files made by hand may have no key, or share one."""

    key: str
    labels: list[str]
    x: float
    y: float
    extent: tuple[float, float] | None = None
    visibility: int = VISIBLE
    parent: str = ""


@dataclass
class DrawnObject:
    """An object: its category, the rectangle around it if one was drawn, and its points by label."""

    category: str
    rectangle: Region | None = None
    points: dict[str, Region] = field(default_factory=dict)


def read_objects(
    result: list[dict[str, Any]], task: dict[str, Any], problems: Problems, others: Counter[str]
) -> list[DrawnObject]:
    """Gather the regions of one image as objects; `others` counts what is left out, by reason."""
    rectangles: dict[str, Region] = {}
    points: list[Region] = []
    for entry in result:
        kind, value = entry.get("type"), entry.get("value") or {}
        if kind in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle"):
            region = _read_region(entry, value, task, problems, others)
            if region is not None and region.extent is None:
                points.append(region)
            elif region is not None:
                is_new = region.key and region.key not in rectangles
                rectangles[region.key if is_new else f"{region.key} #{len(rectangles)}"] = region
        elif kind not in ("relation", "choices", "labels", "textarea"):
            others[str(kind)] += 1
    for entry in result:
        _apply_to_regions(entry, points, rectangles)
    others.update(WITHOUT_LABEL for point in points if not point.labels)
    for one in rectangles.values():
        if len(one.labels) > 1:
            named = ", ".join(one.labels)
            problems.add(
                "labels",
                f"task {task.get('id')}, region {one.key}: is a rectangle labelled {named}; one label is expected.",
            )
    return _gather(points, rectangles)


def _read_region(
    entry: dict[str, Any], value: dict[str, Any], task: dict[str, Any], problems: Problems, others: Counter[str]
) -> Region | None:
    labels: Any = next((value[key] for key in ("keypointlabels", "rectanglelabels", "labels") if value.get(key)), [])
    x, y = value.get("x"), value.get("y")
    where = f"task {task.get('id')}, region {entry.get('id')}"
    if x is None and y is None:  # a prompt for an automatic labeller
        others[WITHOUT_PLACE] += 1
        return None
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        problems.add("place", f"{where}: x is {x!r} and y is {y!r}; percentages of the image's size are expected.")
        return None
    if entry.get("image_rotation"):
        problems.add("rotated", f"{where}: the image was rotated in Label Studio; rotate the file and label it again.")
        return None
    is_box = str(entry.get("type")).startswith("rectangle")
    texts = (entry.get("meta") or {}).get("text") or []
    is_occluded = any(OCCLUDED_WORDS.search(str(text)) for text in (texts if isinstance(texts, list) else [texts]))
    return Region(
        _read_key(entry, "id"),
        _list_labels(labels),
        float(x),
        float(y),
        (float(value.get("width") or 0), float(value.get("height") or 0)) if is_box else None,
        OCCLUDED if is_occluded else VISIBLE,
        _read_key(entry, "parentID"),
    )


def _read_key(entry: dict[str, Any], name: str) -> str:
    return "" if entry.get(name) is None else str(entry[name])


def _list_labels(labels: Any) -> list[str]:
    """List the labels of a region; a point can have several, and then counts as one point of each type."""
    listed = labels if isinstance(labels, list) else [labels]
    return list(dict.fromkeys(str(one) for one in listed if one not in (None, "")))


def _apply_to_regions(entry: dict[str, Any], points: list[Region], rectangles: dict[str, Region]) -> None:
    """Apply relations, choices and labels, which are separate entries, to their regions."""
    kind, value = entry.get("type"), entry.get("value") or {}
    if kind == "relation":
        ends = _read_key(entry, "from_id"), _read_key(entry, "to_id")
        for point in points:
            for key, rectangle in (ends, ends[::-1]):
                if key and point.key == key and rectangle in rectangles:
                    point.parent = rectangle
    key = _read_key(entry, "id")
    for region in (one for one in (*points, *rectangles.values()) if key and one.key == key):
        if kind == "labels" and value.get("labels"):
            region.labels = _list_labels(value["labels"])
        if kind == "choices" and any(map(OCCLUDED_WORDS.search, map(str, value.get("choices") or []))):
            region.visibility = OCCLUDED


def _gather(points: list[Region], rectangles: dict[str, Region]) -> list[DrawnObject]:
    categories = {key: one.labels[0] if one.labels else LOOSE for key, one in rectangles.items()}
    objects = {(key, 0): DrawnObject(categories[key], one) for key, one in rectangles.items()}
    n_seen: Counter[tuple[str, str]] = Counter()
    for point, label in [(one, label) for one in points for label in one.labels]:
        parent = point.parent if point.parent in rectangles else _find_rectangle(point, rectangles)
        key = (parent, n_seen[parent, label])
        n_seen[parent, label] += 1
        objects.setdefault(key, DrawnObject(categories.get(parent, LOOSE))).points[label] = point
    return list(objects.values())


def _find_rectangle(point: Region, rectangles: dict[str, Region]) -> str:
    """Return the name of the only rectangle around a point, or an empty one."""
    around = [
        key
        for key, one in rectangles.items()
        if one.extent and 0 <= point.x - one.x <= one.extent[0] and 0 <= point.y - one.y <= one.extent[1]
    ]
    return around[0] if len(around) == 1 else ""
