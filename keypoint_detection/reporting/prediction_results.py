"""Turn the records of a prediction into files: the requested formats, frames of videos, and overlays."""

import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.unlabelled import UnlabelledFile
from keypoint_detection.data.video import name_frame, save_frames
from keypoint_detection.inference.prediction_files import OUTPUT_FORMATS, Format, Record, write_predictions
from keypoint_detection.reporting.overlay_files import OverlayStyle, draw_overlays, name_outputs
from keypoint_detection.reporting.unfinished_records import Unread, count_images, find_records, read_records

logger = logging.getLogger(__name__)

# The folder of the video frames for `coco_labels`, and the one for frames still being written.
FRAME_FOLDER, FRAME_DRAFT = "frames", ".frames.partial"
# The fields of a result besides the name of the image and the number of the frame.
RESULTS = ("id", "height", "width", "points", "objects")


def write_results(
    folder: Path,
    files: Sequence[UnlabelledFile],
    source: str,
    channels: dict[str, list[str]],
    formats: Sequence[Format],
    style: OverlayStyle | None,
) -> Unread:
    """Write the results of a finished prediction, each file completely or not at all.

    Args:
        folder: contains the records, and gets the results.
        files: the images and videos, in order.
        source: the path given to find them.
        channels: channel name to the keypoint types it collects.
        formats: the formats to write.
        style: how overlays are drawn; None for no overlays.

    Returns: The unreadable images and frames, which are in none of the results.
    """
    places = find_records(folder)
    failed = [record for record in read_records(places) if "error" in record]

    def numbered() -> Iterator[Record]:
        for number, record in enumerate(read_records(places), start=1):
            image_id = files[record["index"][0]].image_id
            if "error" not in record:
                yield record | {"id": number if image_id is None else image_id}

    has_frames = any(file.is_video for file in files)

    def records() -> Iterator[Record]:
        for record in numbered():
            frame = {"frame": record.get("frame")} if has_frames else {}
            yield {"name": record["name"], **frame, **{name: record[name] for name in RESULTS if name in record}}

    n_points = sum(len(record["points"]) for record in records())
    logger.info("Found %s in %s.", count_in_words(n_points, "point"), count_images(numbered(), files))
    images = _find_images(folder, files, numbered()) if "coco_labels" in formats else {}
    for kind in formats:
        target = folder / OUTPUT_FORMATS[kind].file_name
        partial = target.with_name(f".{target.name}.partial")
        write_predictions(records, partial, kind, channels, _find_category(source, channels), images)
        partial.replace(target)
        logger.info("Wrote %s", target)
    drawn = None if style is None else draw_overlays(folder, files, numbered(), style)
    if drawn is not None:
        logger.info("Wrote %s", drawn)
    return Unread.of_records(failed, files)


def _find_images(folder: Path, files: Sequence[UnlabelledFile], records: Iterator[Record]) -> dict[int, str]:
    """Find the image file of each record by its id; the frames of videos are written as images first."""
    paths: dict[int, str] = {}
    frames: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for record in records:
        position, number = record["index"]
        if files[position].is_video:
            frames[position][number] = record["id"]
        else:
            paths[record["id"]] = files[position].path
    draft, target = folder / FRAME_DRAFT, folder / FRAME_FOLDER
    shutil.rmtree(draft, ignore_errors=True)  # left by a prediction that was interrupted here
    names = name_outputs(files, "", "")
    for position, ids in frames.items():
        save_frames(files[position].path, draft / names[position], ids)
        paths |= {ids[number]: str(target / names[position] / name_frame(number)) for number in ids}
    if frames:
        logger.info("Wrote %s", draft.replace(target))
    return paths


def _find_category(source: str, channels: Mapping[str, list[str]]) -> dict[str, Any] | None:
    """Return the category of a COCO file that has all of the detector's keypoint types, if there is exactly one."""
    if not source.lower().endswith(".json"):
        return None
    found = [
        category
        for category in json.loads(Path(source).read_text(encoding="utf-8-sig")).get("categories", [])
        if {name.rpartition("/")[2] for types in channels.values() for name in types}
        <= set(category.get("keypoints") or [])
    ]
    return found[0] if len(found) == 1 else None
