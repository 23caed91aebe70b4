"""The results of each prediction process so far, one JSON record per line, and what could not be read."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.unlabelled import UnlabelledFile
from keypoint_detection.inference.prediction_files import Record

PART_PATTERN = ".unfinished-*.jsonl"


def find_records(folder: Path) -> list[tuple[Path, int]]:
    """Find where the record of each image begins, in the order of the images."""
    places: dict[tuple[int, ...], tuple[Path, int]] = {}
    for path in sorted(folder.glob(PART_PATTERN), key=lambda file: file.stat().st_mtime):
        with path.open("rb") as file:
            start = 0
            for line in file:
                with contextlib.suppress(ValueError):  # an image whose line was cut off is processed again
                    places[tuple(json.loads(line)["index"])] = (path, start)
                start += len(line)
    return [place for _, place in sorted(places.items())]


def read_records(places: Iterable[tuple[Path, int]]) -> Iterator[Record]:
    """Read the records at the given positions, one at a time."""
    opened: dict[Path, Any] = {}
    try:
        for path, start in places:
            file = opened.setdefault(path, None) or path.open("rb")
            opened[path] = file
            file.seek(start)
            yield json.loads(file.readline())
    finally:
        for file in opened.values():
            file.close()


def count_images(records: Iterable[Record], files: Sequence[UnlabelledFile]) -> str:
    """Count images and frames of videos, or whole videos that could not be read, in words.

    >>> count_images([{"index": [0, 0]}], [UnlabelledFile("a.png", "a.png", None)])
    '1 image'
    """
    kinds = Counter(
        ("frame" if "frame" in record else "video") if files[record["index"][0]].is_video else "image"
        for record in records
    )
    counted = [count_in_words(kinds[kind], kind) for kind in ("image", "frame", "video") if kinds[kind]]
    is_all_video = all(file.is_video for file in files)
    return " and ".join(counted) or count_in_words(0, "frame" if is_all_video else "image")


class Unread(NamedTuple):
    """Images and frames that could not be read.

    Attributes:
        counted: their number, in words.
        reasons: a line for each image or video, or for consecutive frames of a video, with the reason.
    """

    counted: str
    reasons: list[str]

    @classmethod
    def of_records(cls, records: Sequence[Record], files: Sequence[UnlabelledFile]) -> "Unread":
        """Join the failures among records, which are in the order of the images."""
        lines: list[tuple[int, int, int, str]] = []
        reasons = []
        for record in records:
            position, number = record["index"]
            if "frame" not in record:
                reasons.append(str(record["error"]))
            elif lines and lines[-1][::2] == (position, number - 1) and lines[-1][3] == record["error"]:
                lines[-1] = (position, lines[-1][1], number, record["error"])
            else:
                lines.append((position, number, number, record["error"]))
        for position, first, last, reason in lines:
            which = f"frame {first}" if first == last else f"frames {first} to {last}"
            reasons.append(f"{files[position].path}: {which} cannot be decoded ({reason}).")
        return cls(count_images(records, files), reasons)
