"""The table of formats, and how labels are recognised and read."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from keypoint_detection.conversion.blender import BLENDER
from keypoint_detection.conversion.coco import COCO
from keypoint_detection.conversion.cvat import CVAT
from keypoint_detection.conversion.deeplabcut import DEEPLABCUT
from keypoint_detection.conversion.label_set import Format, LabelledImage, LabelSet, Reading
from keypoint_detection.conversion.label_studio import LABEL_STUDIO
from keypoint_detection.conversion.sleap import SLEAP
from keypoint_detection.conversion.yolo import YOLO
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco_annotations import COORDINATE_LIMIT
from keypoint_detection.data.coco_keypoints import Coordinates, offset_px
from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_json, refuse_special_file
from keypoint_detection.types import DataError

# Every format. The first format that recognises the labels is used: a folder of one format may also contain COCO files
# made from it, so COCO comes later.
FORMATS: dict[str, Format] = {
    "sleap": SLEAP,
    "cvat": CVAT,
    "deeplabcut": DEEPLABCUT,
    "coco": COCO,
    "yolo": YOLO,
    "label_studio": LABEL_STUDIO,
    "blender": BLENDER,
}
# The command line knows each name; a type checker cannot read them from the table.
if TYPE_CHECKING:
    FormatName: TypeAlias = str
    OutputName: TypeAlias = str
else:
    FormatName = Literal[tuple(sorted(FORMATS))]
    OutputName = Literal[tuple(sorted(name for name, one in FORMATS.items() if one.write))]

N_LISTED = 10


def find_labels(source: Path, name: FormatName | None) -> tuple[Path, FormatName]:
    """Find where labels are and what format they have; a folder can contain one label file.

    Args:
        source: a file or folder.
        name: name of the format, if it is known.

    Returns:
        The file or folder to read, and its format.

    Raises:
        DataError: it is missing, of no known format, or a folder with several possible files.
    """
    _refuse_missing(source)
    if name is not None and source.is_file():
        return source, name
    found = _recognise(source)
    if found is not None and name in (None, found):
        return source, found
    if source.is_dir() and (name is None or FORMATS[name].source_suffix):
        source = _choose_file(source, name)
    return source, name or find_format(source)


def find_format(source: Path) -> FormatName:
    """Recognise the format of a file or folder.

    Raises:
        DataError: it is missing or of an unknown format.
    """
    _refuse_missing(source)
    found = _recognise(source)
    if found is None:
        raise _not_recognised(source)
    return found


def _choose_file(folder: Path, name: FormatName | None) -> Path:
    suffixes = {one.source_suffix for one in FORMATS.values()} if name is None else {FORMATS[name].source_suffix}
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes - {""} and path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - N_LISTED} more" if len(found) > N_LISTED else ""
        listed = ", ".join(path.name for path in found[:N_LISTED])
        raise DataError(f"{folder}: has {len(found)} possible files: {listed}{more}. Name one of them.")
    if name is None:
        raise _not_recognised(folder)
    raise DataError(f"{folder}: has no *{FORMATS[name].source_suffix} file; {FORMATS[name].title} is read from one.")


def _not_recognised(source: Path) -> DataError:
    if source.suffix.lower() == ".zip":
        return DataError(f"{source}: is a ZIP archive; unpack it first, and give its folder.")
    return DataError(f"{source}: its format is not recognised; give it with --from: {', '.join(sorted(FORMATS))}.")


def _refuse_missing(source: Path) -> None:
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. Paths are relative to {Path.cwd()}.")
    if not source.is_dir():
        refuse_special_file(source, "a file or folder of labels")


def _recognise(source: Path) -> FormatName | None:
    found = next((name for name, one in FORMATS.items() if one.recognises(source)), None)
    if found is not None or source.suffix != ".json":
        return found
    try:
        content = read_json(source, "a file of labels")
    except DataError:
        return "coco"  # its reader gives the best explanation
    return next((name for name, one in FORMATS.items() if one.recognises_json(content)), "coco")


def read_labels(source: Path, name: FormatName, reading: Reading, coordinates: Coordinates | None) -> LabelSet:
    """Read labels, in continuous coordinates.

    Args:
        source: a file or folder.
        name: its format.
        reading: further options for reading it.
        coordinates: convention of the file's coordinates, if not the usual one of its format.

    Raises:
        DataError: it cannot be read, or contains no keypoints.
    """
    try:
        labels = FORMATS[name].read(source, reading)
    except OverflowError as error:
        raise DataError(f"{source}: has a number that is too large ({error}).") from error
    except DataError as error:
        # The options have other names here than in `kpd fit`.
        raise DataError(str(error).replace("--data.", "--")) from error
    _refuse_far_points(labels, source)
    shift(labels, offset_px(coordinates or FORMATS[name].coordinates))
    if not any(instance.is_labelled.any() for image in labels.images for instance in image.instances):
        raise DataError(f"{source}: no keypoint is labelled in its {count_in_words(len(labels.images), 'image')}.")
    refuse_unlabelled_parts(labels.images, f"{source}: {{}}; convert the other parts on their own")
    return labels


def _refuse_far_points(labels: LabelSet, source: Path) -> None:
    """Refuse coordinates that no image can have: infinite ones could not even be written to most formats."""
    problems = Problems()
    for image in labels.images:
        for one in image.instances:
            near = (np.abs(one.points) < COORDINATE_LIMIT).all(axis=1)
            for x, y in one.points[~near].tolist():
                problems.add("far", f"{image.name}: a keypoint is at ({x:g}, {y:g}); pixel coordinates are expected.")
            if one.box is not None and not (np.abs(one.box) < COORDINATE_LIMIT).all():
                problems.add("box", f"{image.name}: a box is {one.box}; (left, top, width, height) is expected.")
    problems.raise_if_any(source)


def refuse_unlabelled_parts(images: list[LabelledImage], message: str) -> None:
    """Refuse a part of a data set without a single labelled point: nothing could be measured on it.

    Args:
        images: all images.
        message: explains the fix; {} stands for what is wrong.

    Raises:
        DataError: there is such a part.
    """
    sizes = Counter(image.split for image in images)
    labelled = {image.split for image in images if any(one.is_labelled.any() for one in image.instances)}
    for split in sizes.keys() - labelled:
        count = count_in_words(sizes[split], "image")
        raise DataError(message.format(f"no keypoint is labelled in the {count} of the part {split!r}") + ".")


def shift(labels: LabelSet, offset_px: float) -> None:
    """Move all labelled points and boxes right and down."""
    for instance in (instance for image in labels.images for instance in image.instances):
        instance.points[instance.is_labelled] += offset_px
        if instance.box is not None:
            left, top, width, height = instance.box
            instance.box = (left + offset_px, top + offset_px, width, height)
