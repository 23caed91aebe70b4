"""The files that predictions are written to, each readable by other programs.

All are made from records, one per image: its `name` and `id`, `height` and `width` in pixels, for a video frame its
number `frame` from 0, and its `points` with `channel`, `x`, `y` and `score`, by descending score within a channel; if
the detector is calibrated, also `probability` of being right within the largest threshold, `covariance` of the error in
square pixels, and `spread`, the root of the mean of the two variances. If the detector groups points, each names its
`object`, by its place in the record's `objects`, or None, and its probability of `belonging` to it. Objects have a
`score`, in descending order, and a `box` (left, top, width, height) of their points.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, TypeAlias

from keypoint_detection.data.image_bounds import allow_outside
from keypoint_detection.destinations import relate_path
from keypoint_detection.printing import make_plain_cell
from keypoint_detection.types import NOT_LABELLED, VISIBLE

Format: TypeAlias = Literal["csv", "jsonl", "coco", "coco_labels"]
Record: TypeAlias = dict[str, Any]

CSV_POINT_COLUMNS = ("channel", "x", "y", "score", "probability", "spread")
CATEGORY_ID = 1


class Predictions(NamedTuple):
    """The content of a file of predictions.

    Attributes:
        records: returns an iterator over the records, starting from the first at each call.
        channels: channel name to its keypoint types.
        category: the category of the COCO file that the images come from, or one made for the detector.
        files: the file of each image by its id, for `coco_labels`, which names it relative to its own folder.
        path: the file.
    """

    records: Callable[[], Iterable[Record]]
    channels: Mapping[str, Sequence[str]]
    category: Mapping[str, Any]
    files: Mapping[int, str]
    path: Path

    def instances(self) -> Iterator[dict[str, Any]]:
        """Yield the instances of all images as COCO results.

        Every object is an instance. If the detector does not group points, the first instance of an image gets the best
        detection of each keypoint type, the second the next best, and so on. A channel of several types distributes its
        detections among them by descending score; wrong ones can be swapped when the labels are corrected.
        """
        for record in self.records():
            for number, one in enumerate(record.get("objects", ())):
                of_object = [point for point in record["points"] if point["object"] == number]
                for instance in _instances(record | {"points": of_object}, self.channels, self.category):
                    yield _as_annotation(instance) | {"score": one["score"]}
            if "objects" not in record:
                yield from _instances(record, self.channels, self.category)


def write_predictions(
    records: Callable[[], Iterable[Record]],
    path: Path,
    kind: Format,
    channels: Mapping[str, Sequence[str]],
    category: Mapping[str, Any] | None,
    files: Mapping[int, str],
) -> None:
    """Write one file of predictions, holding one image at a time in memory.

    Args:
        records: returns an iterator over the records, starting from the first at each call.
        path: the file to write.
        kind: the format of the file.
        channels: channel name to its keypoint types.
        category: the category of the COCO file that the images come from; None makes one for the detector.
        files: the file of each image by its id.
    """
    predictions = Predictions(records, channels, category or own_category(channels), files, path)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        OUTPUT_FORMATS[kind].write(predictions, file)


def _write_csv(predictions: Predictions, file: TextIO) -> None:
    rows = csv.writer(file)
    first = next(iter(predictions.records()), {})
    frame = ["frame"] if "frame" in first else []
    columns = [*CSV_POINT_COLUMNS, *(["object", "belonging"] if "objects" in first else [])]
    rows.writerow(["image", *frame, *columns])
    for record in predictions.records():
        of_image = [make_plain_cell(record["name"]), *(record[column] for column in frame)]
        for point in record["points"]:
            cells = point | {"channel": make_plain_cell(point["channel"])}
            rows.writerow([*of_image, *(cells.get(column, "") for column in columns)])


def _write_jsonl(predictions: Predictions, file: TextIO) -> None:
    for record in predictions.records():
        file.write(json.dumps(record, allow_nan=False) + "\n")


def _write_coco(predictions: Predictions, file: TextIO) -> None:
    _write_list(file, predictions.instances(), "")


def _write_coco_labels(predictions: Predictions, file: TextIO) -> None:
    images = (_image(record, predictions.files, predictions.path.parent) for record in predictions.records())
    file.write(f'{{"info": {json.dumps(allow_outside(predictions.path))}, "images": ')
    _write_list(file, images, ', "annotations": ')
    annotations = (one if "bbox" in one else _as_annotation(one) for one in predictions.instances())
    numbered = ({"id": number, **one} for number, one in enumerate(annotations, start=1))
    _write_list(file, numbered, f', "categories": {json.dumps([predictions.category], allow_nan=False)}}}')


class OutputFormat(NamedTuple):
    """A format of predictions.

    Attributes:
        file_name: the file that it is written to.
        write: writes it.
    """

    file_name: str
    write: Callable[[Predictions, TextIO], None]


OUTPUT_FORMATS: dict[Format, OutputFormat] = {
    "csv": OutputFormat("predictions.csv", _write_csv),
    "jsonl": OutputFormat("predictions.jsonl", _write_jsonl),
    "coco": OutputFormat("coco_results.json", _write_coco),
    "coco_labels": OutputFormat("coco_labels.json", _write_coco_labels),
}


def own_category(channels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Make a category of the detector's keypoint types."""
    names = list(dict.fromkeys(name for types in channels.values() for name in types))
    return {"id": CATEGORY_ID, "name": "object", "supercategory": "", "keypoints": names, "skeleton": []}


