"""The command `kpd convert`: convert labels of other programs to COCO keypoints and back."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt

from keypoint_detection import __version__
from keypoint_detection.conversion.dividing import divide_images
from keypoint_detection.conversion.formats import (
    FORMATS,
    FormatName,
    OutputName,
    find_labels,
    read_labels,
    refuse_unlabelled_parts,
)
from keypoint_detection.conversion.label_set import LabelSet, Reading
from keypoint_detection.conversion.writing import ImageTransfer, find_output_format, write_labels
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.checks.labels import are_shares
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.printing import say
from keypoint_detection.types import OCCLUDED, DataError

CONTINUOUS = "continuous: (0, 0) is the outer corner of the top-left pixel, (0.5, 0.5) its centre"


def run(words: Sequence[str]) -> None:
    """Convert the labels described by the words, the first of which is `convert`.

    Raises:
        SystemExit: the words or the labels are wrong (2).
    """
    call_with_words(convert, "kpd convert", _spell(words[1:]))


def _spell(words: Sequence[str]) -> list[str]:
    """Rewrite the short names `--from` and `--to`, and hyphens, as parameter names; the source needs no name."""
    spelt = []
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--source":
            spelt += [value] if equals else []
        elif word.startswith("--"):
            name = {"--from": "--source_format", "--to": "--output_format"}.get(name, name)
            spelt.append(f"--{name[2:].replace('-', '_')}{equals}{value}")
        else:
            spelt.append(word)
    return spelt


def convert(
    source: str,
    /,
    output: str,
    source_format: FormatName | None = None,
    output_format: OutputName | None = None,
    val_fraction: ClosedUnitInterval = 0.0,
    test_fraction: ClosedUnitInterval = 0.0,
    group_by: int | str | None = None,
    seed: NonNegativeInt = 0,
    image_root: str | None = None,
    missing_images: MissingImages = "error",
    outside_images: OutsideImages = "error",
    categories: list[str] | None = None,
    keypoints: list[str] | None = None,
    coordinates: Coordinates | None = None,
    images: ImageTransfer = "copy",
) -> None:
    """Convert keypoint labels of other programs to COCO files and back: kpd convert SOURCE --output=OUT.

    Half a pixel is added or subtracted if one format counts from the corner of the top-left pixel (COCO, CVAT, Label
    Studio, YOLO) and the other from its centre (DeepLabCut, SLEAP).

    Args:
        source: COCO file, or folder with train.json and val.json; DeepLabCut project, folder or table; SLEAP file; JSON
            export of Label Studio; XML of CVAT for images; YOLO-pose data.yaml or its folder; box data set of Blender;
            or a folder that contains one such file.
        output: a file to write (.json COCO, .slp SLEAP, .xml CVAT), or a folder that is missing or empty.
        source_format: format of the source, if it is not recognised: coco, deeplabcut, sleap, label_studio, cvat, yolo
            or blender; short: --from.
        output_format: format to write; by default, given by the name of the output, and COCO for a folder; short: --to.
        val_fraction: share of the images to write as the validation part.
        test_fraction: share of the images to write as the test part.
        group_by: what must not be split between two parts: image, folder, a folder level (2 for the one above), or a
            regular expression to find in the image's name, such as '^(.*)_[0-9]+', whose parentheses mark the group;
            time divides each video into consecutive parts, with gaps between them. By default, the video if the source
            names it, otherwise images in one folder whose names differ only in a running number; time if there are too
            few groups.
        seed: seed of the random division into parts.
        image_root: folder of the source's images; by default, they are looked for beside it.
        missing_images: what to do about labelled images whose file is missing: error, or skip to leave them out.
        outside_images: what to do about images outside image_root or, by default, outside the folder of the labels:
            error, or allow for labels that you trust.
        categories: names of the categories to keep; by default, all.
        keypoints: names of the keypoint types in order, for YOLO without names, or to set the order for Label Studio,
            CVAT and DeepLabCut.
        coordinates: convention of the source's coordinates, if not the usual one of its format: in `continuous`, (0, 0)
            is the corner of the top-left pixel, in `pixel_index` its centre (as in the official COCO person keypoints).
        images: how to put images into the folders of YOLO, DeepLabCut and Label Studio: copy them or link to them.

    Raises:
        ValueError: the source cannot be read, or the output format cannot represent it.
    """
    target = Path(output).expanduser()
    refuse_unwritable(target, "--output")
    path, read_as = find_labels(Path(source).expanduser(), source_format)
    write_as = output_format or find_output_format(target)
    if val_fraction or test_fraction:
        _check_parts(target, write_as)
    root = Path(image_root).expanduser() if image_root else None
    labels = read_labels(
        path, read_as, Reading(root, list(keypoints or []), missing_images, outside_images), coordinates
    )
    _refuse_shares(labels, path)
    if categories:
        _keep_categories(labels, categories)
    split_notes = []
    if val_fraction or test_fraction:
        split_notes = divide_images(labels.images, val_fraction, test_fraction, group_by, seed)
        refuse_unlabelled_parts(labels.images, f"{path}: {{}}; draw others with another --seed")
    report = _describe(labels)
    labels.info = {
        "description": f"{path.name}, converted from {FORMATS[read_as].title} by kpd {__version__}",
        "source_format": read_as,
        "coordinates": CONTINUOUS,
    }
    notes = [*labels.notes, *split_notes, *write_labels(labels, target, write_as, images)]
    say(f"{target} ({FORMATS[write_as].title}): {report}\n" + "".join(f"  {note}\n" for note in notes))


def _refuse_shares(labels: LabelSet, path: Path) -> None:
    """Refuse coordinates that are not in pixels: formats that store fractions of a side have been converted by now."""
    points = [one.points[one.is_labelled] for image in labels.images for one in image.instances]
    labelled = np.concatenate(points) if points else np.zeros((0, 2))
    if are_shares(labelled):
        raise DataError(
            f"{path}: all coordinates are between 0 and 1: they look like fractions of the sides; multiply them by "
            "width and height."
        )


def _check_parts(target: Path, write_as: OutputName) -> None:
    written = FORMATS[write_as]
    if written.parts == "none":
        raise DataError(f"{written.title} has no separate validation part: leave the fractions out.")
    if written.parts == "files" and target.suffix.lower() == written.output_suffix:
        raise DataError(f"output is {target}; to write several parts, give a folder: train{target.suffix} and so on.")


def _keep_categories(labels: LabelSet, names: list[str]) -> None:
    found = [one.name for one in labels.categories]
    unknown = [name for name in names if name not in found]
    if unknown:
        raise DataError(f"there is no category {', '.join(map(repr, unknown))}; there are {', '.join(found)}.")
    kept = {found.index(name): new for new, name in enumerate(dict.fromkeys(names))}
    labels.categories = [labels.categories[index] for index in kept]
    for image in labels.images:
        image.instances = [one for one in image.instances if one.category in kept]
        for one in image.instances:
            one.category = kept[one.category]


def _describe(labels: LabelSet) -> str:
    instances = [one for image in labels.images for one in image.instances]
    n_points = sum(int(one.is_labelled.sum()) for one in instances)
    n_occluded = sum(int((one.visibility == OCCLUDED).sum()) for one in instances)
    parts = Counter(image.split for image in labels.images)
    numbers = ", ".join(f"{count} {split}" for split, count in sorted(parts.items(), reverse=True) if split)
    used = {one.category for one in instances}
    described = [f"{one.name}: {_shorten(one.keypoints, 8)}" for n, one in enumerate(labels.categories) if n in used]
    kinds = _shorten(described, 3, separator="; ")
    n_empty = sum(not any(one.is_labelled.any() for one in image.instances) for image in labels.images)
    empty = f", {n_empty} of them without labels" if n_empty else ""
    return (
        f"{count_in_words(len(labels.images), 'image')}{f' ({numbers})' if numbers else ''}{empty}, "
        f"{count_in_words(len(instances), 'object')}, {count_in_words(n_points, 'labelled point')} ({n_occluded} "
        f"occluded) of {kinds}."
    )


def _shorten(texts: list[str], n_shown: int, separator: str = ", ") -> str:
    more = f" and {len(texts) - n_shown} more" if len(texts) > n_shown else ""
    return separator.join(texts[:n_shown]) + more
