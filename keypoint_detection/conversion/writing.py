"""Writing labels in a format: where its files go, and its images with them."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from keypoint_detection.conversion.coco import SPLITS, write_coco_labels
from keypoint_detection.conversion.cvat import write_cvat
from keypoint_detection.conversion.deeplabcut import IMAGE_FOLDER
from keypoint_detection.conversion.deeplabcut_project import write_deeplabcut
from keypoint_detection.conversion.formats import FORMATS, shift
from keypoint_detection.conversion.frames import save_frames
from keypoint_detection.conversion.label_set import LabelledImage, LabelSet
from keypoint_detection.conversion.label_studio_tasks import write_label_studio
from keypoint_detection.conversion.sleap import write_sleap
from keypoint_detection.conversion.yolo import label_path, write_yolo
from keypoint_detection.data.coco_keypoints import offset_px
from keypoint_detection.destinations import path_below
from keypoint_detection.types import DataError

OutputName: TypeAlias = Literal["coco", "deeplabcut", "sleap", "label_studio", "cvat", "yolo"]
ImageTransfer: TypeAlias = Literal["copy", "link"]

# The formats that may be a single file, and its suffix.
SUFFIXES: dict[OutputName, str] = {"coco": ".json", "sleap": ".slp", "cvat": ".xml"}
# The formats that keep their images in folders of their own.
WITH_IMAGES: tuple[OutputName, ...] = ("yolo", "deeplabcut", "label_studio")
# The formats that do not distinguish training from validation.
WITHOUT_PARTS: tuple[OutputName, ...] = ("deeplabcut", "label_studio")


def find_output_format(output: Path) -> OutputName:
    """Recognise the format to write by the name of a file; a folder gets COCO files."""
    named = next((name for name, suffix in SUFFIXES.items() if output.suffix.lower() == suffix), None)
    if named is None and output.suffix and output.suffix.lower() in (".csv", ".h5", ".txt", ".yaml", ".yml", ".zip"):
        raise DataError(f"output is {output}; expected a folder, or a file named *{', *'.join(SUFFIXES.values())}.")
    return named or "coco"


def write_labels(
    labels: LabelSet, output: Path, name: OutputName, transfer: ImageTransfer, info: Mapping[str, Any]
) -> list[str]:
    """Write labels; if that fails, anything already written is removed.

    Args:
        labels: in continuous coordinates; they are changed.
        output: a file, or a folder that is missing or empty.
        name: the format.
        transfer: how images get into the folders of a format that needs them there.
        info: a COCO file's description of itself.

    Returns:
        Notes for the user: what the format does not contain, and what to do next.

    Raises:
        DataError: the output already exists, or the format cannot represent the labels.
    """
    is_file = output.suffix.lower() == SUFFIXES.get(name)
    if output.suffix and output.suffix.lower() in SUFFIXES.values() and not is_file:
        expected = f"a folder or *{SUFFIXES[name]}" if name in SUFFIXES else "a folder"
        raise DataError(f"output is {output}, but {FORMATS[name].title} is written to {expected}.")
    frames = output.with_name(f"{output.stem}_frames") if is_file else output / "images"
    made = [output, frames] if is_file else [output]
    for path in made:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise DataError(f"{path} already exists; give another --output.")
    names = [one.name for one in labels.categories]
    if name in ("cvat", "label_studio") and (repeated := [one for one in names if names.count(one) > 1]):
        raise DataError(
            f"{len(repeated)} categories are called {repeated[0]!r}, and {FORMATS[name].title} tells categories apart "
            "by their names. Rename one."
        )
    with _removing_on_failure(made):
        if name in WITH_IMAGES:
            _bring_images(labels, output, name, transfer)
        else:
            save_frames(labels, frames)
        shift(labels, -offset_px(FORMATS[name].coordinates))
        return _write(labels, output, name, is_file, info)


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


def _write(labels: LabelSet, output: Path, name: OutputName, is_file: bool, info: Mapping[str, Any]) -> list[str]:
    notes = []
    if len({image.split for image in labels.images}) > 1 and (name in WITHOUT_PARTS or (is_file and name != "cvat")):
        notes.append("Training, validation and test images are written together.")
    has_lines = any(one.skeleton for one in labels.categories)
    if has_lines and (name == "label_studio" or (name == "yolo" and len(labels.categories) > 1)):
        whose = "" if name == "label_studio" else " of several categories"
        notes.append(f"Skeletons are left out: {FORMATS[name].title} has no place for those{whose}.")
    if name == "yolo":
        return notes + write_yolo(labels, output)
    if name == "deeplabcut":
        return notes + write_deeplabcut(labels, output)
    if name == "label_studio":
        return notes + write_label_studio(labels, output)
    if name == "cvat":
        path = output if is_file else output / "annotations.xml"
        return notes + write_cvat(labels, path, output.stem)
    for path, part in _list_parts(labels, output, SUFFIXES[name], is_file):
        if name == "sleap":
            notes += write_sleap(part, path)
        else:
            write_coco_labels(part, path, info)
    return notes


def _list_parts(labels: LabelSet, output: Path, suffix: str, is_file: bool) -> Iterator[tuple[Path, LabelSet]]:
    """List the files to write and their contents, one per part of the data set."""
    if is_file:
        yield output, labels
        return
    for split in ("", *SPLITS):
        images = [image for image in labels.images if image.split == split]
        if images:
            yield output / f"{split or 'labels'}{suffix}", replace(labels, images=images)


def _bring_images(labels: LabelSet, folder: Path, name: OutputName, transfer: ImageTransfer) -> None:
    """Copy or link all images to where the format expects them."""
    for image, place in zip(labels.images, _choose_places(labels, folder, name), strict=True):
        if image.path is None:
            image.name = place.relative_to(folder).as_posix()
            continue
        if os.path.lexists(place):  # where upper and lower case are the same
            raise DataError(f"{image.path} would become {place}, as another image does; rename one of them.")
        place.parent.mkdir(parents=True, exist_ok=True)
        if transfer == "link":
            os.symlink(image.path.absolute(), place)
        else:
            shutil.copyfile(image.path, place)
        image.path = place
    save_frames(labels, folder)


def _choose_places(labels: LabelSet, folder: Path, name: OutputName) -> list[Path]:
    """Choose the path of each image, which no other image may share, nor its label file."""
    places: dict[Path, None] = {}  # a set in order
    taken: dict[Path, str] = {}
    for image in labels.images:
        place = folder / _place(image, name)
        own = str(image.path or image.name)
        written = label_path(place) if name == "yolo" else place
        if written in taken:
            what = f"become {place}" if place in places else f"have the label file {written}"
            raise DataError(f"{own} and {taken[written]} would both {what}; convert them one by one, or rename one.")
        taken[written] = own
        places[place] = None
    return list(places)


def _place(image: LabelledImage, name: OutputName) -> Path:
    """Return an image's path below the folder of the data set."""
    parts = path_below(image.name).parts
    # Folders that the formats prepend themselves.
    while len(parts) > 1 and parts[0] in ("images", IMAGE_FOLDER, *SPLITS):
        parts = parts[1:]
    if name == "yolo":
        return Path("images", image.split or "train", *parts)
    if name == "deeplabcut":
        return Path(IMAGE_FOLDER, "_".join(parts[:-1]) or "images", parts[-1])
    return Path("images", *parts)
