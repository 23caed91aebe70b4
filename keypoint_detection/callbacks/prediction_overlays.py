"""The images or the video that `kpd predict` draws its points on."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.data.unlabelled import UnlabelledImage
from keypoint_detection.data.video import read_frames, read_rate, write_video
from keypoint_detection.destinations import stay_below
from keypoint_detection.drawing import PointSet, draw_overlay
from keypoint_detection.images import read_pixels
from keypoint_detection.inference.formats import Record

__all__ = ["OVERLAY_FOLDER", "OVERLAY_VIDEO", "Look", "draw_overlay_images", "draw_overlay_video"]

OVERLAY_FOLDER, OVERLAY_VIDEO = "overlays", "overlay.mp4"
# What is drawn so far; it gets its name once it is complete.
FOLDER_DRAFT, VIDEO_DRAFT = ".overlays.partial", ".overlay.partial.mp4"


class Look(NamedTuple):
    """How points are drawn.

    Attributes:
        channels: their names, in the order of the legend.
        min_score: points that score less are left out.
        offset: what is added to the coordinates of a record to make them continuous.
    """

    channels: list[str]
    min_score: float
    offset: float


def draw_overlay_images(
    folder: Path, images: Sequence[UnlabelledImage], records: Iterable[Record], look: Look
) -> Path | None:
    """Draw the points of every image on it.

    Args:
        folder: where the folder of overlays goes.
        images: all images of the prediction; those that could not be read have no record.
        records: what was found in each.
        look: how points are drawn.

    Returns:
        The folder of overlays; None if there is no record.
    """
    target, draft = folder / OVERLAY_FOLDER, folder / FOLDER_DRAFT
    shutil.rmtree(draft, ignore_errors=True)  # of a prediction that was interrupted here
    paths = {image.image_id: image.path for image in images}
    names = dict(zip(paths, _name_overlays([image.name for image in images]), strict=True))
    for record in records:
        place = draft / names[record["id"]]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_draw(read_pixels(paths[record["id"]]), record, look)).save(place)
    return draft.replace(target) if draft.exists() else None


def draw_overlay_video(folder: Path, video: str, records: Iterable[Record], look: Look) -> Path:
    """Draw the points of every frame on it, at the rate of the video; return the new one."""
    draft = folder / VIDEO_DRAFT
    drawn = (_draw(frame, record, look) for frame, record in zip(read_frames(video), records, strict=False))
    write_video(str(draft), drawn, read_rate(video))
    return draft.replace(folder / OVERLAY_VIDEO)


def _draw(image: NDArray[np.uint8], record: Record, look: Look) -> NDArray[np.uint8]:
    found = [[point for point in record["points"] if point["channel"] == name] for name in look.channels]
    xy = [np.array([[p["x"], p["y"]] for p in points], np.float32).reshape(-1, 2) + look.offset for points in found]
    scores = [np.array([point["score"] for point in points], np.float32) for points in found]
    marks = PointSet.of_predictions(xy, scores)
    return np.asarray(draw_overlay(image, marks, look.channels, min_score=look.min_score))


def _name_overlays(names: list[str]) -> list[Path]:
    """Name the overlay of each image: like the image, as a PNG; images that differ in nothing else keep their suffix.

    >>> [path.as_posix() for path in _name_overlays(["b/c.jpg", "a.jpg", "a.png", "../a.png"])]
    ['b/c.png', 'a.jpg.png', 'a.png.png', 'a.png-2.png']
    """
    places = [stay_below(name) for name in names]
    without_suffix = Counter(str(place.with_suffix("")).casefold() for place in places)
    taken: set[str] = set()
    overlays = []
    for place in places:
        is_alone = without_suffix[str(place.with_suffix("")).casefold()] == 1
        stem = place.with_suffix("").name if is_alone else place.name
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        overlay = next(path for one in numbered if str(path := place.with_name(f"{one}.png")).casefold() not in taken)
        taken.add(str(overlay).casefold())
        overlays.append(overlay)
    return overlays
