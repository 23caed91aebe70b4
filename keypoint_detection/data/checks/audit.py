"""All checks of a data set, in order: labels, images, and how they fit together."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keypoint_detection.channels import resolve_channels
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.brightness import check_brightness
from keypoint_detection.data.checks.entries import check_entries
from keypoint_detection.data.checks.findings import Finding, findings_of_problems, shorten_list
from keypoint_detection.data.checks.groups import check_shared_groups
from keypoint_detection.data.checks.labels import check_labels
from keypoint_detection.data.checks.likeness import ScannedPart, check_copies, check_part_likeness, check_split_likeness
from keypoint_detection.data.checks.missing import advise_on_missing
from keypoint_detection.data.checks.parts import Part, Requirements, make_part
from keypoint_detection.data.checks.scans import scan_images
from keypoint_detection.data.checks.shifts import check_shift
from keypoint_detection.data.checks.sizes import check_object_sizes, measure_sizes
from keypoint_detection.data.coco_keypoints import CocoKeypoints, Coordinates, examine_coco
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.data.image_files import compare_sizes
from keypoint_detection.data.splitting import HeldOut, SplitOptions, describe_split
from keypoint_detection.images import ImageError, ImageScan
from keypoint_detection.types import DataError

N_SIZES = 3
Track = Callable[[Iterator[ImageScan | ImageError], int], Iterable[ImageScan | ImageError]]


class DataDescription(NamedTuple):
    """A data set to check.

    Attributes:
        files: the COCO file of each part: `train`, `val`, `test`, or one without a name.
        image_root: the folder that file names are relative to; None: the folder of each file.
        coordinates: convention of the files' coordinates.
        categories: the categories to use; None: all.
        channels: channel name to its keypoint types, or types with a channel each; None: those of the first file.
        requirements: what a detector requires of the data.
        split: how a part of `train` is held out for validation; None: nothing is held out.
        missing_images: whether images whose file is missing are an error, or left out.
        outside_images: whether images outside the folder of the images are an error, or allowed.
    """

    files: Mapping[str, Path]
    image_root: str | None
    coordinates: Coordinates
    categories: Sequence[str] | None
    channels: Mapping[str, list[str]] | Sequence[str] | None
    requirements: Requirements
    split: SplitOptions | None
    missing_images: MissingImages
    outside_images: OutsideImages


class Audit(NamedTuple):
    """The result of the checks.

    Attributes:
        findings: errors first, then warnings, then notes.
        parts: the parts whose files could be read.
    """

    findings: list[Finding]
    parts: list[Part]


def audit(data: DataDescription, track: Track) -> Audit:
    """Read all labels and all images of a data set, and find what is wrong with them.

    Args:
        data: the data set to check.
        track: shows the progress of reading the images; called with an iterator and the number of images.
    """
    findings: list[Finding] = []
    tables: dict[str, CocoKeypoints] = {}
    for name, path in data.files.items():
        table, found = _read_labels(path, data)
        findings += found
        if table is not None:
            tables[name] = table
    paths = dict.fromkeys(path for table in tables.values() for path in table.image_paths.tolist())
    present = [path.decode() for path in paths if os.path.isfile(path)]
    scans = dict(zip(present, track(scan_images(present), len(present)), strict=True))
    parts, seen = [], []
    channels = data.channels
    for name, table in tables.items():
        try:
            mapping = resolve_channels(channels, table.keypoint_types, table.path)
        except DataError as error:
            findings.append(Finding("error", "channels", str(table.path), 1, str(error)))
            continue
        # As in training, the first file defines the channels if nothing else does.
        channels = channels or list(mapping)
        part, read, found = _check_part(name, table, mapping, scans, data)
        parts.append(part)
        seen += read
        findings += found
    alike = check_split_likeness(seen)
    # Grouping by names is a guess; the images themselves are evidence.
    findings += alike or check_shared_groups(parts)
    return Audit(sorted(findings, key=lambda finding: finding.rank), parts)


def _read_labels(path: Path, data: DataDescription) -> tuple[CocoKeypoints | None, list[Finding]]:
    source = str(path)
    try:
        table, problems, file, _, names = examine_coco(
            path, data.image_root, data.coordinates, data.categories, data.missing_images, data.outside_images
        )
    except DataError as error:
        return None, [Finding("error", "not_coco", source, 1, str(error))]
    findings = [*findings_of_problems(source, problems), *check_entries(source, file, table.keypoint_types)]
    total, verb = count_in_words(len(file.images), "image file"), agree(len(names), "is", "are")
    missing = next((finding for finding in findings if finding.kind == "image_file"), None)
    if missing is not None:
        root = Path(data.image_root or path.parent).absolute()
        advice = advise_on_missing(names, len(file.images), root, path)
        summary = f"of {total} {verb} missing below {root}. {advice}"
        found = replace(missing, count=len(names), summary=summary, examples=tuple(names))
        findings[findings.index(missing)] = found
    elif names:
        summary = f"of {total} {verb} missing and left out."
        findings.append(Finding("warning", "image_skipped", source, len(names), summary, tuple(names)))
    return table, findings


def _check_part(
    name: str,
    table: CocoKeypoints,
    channels: Mapping[str, Sequence[str]],
    scans: Mapping[str, ImageScan | ImageError],
    data: DataDescription,
) -> tuple[Part, list[ScannedPart], list[Finding]]:
    found = [scans.get(path.decode()) for path in table.image_paths.tolist()]
    read = [one if isinstance(one, ImageScan) else None for one in found]
    indices = np.array([index for index, one in enumerate(found) if one is not None], dtype=np.int64)
    sizes = np.array([one.sizes.shown if one else (0, 0) for one in read], dtype=np.int64).reshape(-1, 2)
    known = [one.sizes if isinstance(one, ImageScan) else one for one in found if one is not None]
    findings = findings_of_problems(str(table.path), compare_sizes(table, indices, known))
    held_out = None
    if name == "train" and data.split is not None:
        held_out = _describe_split(table, data.image_root, data.split, findings)
    part = make_part(name, table, sizes, channels, data.requirements.visible_only)
    findings += [*check_labels(part, data.requirements), *check_object_sizes(part, data.requirements)]
    if not len(table.truths.points):
        findings.append(Finding("error", "no_points", str(table.path), 1, "file has no labelled point (v=1 or v=2)."))
    elif name in ("", "train") and not part.in_channels.any():
        findings.append(
            Finding("error", "no_points", str(table.path), 1, "file has no labelled point left to train on.")
        )
    if not any(read):
        return part, [], findings
    seen = ScannedPart(part, read)
    thumbnails = np.zeros((len(read), *seen.thumbnails.shape[1:]), dtype=np.uint8)
    thumbnails[seen.indices] = seen.thumbnails
    findings += [*check_shift(part, thumbnails), *check_copies(seen), *check_brightness(seen)]
    if name in ("", "train"):
        findings += [*check_part_likeness(seen, held_out), *_describe_sizes(part, data.requirements)]
    return part, [seen], findings


def _describe_split(
    table: CocoKeypoints, image_root: str | None, options: SplitOptions, findings: list[Finding]
) -> HeldOut | None:
    """Add which images are held out to the findings, or why they cannot be."""
    source = str(table.path)
    try:
        held_out = describe_split(table, image_root, options)
    except DataError as error:
        findings.append(Finding("error", "split", source, 1, str(error)))
        return None
    findings.append(Finding("note", "split", source, held_out.n_images, held_out.text))
    return held_out


def _describe_sizes(part: Part, requirements: Requirements) -> list[Finding]:
    """Suggest an input size that suits the objects, if none has been chosen."""
    sizes = measure_sizes(part)
    if requirements.image_size is not None or sizes.proposed_size is None:
        return []
    frequent = shorten_list([f"{size} ({count})" for size, count in sizes.images.items()], N_SIZES)
    text = (
        f"{agree(len(sizes.images), 'image size', 'image sizes')} (height x width): {frequent}. Half of the objects "
        f"measure more than {sizes.object_px[1]:.0f} px, a tenth less than {sizes.object_px[0]:.0f} px: "
        f"--data.image_size='{list(sizes.proposed_size)}' suits them."
    )
    return [Finding("note", "image_size", str(part.path), len(sizes.images), text)]