def _write_list(file: TextIO, entries: Iterable[Any], end: str) -> None:
    file.write("[")
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry, allow_nan=False))
    file.write(f"\n]{end}")


def _image(record: Record, files: Mapping[int, str], folder: Path) -> dict[str, Any]:
    return {
        "id": record["id"],
        "file_name": relate_path(files[record["id"]], folder),
        "width": record["width"],
        "height": record["height"],
    }


def _instances(
    record: Record, channels: Mapping[str, Sequence[str]], category: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Return the instances of an image as COCO results, starting with the best detections."""
    place = {name: index for index, name in enumerate(category["keypoints"])}
    found: dict[str, list[Record]] = {name: [] for name in channels}
    for point in record["points"]:
        found[point["channel"]].append(point)
    # In each round, every type of a channel gets the channel's next detection.
    takers = {
        channel: [place[key] for name in types if (key := _plain(name, place)) is not None]
        for channel, types in channels.items()
    }
    for instance in itertools.count():
        keypoints = [0.0] * (3 * len(place))
        scores = []
        for channel, slots in takers.items():
            for slot, point in zip(slots, found[channel][instance * len(slots) :], strict=False):
                keypoints[3 * slot : 3 * slot + 3] = [point["x"], point["y"], VISIBLE]
                scores.append(point["score"])
        if not scores:
            return
        yield {
            "image_id": record["id"],
            "category_id": category["id"],
            "keypoints": keypoints,
            "score": sum(scores) / len(scores),
        }


def _plain(name: str, place: Mapping[str, int]) -> str | None:
    """Return a category's name for a type, which a channel can list as `category/name`."""
    return next((one for one in (name, name.partition("/")[2]) if one in place), None)


def _as_annotation(result: Mapping[str, Any]) -> dict[str, Any]:
    keypoints = result["keypoints"]
    xs, ys = (
        [value for value, v in zip(keypoints[i::3], keypoints[2::3], strict=True) if v != NOT_LABELLED] for i in (0, 1)
    )
    left, top = min(xs), min(ys)
    # Coordinates have three decimals; differences of floats would have fifteen.
    width, height = round(max(xs) - left, 3), round(max(ys) - top, 3)
    return {
        "image_id": result["image_id"],
        "category_id": result["category_id"],
        "keypoints": keypoints,
        "num_keypoints": len(xs),
        "bbox": [left, top, width, height],
        "area": round(width * height, 3),
        "iscrowd": 0,
        "segmentation": [],
    }
