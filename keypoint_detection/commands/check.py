"""The command `kpd check`: find what is wrong with a data set before a training does."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from keypoint_detection.commands.fit_configs import (
    CONFIG_HELP,
    add_fit_options,
    describe_fit_data,
    names_fit_options,
    read_fit_words,
)
from keypoint_detection.commands.terminal import track
from keypoint_detection.counting import agree
from keypoint_detection.data.checks.audit import Audit, DataDescription, audit
from keypoint_detection.data.checks.audit_report import describe_audit, format_audit
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part, Requirements
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.parsing.arguments import CONFIG_OPTIONS
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.parsing.functions import describe
from keypoint_detection.printing import complain, make_handler, say
from keypoint_detection.types import MIN_DISTANCE_PX, DataError

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
    parser = Parser(prog="kpd check", description=describe(check))
    # `--json data.json` would otherwise write the report over the data.
    typed = [f"--json={STANDARD_OUTPUT}" if word == "--json" else word for word in words[1:]]
    parser.add_argument("file", nargs="?", help="COCO keypoint file (JSON) to check by itself.")
    parser.add_function_arguments(check, as_group=False, skip={"data", "augmentation"})
    needs_fit_options = names_fit_options(typed)
    if needs_fit_options:
        add_fit_options(parser)
    else:
        parser.add_argument(*CONFIG_OPTIONS, help=CONFIG_HELP)  # for the help, which then loads no Lightning
    logging.basicConfig(level=logging.WARNING, handlers=[make_handler()])
    try:
        options = parser.parse_args(read_fit_words(typed) if needs_fit_options else typed)
        data, augmentation = _describe_data(parser, options, needs_fit_options)
        is_clean = check(data, augmentation, options.json, options.sheet, options.n_images)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        complain("kpd check: interrupted; nothing was reported.\n")
        raise SystemExit(130) from None
    if not is_clean:
        raise SystemExit(1)


def check(
    data: DataDescription,
    augmentation: Augmentation,
    json: str | None = None,
    sheet: str | None = "contact_sheet.png",
    n_images: PositiveInt = 12,
) -> bool:
    """Read all labels and images of a data set, and report what would harm a training or its result.

    Give a COCO keypoint file, or the options of `kpd fit`: --config FILE.yaml and flags of `data` and `model`, which
    `kpd fit --help` lists. Errors make a training impossible or worthless, warnings deserve a look, notes are good to
    know. The exit code is 1 if there are errors.

    Args:
        data: the data to check.
        augmentation: how training images are changed.
        json: write the report as JSON: --json to the terminal instead of text, --json=FILE to a file.
        sheet: the contact sheet to write: random images with their labels, before and after augmentation; null: none.
        n_images: how many images the contact sheet shows.

    Returns:
        Whether there are no errors.

    Raises:
        DataError: the name of a file to write has the wrong ending.
    """
    if sheet is not None and Path(sheet).suffix.lower() not in SHEET_SUFFIXES:
        raise DataError(f"--sheet is {sheet!r}; a name ending in {', '.join(SHEET_SUFFIXES)} is expected.")
    _refuse_unwritable({"--sheet": sheet, "--json": None if json == STANDARD_OUTPUT else json})
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
    """Refuse files that could not be written, before spending minutes on reading."""
    for option, target in targets.items():
        if target is None:
            continue
        path = Path(target).expanduser()
        if path.is_dir():
            raise DataError(f"{option}: {path} cannot be written (it is a folder); give another {option}.")
        refuse_unwritable(path, option)


def _describe_data(parser: Parser, options: Namespace, has_fit_options: bool) -> tuple[DataDescription, Augmentation]:
    if has_fit_options:
        data, fit_data = describe_fit_data(parser, options)
        return data, Augmentation(fit_data.transform, fit_data.flip_pairs, fit_data.transform is not None)
    if options.file is None:
        raise DataError("nothing to check: give a COCO keypoint file, or --config with a config of `kpd fit`.")
    if Path(options.file).suffix.lower() in CONFIG_SUFFIXES:
        raise DataError(
            f"{options.file}: a COCO keypoint file (JSON) is expected. If this is a config of `kpd fit`, give it with "
            f"its option: kpd check --config {options.file}"
        )
    if not Path(options.file).is_file():
        raise DataError(f"{options.file!r} is not a file; a COCO keypoint file (JSON) is expected.")
    requirements = Requirements(None, "letterbox", False, None, MIN_DISTANCE_PX)
    files = {"": Path(options.file)}
    return DataDescription(files, None, "continuous", None, None, requirements, None, "error", "error"), Augmentation(
        None, None, True
    )


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
