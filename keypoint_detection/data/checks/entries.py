"""What the entries of a COCO file say beyond their points: counts that do not add up, entries that repeat others."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from keypoint_detection.data.checks.findings import Finding

__all__ = ["check_entries", "load_content"]


def load_content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Load the lists of a COCO file that `examine_coco` can read, with all that their entries hold."""
    content: dict[str, list[dict[str, Any]]] = json.loads(path.read_bytes().decode("utf-8-sig"))
    return content


def check_entries(source: str, content: dict[str, list[dict[str, Any]]]) -> list[Finding]:
    """Find wrong `num_keypoints`, annotations that repeat another one, ids used twice, and files listed twice.

    Args:
        source: the file.
        content: its lists, as `load_content` gives them.
    """
    findings = []
    wrong = [text for entry in content["annotations"] if (text := _describe_count(entry))]
    if wrong:
        text = "annotations have a num_keypoints other than their labelled points (v > 0): was the file edited by hand?"
        findings.append(Finding("warning", "num_keypoints", source, len(wrong), text, tuple(wrong)))
    repeated = _find_repeated(content["annotations"])
    if repeated:
        text = "annotations repeat the points of another one of the same image: each point is there twice."
        findings.append(Finding("warning", "annotation_twice", source, len(repeated), text, tuple(repeated)))
    ids = Counter(str(entry["id"]) for entry in content["annotations"] if "id" in entry)
    twice = [f"annotation id {name}: {count} times" for name, count in ids.items() if count > 1]
    if twice:
        text = "annotation ids are used more than once; other tools may keep only one of them."
        findings.append(Finding("warning", "annotation_id_twice", source, len(twice), text, tuple(twice)))
    files = Counter(str(entry.get("file_name")) for entry in content["images"])
    listed = [f"{name}: {count} times" for name, count in files.items() if count > 1]
    if listed:
        text = "image files are listed more than once, each time with labels of its own: join their annotations."
        findings.append(Finding("warning", "image_listed_twice", source, len(listed), text, tuple(listed)))
    return findings


def _describe_count(entry: dict[str, Any]) -> str:
    values, stated = entry.get("keypoints"), entry.get("num_keypoints")
    if stated is None or not isinstance(values, list):
        return ""
    labelled = sum(1 for visibility in values[2::3] if visibility in (1, 2))
    return "" if stated == labelled else f"annotation {entry.get('id')}: {stated!r:.20} instead of {labelled}"


def _find_repeated(entries: list[dict[str, Any]]) -> list[str]:
    seen: dict[tuple[str, ...], Any] = {}
    repeated = []
    for entry in entries:
        values = entry.get("keypoints")
        if isinstance(values, list) and any(values[2::3]):
            key = (str(entry.get("image_id")), str(entry.get("category_id")), str(values))
            if key in seen:
                repeated.append(f"annotation {entry.get('id')} repeats annotation {seen[key]}")
            seen.setdefault(key, entry.get("id"))
    return repeated
