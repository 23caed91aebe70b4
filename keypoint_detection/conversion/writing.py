"""Write labels in a format: where its files and images go."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from keypoint_detection.conversion.formats import FORMATS, OutputName, shift
from keypoint_detection.conversion.frames import save_frames
from keypoint_detection.conversion.label_set import SPLITS, Format, LabelledImage, LabelSet
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco_keypoints import offset_px
from keypoint_detection.destinations import path_below
from keypoint_detection.types import OCCLUDED, DataError

ImageTransfer: TypeAlias = Literal["copy", "link"]

# The suffixes of the formats that can be a single file.
SUFFIXES = {name: one.output_suffix for name, one in FORMATS.items() if one.output_suffix}


def find_output_format(output: Path) -> OutputName:
    """Recognise the format to write by the name of a file; a folder gets COCO files."""
    named = next((name for name, suffix in SUFFIXES.items() if output.suffix.lower() == suffix), None)
    if named is None and output.suffix and output.suffix.lower() in (".csv", ".h5", ".txt", ".yaml", ".yml", ".zip"):
        raise DataError(f"output is {output}; expected a folder, or a file named *{', *'.join(SUFFIXES.values())}.")
    return named or "coco"


def write_labels(labels: LabelSet, output: Path, name: OutputName, transfer: ImageTransfer) -> list[str]:
    """Write labels; if that fails, anything already written is removed.

    Args:
        labels: labels in continuous coordinates; modified in place.
        output: a file, or a folder that is missing or empty.
        name: the format.
        transfer: how to put images into the folders of a format that needs them there.

    Returns:
        Notes for the user: what the format does not contain, and what to do next.

    Raises:
        DataError: the output already exists, or the format cannot represent the labels.
    """
    output_format = FORMATS[name]
    assert output_format.write is not None
    is_file = output.suffix.lower() == SUFFIXES.get(name)
    if not is_file and output.suffix.lower() in SUFFIXES.values():
        expected = f"a folder or *{SUFFIXES[name]}" if name in SUFFIXES else "a folder"
        raise DataError(f"output is {output}, but {output_format.title} is written to {expected}.")
    frames = output.with_name(f"{output.stem}_frames") if is_file else output / "images"
    made = [output, frames] if is_file else [output]
    for path in made:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise DataError(f"{path} already exists; give another --output.")
    names = [one.name for one in labels.categories]
    if not output_format.has_equal_names and (repeated := [one for one in names if names.count(one) > 1]):
        raise DataError(
            f"{len(repeated)} categories are called {repeated[0]!r}, and {output_format.title} distinguishes "
            "categories by their names. Rename one."
        )
    with _removing_on_failure(made):
        if output_format.image_folder:
            _bring_images(labels, output, output_format, transfer)
        else:
            save_frames(labels, frames)
        shift(labels, -offset_px(output_format.coordinates))
        notes = _note_losses(labels, output_format, is_file)
        for path, part in _list_outputs(labels, output, output_format, is_file):
            notes += output_format.write(part, path)
        return notes


@contextmanager
def _removing_on_failure(paths: list[Path]) -> Iterator[None]:
    existing = [path for path in paths if path.exists()]
    try:
        yield
    except BaseException:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if path in existing:
                path.mkdir(exist_ok=True)
        raise


def _note_losses(labels: LabelSet, output_format: Format, is_file: bool) -> list[str]:
    """Report what the labels contain and the format cannot hold."""
    notes = []
    has_parts = len({image.split for image in labels.images}) > 1
    if has_parts and (output_format.parts == "none" or (output_format.parts == "files" and is_file)):
        notes.append("Training, validation and test images are written together.")
    is_full = output_format.skeletons == "all" or (output_format.skeletons == "one" and len(labels.categories) == 1)
    if not is_full and any(one.skeleton for one in labels.categories):
        whose = "" if output_format.skeletons == "none" else " of several categories"
        notes.append(f"Skeletons are left out: {output_format.title} has no place for those{whose}.")
    n_occluded = sum(int((one.visibility == OCCLUDED).sum()) for image in labels.images for one in image.instances)
    if n_occluded and not output_format.has_occluded:
        points = count_in_words(n_occluded, "occluded point is", "occluded points are")
        notes.append(f"{points} written as visible: {output_format.title} has no flag for them.")
    return notes


def _list_outputs(
    labels: LabelSet, output: Path, output_format: Format, is_file: bool
) -> Iterator[tuple[Path, LabelSet]]:
    """List what to write, and its contents: one file per part of the data set if the format has separate files."""
    if is_file or output_format.parts != "files":
        yield output, labels
        return
    for split in ("", *SPLITS):
        images = [image for image in labels.images if image.split == split]
        if images:
            yield output / f"{split or 'labels'}{output_format.output_suffix}", replace(labels, images=images)


def _bring_images(labels: LabelSet, folder: Path, output_format: Format, transfer: ImageTransfer) -> None:
    """Copy or link all images to where the format expects them."""
    for image, place in zip(labels.images, _choose_places(labels, folder, output_format), strict=True):
        if image.path is None:
            image.name = place.relative_to(folder).as_posix()
            continue
        if os.path.lexists(place):  # on file systems that ignore case
            raise DataError(f"{image.path} would become {place}, as would another image; rename one of them.")
        place.parent.mkdir(parents=True, exist_ok=True)
        if transfer == "link":
            os.symlink(image.path.absolute(), place)
        else:
            shutil.copyfile(image.path, place)
        image.path = place
    save_frames(labels, folder)


def _choose_places(labels: LabelSet, folder: Path, output_format: Format) -> list[Path]:
    """Choose the path of each image; no two images may share a path or a label file."""
    places: dict[Path, None] = {}  # an ordered set
    taken: dict[Path, str] = {}
    for image in labels.images:
        place = folder / _place(image, output_format)
        own = str(image.path or image.name)
        file = place if output_format.label_file is None else output_format.label_file(place)
        if file in taken:
            what = f"become {place}" if place in places else f"have the label file {file}"
            raise DataError(f"{own} and {taken[file]} would both {what}; convert them one by one, or rename one.")
        taken[file] = own
        places[place] = None
    return list(places)


def _place(image: LabelledImage, output_format: Format) -> Path:
    """Return an image's path below the folder of the data set."""
    parts = path_below(image.name).parts
    # Folders that the formats prepend themselves.
    prepended = {*SPLITS, *(one.image_folder for one in FORMATS.values())}
    while len(parts) > 1 and parts[0] in prepended:
        parts = parts[1:]
    return output_format.image_folder / output_format.place_image(image.split, parts)
