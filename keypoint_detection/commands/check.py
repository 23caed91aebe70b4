"""The command `kpd check`: find what is wrong with a data set before training does."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse.typing import PositiveInt

from keypoint_detection.commands.fit_configs import read_fit_words, split_fit_words
from keypoint_detection.commands.terminal import track
from keypoint_detection.counting import agree
from keypoint_detection.data.checks.audit import Audit, DataDescription, audit
from keypoint_detection.data.checks.audit_report import describe_audit, format_audit
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part, Requirements
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.printing import say
from keypoint_detection.types import MIN_DISTANCE_PX, DataError

CONFIG_HELP = "YAML file of `kpd fit`; only settings that concern the data are used."
STANDARD_OUTPUT = "-"
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
CONFIG_SUFFIXES = (".yaml", ".yml")


class Augmentation(NamedTuple):
    """How training images are changed.

    Attributes:
        transform: a torchvision v2 transform; None: the default one.
        flip_pairs: types that swap when an image is mirrored; None: unknown, so images are not mirrored.
        is_on: whether images are changed at all.
    """

    transform: Callable[..., Any] | None
    flip_pairs: Sequence[tuple[str, str]] | None
    is_on: bool


def run(words: Sequence[str]) -> None:
    """Check the data described by the words, the first of which is `check`.

    Raises:
        SystemExit: errors were found (1), or the words are wrong (2).
    """
    # Otherwise, `--json data.json` would overwrite the data with the report.
    typed = [f"--json={STANDARD_OUTPUT}" if word == "--json" else word for word in words[1:]]
    own, of_fit = split_fit_words(typed)
    if not call_with_words(check, "kpd check", own, {"of_fit": of_fit}, CONFIG_HELP):
        raise SystemExit(1)


def check(
    file: str | None = None,
    /,
    image_root: str | None = None,
    missing_images: MissingImages | None = None,
    outside_images: OutsideImages | None = None,
    categories: list[str] | None = None,
    coordinates: Coordinates | None = None,
    channels: dict[str, list[str]] | list[str] | None = None,
    json: str | None = None,
    sheet: str | None = "contact_sheet.png",
    n_images: PositiveInt = 12,
    of_fit: Sequence[str] = (),
) -> bool:
    """Read all labels and images of a data set, and report what would harm training or its result.

    Give a COCO keypoint file, or the options of `kpd fit`: --config FILE.yaml and flags of `data` and `model`, which
    `kpd fit --help` lists. Errors make training impossible or worthless, warnings deserve a look, and notes are for
    information. The exit code is 1 if there are errors.

    Args:
        file: COCO keypoint file (JSON) to check on its own.
        image_root: folder that the images' file names are relative to; by default, the folder of each file.
        missing_images: whether images whose file is missing are an error, as by default, or left out (skip).
        outside_images: whether images outside that folder are an error, as by default, or checked too (allow).
        categories: names of the categories to check; by default, all.
        coordinates: convention of the labels: in `continuous`, the default, (0, 0) is the outer corner of the top-left
            pixel; in `pixel_index`, integers name pixels.
        channels: keypoint types that share a channel, e.g. {corner: [corner0, corner1], nose: [nose]}, or types with a
            channel each; by default, all types with a channel each.
        json: write the report as JSON: --json to the terminal instead of text, --json=FILE to a file.
        sheet: the contact sheet to write: random images with their labels, before and after augmentation; null: none.
        n_images: how many images the contact sheet shows.
        of_fit: options of `kpd fit`; those above take precedence.

    Returns:
        Whether there are no errors.

    Raises:
        DataError: there is nothing to check, or the name of an output file has the wrong suffix.
    """
    if sheet is not None and Path(sheet).suffix.lower() not in SHEET_SUFFIXES:
        raise DataError(f"--sheet is {sheet!r}; a name ending in {', '.join(SHEET_SUFFIXES)} is expected.")
    _refuse_unwritable({"--sheet": sheet, "--json": None if json == STANDARD_OUTPUT else json})
    if of_fit:
        data, module = read_fit_words("kpd check", of_fit, file)
        augmentation = Augmentation(module.transform, module.flip_pairs, module.transform is not None)
    else:
        data, augmentation = _describe_file(file), Augmentation(None, None, True)
    data = data._replace(
        image_root=image_root or data.image_root,
        missing_images=missing_images or data.missing_images,
        outside_images=outside_images or data.outside_images,
        categories=categories or data.categories,
        coordinates=coordinates or data.coordinates,
        channels=channels or data.channels,
    )
    found = audit(data, lambda scans, n_images: track(scans, "Reading images", n_images))
    part = next((part for part in found.parts if part.name in ("", "train") and part.sizes.any()), None)
    if sheet is not None and part is not None and len(part.channels):
        found = _look_at_augmentation(found, part, data.requirements, augmentation, Path(sheet).expanduser(), n_images)
    if json != STANDARD_OUTPUT:
        say(format_audit(found))
    if json is not None:
        _write_json(found, json)
    return not any(finding.level == "error" for finding in found.findings)


def _refuse_unwritable(targets: Mapping[str, str | None]) -> None:
    """Refuse output files that could not be written, before spending minutes on reading."""
    for option, target in targets.items():
        if target is None:
            continue
        path = Path(target).expanduser()
        if path.is_dir():
            raise DataError(f"{option}: {path} cannot be written (it is a folder); give another {option}.")
        refuse_unwritable(path, option)


def _describe_file(file: str | None) -> DataDescription:
    """Describe a single file as training with the defaults would read it."""
    if file is None:
        raise DataError("nothing to check: give a COCO keypoint file, or --config with a config of `kpd fit`.")
    if Path(file).suffix.lower() in CONFIG_SUFFIXES:
        raise DataError(
            f"{file}: a COCO keypoint file (JSON) is expected. If this is a config of `kpd fit`, give it with its "
            f"option: kpd check --config {file}"
        )
    if not Path(file).is_file():
        raise DataError(f"{file!r} is not a file; a COCO keypoint file (JSON) is expected.")
    requirements = Requirements(None, "letterbox", False, None, MIN_DISTANCE_PX)
    return DataDescription({"": Path(file)}, None, "continuous", None, None, requirements, None, "error", "error")


def _look_at_augmentation(
    found: Audit, part: Part, requirements: Requirements, augmentation: Augmentation, sheet: Path, n_images: int
) -> Audit:
    """Count what the augmentation loses, and write the contact sheet; both need torch, which is loaded here."""
    from torchvision.transforms import v2

    from keypoint_detection.data.augmentation import default_augmentation
    from keypoint_detection.data.checks.augmented import check_augmentation, draw_examples
    from keypoint_detection.drawing import LabelledPanel, draw_contact_sheet

    transform = augmentation.transform or v2.Compose(default_augmentation(augmentation.flip_pairs is not None))
    if not augmentation.is_on:
        transform = v2.Identity()
    findings = check_augmentation(part, requirements, transform, augmentation.flip_pairs)
    if any(finding.level == "error" for finding in findings):
        return found._replace(findings=[*findings, *found.findings])
    examples = draw_examples(part, requirements, transform, augmentation.flip_pairs, n_images)
    panels = [
        (
            LabelledPanel.of_batch(example.name, example.before),
            LabelledPanel.of_batch("after augmentation", example.after),
        )
        for example in examples
    ]
    # Two images per row, each beside its augmented version.
    rows = [[panel for pair in panels[start : start + 2] for panel in pair] for start in range(0, len(panels), 2)]
    heading = (
        f"{part.path}: {len(examples)} of {len(part.sizes)} images with their labels, before and after augmentation"
    )
    sheet.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(rows, list(part.channels), heading).save(sheet)
    text = agree(
        len(examples),
        f"image with its labels, before and after augmentation, is drawn in {sheet}: look at it.",
        f"images with their labels, before and after augmentation, are drawn in {sheet}: look at them.",
    )
    findings.append(Finding("note", "contact_sheet", str(part.path), len(examples), text))
    return found._replace(findings=sorted([*found.findings, *findings], key=lambda one: one.rank))


def _write_json(found: Audit, target: str) -> None:
    text = json.dumps(describe_audit(found), indent=2, allow_nan=False) + "\n"
    if target == STANDARD_OUTPUT:
        say(text)
    else:
        path = Path(target).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
