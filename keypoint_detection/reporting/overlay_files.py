"""Write the images and videos on which `kpd predict` draws its points."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, groupby, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.data.unlabelled import UnlabelledFile
from keypoint_detection.data.video import read_frames, read_rate, write_video
from keypoint_detection.destinations import path_below
from keypoint_detection.drawing import PointSet, draw_overlay
from keypoint_detection.images import read_pixels
from keypoint_detection.inference.prediction_files import Record

OVERLAY_FOLDER, OVERLAY_VIDEO = "overlays", "overlay.mp4"
# A drawing in progress; it gets its final name once it is complete.
FOLDER_DRAFT = ".overlays.partial"


class OverlayStyle(NamedTuple):
    """How points are drawn.

    Attributes:
        channels: their names, in the order of the legend.
        min_score: points with lower scores are left out.
        offset: added to the coordinates of a record to make them continuous.
    """

    channels: list[str]
    min_score: float
    offset: float


def draw_overlays(
    folder: Path, files: Sequence[UnlabelledFile], records: Iterable[Record], style: OverlayStyle
) -> Path | None:
    """Draw the points of every image and of every video frame on it.

    Args:
        folder: where to put the overlays: in a subfolder, unless there is only one video.
        files: all images and videos of the prediction; unreadable ones have no record.
        records: the points found in each, with the `index` of the file and the frame, in that order.
        style: how points are drawn.

    Returns:
        The folder of overlays, or the video; None if there is no record.
    """
    target, draft = folder / OVERLAY_FOLDER, folder / FOLDER_DRAFT
    shutil.rmtree(draft, ignore_errors=True)  # left by a prediction that was interrupted here
    names = name_outputs(files, ".png", ".mp4")
    for position, of_file in groupby(records, key=lambda record: int(record["index"][0])):
        file, place = files[position], draft / names[position]
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.is_video:
            write_video(str(place), _draw_frames(file.path, iter(of_file), style), read_rate(file.path))
        else:
            Image.fromarray(_draw(read_pixels(file.path), next(of_file), style)).save(place)
    if not draft.exists():
        return None
    if len(files) > 1 or not files[0].is_video:
        return draft.replace(target)
    (draft / names[0]).replace(folder / OVERLAY_VIDEO)
    shutil.rmtree(draft)
    return folder / OVERLAY_VIDEO


def _draw_frames(video: str, records: Iterator[Record], style: OverlayStyle) -> Iterator[NDArray[np.uint8]]:
    """Draw the points of each frame on it, up to the last frame with points; a lost frame shows the one before it."""
    record: Record | None = next(records)
    drawn, n_waiting = None, 0
    for frame in read_frames(video):
        if record is None:
            break
        n_waiting += 1
        if frame.pixels is not None and frame.number == record["frame"]:
            drawn = _draw(frame.pixels, record, style)
            record = next(records, None)
        if drawn is not None:
            yield from repeat(drawn, n_waiting)
            n_waiting = 0


def _draw(image: NDArray[np.uint8], record: Record, style: OverlayStyle) -> NDArray[np.uint8]:
    found = [[point for point in record["points"] if point["channel"] == name] for name in style.channels]
    xy = [np.array([[p["x"], p["y"]] for p in points], np.float32).reshape(-1, 2) + style.offset for points in found]
    scores = [np.array([point["score"] for point in points], np.float32) for points in found]
    objects = None
    if "objects" in record:
        objects = [np.array([-1 if p["object"] is None else p["object"] for p in points], np.int64) for points in found]
    marks = PointSet.of_predictions(xy, scores, objects)
    return np.asarray(draw_overlay(image, marks, style.channels, min_score=style.min_score))


def name_outputs(files: Sequence[UnlabelledFile], for_image: str, for_video: str) -> list[Path]:
    """Name the output for each file: like the file, with another suffix.

    Files that differ only in their suffix keep it.

    Args:
        files: the images and videos.
        for_image: suffix of the output for an image.
        for_video: suffix of the output for a video.

    >>> files = [UnlabelledFile(name, name, None) for name in ("b/c.jpg", "a.jpg", "a.png", "../a.png", "v.avi")]
    >>> [path.as_posix() for path in name_outputs(files, ".png", ".mp4")]
    ['b/c.png', 'a.jpg.png', 'a.png.png', 'a.png-2.png', 'v.mp4']
    """
    places = [path_below(file.name) for file in files]
    without_suffix = Counter(str(place.with_suffix("")).casefold() for place in places)
    taken: set[str] = set()
    outputs = []
    for file, place in zip(files, places, strict=True):
        is_alone = without_suffix[str(place.with_suffix("")).casefold()] == 1
        stem = place.with_suffix("").name if is_alone else place.name
        suffix = for_video if file.is_video else for_image
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        output = next(
            path for one in numbered if str(path := place.with_name(f"{one}{suffix}")).casefold() not in taken
        )
        taken.add(str(output).casefold())
        outputs.append(output)
    return outputs
