"""The command `kpd suggest`: which images to label next."""

import csv
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt
from numpy.typing import NDArray

from keypoint_detection.commands.terminal import leave_with_unreadable, track
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.image_bounds import OutsideImages
from keypoint_detection.data.unlabelled import UnlabelledFile, find_unlabelled
from keypoint_detection.data.video import count_frames, name_frame, read_frames, save_frames
from keypoint_detection.destinations import path_below, refuse_unwritable
from keypoint_detection.drawing import LabelledPanel, draw_contact_sheet
from keypoint_detection.images import ImageError, read_pixels
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.inference.predictor import Predictor
from keypoint_detection.inference.suggesting import choose_images, make_thumbnail, measure_doubts, take_impression
from keypoint_detection.inference.thresholds import choose_threshold
from keypoint_detection.inference.torch_engine import TorchEngine
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.printing import complain, make_plain_cell, say
from keypoint_detection.types import NOT_LABELLED, VISIBLE, DataError

N_COLUMNS = 4
N_DECIMALS = 4
# How many frames of all videos are examined, evenly spread: those in between look the same.
N_FRAMES = 1000


class _Candidate(NamedTuple):
    """An image, or a frame of a video, to suggest."""

    file: UnlabelledFile
    number: int | None


class _Suggestion(NamedTuple):
    """An image to label: its name and file, and how much the detector doubts its own detections there."""

    name: str
    path: Path
    doubt: float


def run(words: Sequence[str]) -> None:
    """Suggest images as described by the words, the first of which is `suggest`.

    Raises:
        SystemExit: the words are wrong (2), or images could not be read (1).
    """
    failures = call_with_words(suggest, "kpd suggest", words[1:])
    if failures:
        leave_with_unreadable("kpd suggest", count_in_words(len(failures), "file"), failures)


