"""The command `kpd suggest`: which images to label next."""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from jsonargparse.typing import PositiveInt

from keypoint_detection.commands.terminal import leave_with_unreadable, track
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.unlabelled import UnlabelledImage, find_images, is_video
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.drawing import LabelledPanel, draw_contact_sheet
from keypoint_detection.images import ImageError, read_pixels
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.inference.predictor import Predictor
from keypoint_detection.inference.suggesting import (
    Floats,
    Impression,
    choose_images,
    make_thumbnail,
    measure_doubts,
    take_impression,
)
from keypoint_detection.inference.thresholds import choose_threshold
from keypoint_detection.inference.torch_engine import TorchEngine
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.types import DataError

__all__ = ["run", "suggest"]

R = TypeVar("R")

N_COLUMNS = 4
N_DECIMALS = 4


def run(words: Sequence[str]) -> None:
    """Suggest images as described by the words, the first of which is `suggest`.

    Raises:
        SystemExit: the words are wrong (2), or images could not be read (1).
    """
    failures = call_with_words(suggest, "kpd suggest", words[1:])
    if failures:
        leave_with_unreadable("kpd suggest", failures)


def suggest(
    ckpt_path: str,
    images: str,
    n_images: PositiveInt = 20,
    labelled: str | None = None,
    output: str = "suggested.csv",
) -> list[str]:
    """Rank images without labels by how much labelling them would teach, and draw the first ones on a contact sheet.

    Images come first in which the detector is in doubt: low scores, a point too many, or points that move when the
    image is mirrored or shrunk. Images that resemble another suggestion, or one that is labelled, come later.

    Args:
        ckpt_path: path of the checkpoint, or `wandb://entity/project/name:alias`.
        images: an image, a folder with everything below it, a pattern such as `frames/**/*.jpg`, or a COCO file, of
            which only the images are read.
        n_images: number of images to suggest.
        labelled: images that are labelled already, e.g. the training file; they are neither suggested nor repeated.
        output: the CSV file to write, with rank, image and doubt; the contact sheet has the same name with .png.

    Returns:
        Why images could not be read.

    Raises:
        DataError: there are no images, or the output exists or cannot be written.
    """
    table = Path(output).expanduser()
    sheet = table.with_suffix(".png")
    _refuse_outputs(table, sheet)
    known = _list_images(labelled, "--labelled") if labelled is not None else []
    known_files = {os.path.realpath(image.path) for image in known}
    candidates = [
        image for image in _list_images(images, "--images") if os.path.realpath(image.path) not in known_files
    ]
    if not candidates:
        raise DataError(f"--images: all images of {images} are labelled already.")
    loaded = load_detector(ckpt_path, may_import=True, flip_test=False)
    engine = TorchEngine(loaded, "auto", "float32", compile=False)
    detector = Predictor(engine, score_threshold=0.0, coordinates="continuous")
    failures: list[str] = []

    def look_at(image: UnlabelledImage) -> tuple[UnlabelledImage, Impression]:
        return image, take_impression(detector, read_pixels(image.path), loaded.mirrored_channels)

    seen = list(_for_each(candidates, look_at, "Looking at images", failures))
    if not seen:
        raise DataError(f"--images: nothing of {images} can be read; the first is {failures[0]}")

    def shrink(image: UnlabelledImage) -> Floats:
        return make_thumbnail(read_pixels(image.path))

    thumbnails = np.stack([impression.thumbnail for _, impression in seen])
    thumbnails_known = list(_for_each(known, shrink, "Looking at labelled images", failures))
    threshold = choose_threshold("best_f1", loaded.best_f1_threshold, loaded.codec.score_threshold)
    doubts = measure_doubts([impression for _, impression in seen], threshold)
    chosen = choose_images(doubts, thumbnails, np.reshape(thumbnails_known, (-1, thumbnails.shape[1])), n_images)
    suggestions = [(seen[index][0], float(doubts[index])) for index in chosen]
    table.parent.mkdir(parents=True, exist_ok=True)
    _draw_sheet(sheet, suggestions, detector, threshold)
    _write_table(table, suggestions)
    images_in_words = count_in_words(len(chosen), "image")
    sys.stdout.write(f"Wrote {table} and {sheet}: {images_in_words} of {len(seen)} to label next.\n")
    if len(chosen) < min(n_images, len(seen)):
        sys.stdout.write("The others are copies of these or of images that are labelled.\n")
    return failures


def _refuse_outputs(table: Path, sheet: Path) -> None:
    """Refuse files that are there already or cannot be written, before any image is read."""
    if table.suffix.lower() != ".csv":
        raise DataError(f"--output is {str(table)!r}; a name ending in .csv is expected.")
    for path in (table, sheet):
        if path.exists():
            raise DataError(f"{path} already exists; give another --output.")
    refuse_unwritable(table, "--output")


def _for_each(
    images: Sequence[UnlabelledImage], do: Callable[[UnlabelledImage], R], description: str, failures: list[str]
) -> Iterator[R]:
    """Do something with each image, and show the progress; images that cannot be read are added to the failures."""
    for image in track(images, description, len(images)):
        try:
            yield do(image)
        except ImageError as error:
            failures.append(str(error))


def _write_table(path: Path, suggestions: Sequence[tuple[UnlabelledImage, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "image", "doubt"])
        for rank, (image, doubt) in enumerate(suggestions, 1):
            writer.writerow([rank, image.name, round(doubt, N_DECIMALS)])


def _list_images(source: str, option: str) -> list[UnlabelledImage]:
    if is_video(source):
        raise DataError(f"{option}: {source} is a video; save its frames as images first, e.g. every tenth.")
    return find_images(source, None, option, takes_videos=False)


def _draw_sheet(
    path: Path, suggestions: Sequence[tuple[UnlabelledImage, float]], detector: Predictor, threshold: float
) -> None:
    panels = []
    for rank, (image, doubt) in enumerate(suggestions, 1):
        pixels = read_pixels(image.path)
        result = detector(pixels)
        kept = [result.xy[name][result.scores[name] >= threshold] for name in detector.channels]
        n_most = max(map(len, kept))
        points = np.zeros((len(kept), n_most, 2), np.float32)
        is_found = np.zeros((len(kept), n_most), np.bool_)
        for c, found in enumerate(kept):
            points[c, : len(found)], is_found[c, : len(found)] = found, True
        panels.append(LabelledPanel(f"{rank}. {image.name} ({doubt:.2f})", pixels, points, is_found))
    rows = [panels[start : start + N_COLUMNS] for start in range(0, len(panels), N_COLUMNS)]
    draw_contact_sheet(rows, detector.channels, "Label these next: rank, image, doubt, and what is found").save(path)