def suggest(
    ckpt_path: str,
    images: str,
    n_images: PositiveInt = 20,
    labelled: str | None = None,
    output: str = "suggested.csv",
    outside_images: OutsideImages = "error",
) -> list[str]:
    """Rank images or frames of videos by how much labelling them would help, and draw the best on a contact sheet.

    Images in which the detector is in doubt come first: low scores, superfluous points, or points that move when the
    image is mirrored or shrunk. Images that resemble another suggestion or a labelled image come later. At most a
    thousand frames of all videos are examined; those suggested are written as images.

    Args:
        ckpt_path: path of the checkpoint, or `wandb://entity/project/name:alias`.
        images: a video, an image, a folder with everything below it, a pattern such as `frames/**/*.jpg`, or a COCO
            file, of which only the images are read.
        n_images: number of images to suggest.
        labelled: images that are labelled already, e.g. the training file; neither they nor near-copies of them are
            suggested.
        output: the CSV file to write, with rank, image and doubt; the contact sheet has the same name with .png, and
            the folder of frames the same name without .csv.
        outside_images: whether images outside the folder of a COCO file are an error, or read too (allow).

    Returns:
        Why images could not be read.

    Raises:
        DataError: there are no images, or the output exists or cannot be written.
    """
    table = Path(output).expanduser()
    known = [] if labelled is None else _list_files(labelled, "--labelled", outside_images, takes_videos=False)
    known_files = {os.path.realpath(file.path) for file in known}
    found = _list_files(images, "--images", outside_images, takes_videos=True)
    files = [file for file in found if os.path.realpath(file.path) not in known_files]
    _refuse_outputs(table, any(file.is_video for file in files))
    if not files:
        raise DataError(f"--images: all images of {images} are labelled already.")
    loaded = load_detector(ckpt_path, flip_test=False)
    engine = TorchEngine(loaded, "auto", "float32", compile=False)
    detector = Predictor(engine, score_threshold=0.0, coordinates="continuous")
    failures: list[str] = []
    seen = [
        (candidate, take_impression(detector, pixels, loaded.mirrored_channels))
        for candidate, pixels in _read_all(files, "Looking at images", failures)
    ]
    if not seen:
        raise DataError(f"--images: nothing of {images} can be read; the first is {failures[0]}")
    thumbnails = np.stack([impression.thumbnail for _, impression in seen])
    of_known = [make_thumbnail(pixels) for _, pixels in _read_all(known, "Looking at labelled images", failures)]
    threshold = choose_threshold("best_f1", loaded.best_f1_threshold, loaded.codec.score_threshold)
    doubts = measure_doubts([impression for _, impression in seen], threshold)
    has_points = any((scores >= threshold).any() for _, impression in seen for scores in impression.scores)
    if not has_points:
        complain("kpd suggest: no point was found in any image: they are ranked only by how much they differ.\n")
    chosen = choose_images(
        doubts if has_points else None, thumbnails, np.reshape(of_known, (-1, thumbnails.shape[1])), n_images
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    suggestions = _save([seen[index][0] for index in chosen], doubts[chosen].tolist(), table.with_suffix(""))
    _draw_sheet(table.with_suffix(".png"), suggestions, detector, threshold)
    _write_table(table, suggestions)
    _report(table, len(chosen), len(seen), n_images)
    return failures


def _report(table: Path, n_chosen: int, n_seen: int, n_wanted: int) -> None:
    in_words = count_in_words(n_chosen, "image")
    frames = table.with_suffix("")
    say(f"Wrote {table} and {table.with_suffix('.png')}: {in_words} of {n_seen} to label next.\n")
    if frames.is_dir():
        say(
            f"The frames of videos are in {frames}; `kpd predict --data.predict={shlex.quote(str(frames))} "
            "--output.format=coco_labels` labels them for you to correct.\n"
        )
    if n_chosen < min(n_wanted, n_seen):
        say("The others are copies of these or of images that are labelled.\n")


def _refuse_outputs(table: Path, has_videos: bool) -> None:
    """Refuse output files that already exist or cannot be written, before any image is read."""
    if table.suffix.lower() != ".csv":
        raise DataError(f"--output is {str(table)!r}; a name ending in .csv is expected.")
    for path in (table, table.with_suffix(".png"), *([table.with_suffix("")] * has_videos)):
        if path.exists():
            raise DataError(f"{path} already exists; give another --output.")
    refuse_unwritable(table, "--output")


def _read_all(
    files: Sequence[UnlabelledFile], description: str, failures: list[str]
) -> Iterator[tuple[_Candidate, NDArray[np.uint8]]]:
    """Read all images and some frames of each video, and show the progress; add what cannot be read to the failures."""
    n_per_video = max(1, N_FRAMES // max(1, sum(file.is_video for file in files)))
    for file in track(files, description, len(files)):
        try:
            if file.is_video:
                yield from _read_some(file, n_per_video, failures)
            else:
                yield _Candidate(file, None), read_pixels(file.path)
        except (ImageError, DataError) as error:
            failures.append(str(error))


def _read_some(
    file: UnlabelledFile, n_frames: int, failures: list[str]
) -> Iterator[tuple[_Candidate, NDArray[np.uint8]]]:
    """Read about as many frames of a video, evenly spread; lost ones are counted in one failure."""
    step = -(-(count_frames(file.path) or n_frames) // n_frames)
    n_lost = 0
    for frame in read_frames(file.path):
        n_lost += frame.pixels is None
        if frame.pixels is not None and frame.number % step == 0:
            yield _Candidate(file, frame.number), frame.pixels
    if n_lost:
        failures.append(f"{file.path}: {count_in_words(n_lost, 'frame')} cannot be decoded.")


def _save(candidates: Sequence[_Candidate], doubts: Sequence[float], folder: Path) -> list[_Suggestion]:
    """Write the frames among the candidates as images."""
    frames: dict[UnlabelledFile, list[int]] = {}
    suggestions = []
    for (file, number), doubt in zip(candidates, doubts, strict=True):
        name, path = file.name, Path(file.path)
        if number is not None:
            frames.setdefault(file, []).append(number)
            path = folder / path_below(file.name) / name_frame(number)
            name = path.as_posix()
        suggestions.append(_Suggestion(name, path, doubt))
    for file, numbers in frames.items():
        save_frames(file.path, folder / path_below(file.name), numbers)
    return suggestions


def _write_table(path: Path, suggestions: Sequence[_Suggestion]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "image", "doubt"])
        for rank, suggestion in enumerate(suggestions, 1):
            writer.writerow([rank, make_plain_cell(suggestion.name), round(suggestion.doubt, N_DECIMALS)])


def _list_files(source: str, option: str, outside_images: OutsideImages, *, takes_videos: bool) -> list[UnlabelledFile]:
    try:
        return find_unlabelled(source, None, option, outside_images, takes_videos=takes_videos)
    except DataError as error:
        # The option has a different name here than in `kpd fit`.
        raise DataError(str(error).replace("--data.", "--")) from error


def _draw_sheet(path: Path, suggestions: Sequence[_Suggestion], detector: Predictor, threshold: float) -> None:
    panels = []
    for rank, (name, file, doubt) in enumerate(suggestions, 1):
        pixels = read_pixels(str(file))
        result = detector(pixels)
        kept = [result.xy[channel][result.scores[channel] >= threshold] for channel in detector.channels]
        n_most = max(map(len, kept))
        points = np.zeros((len(kept), n_most, 2), np.float32)
        visibility = np.full((len(kept), n_most), NOT_LABELLED)
        for c, found in enumerate(kept):
            points[c, : len(found)], visibility[c, : len(found)] = found, VISIBLE
        panels.append(LabelledPanel(f"{rank}. {name} ({doubt:.2f})", pixels, points, visibility))
    rows = [panels[start : start + N_COLUMNS] for start in range(0, len(panels), N_COLUMNS)]
    draw_contact_sheet(rows, detector.channels, "Label these next: rank, image, doubt, and what is found").save(path)
