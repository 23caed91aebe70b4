"""The command `kpd init`: write a config for a file of labels."""

import re
import shlex
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import yaml

from keypoint_detection.channels import resolve_channels
from keypoint_detection.data.checks.parts import make_part
from keypoint_detection.data.checks.sizes import measure_sizes
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.data.image_files import check_images
from keypoint_detection.data.label_files import read_table
from keypoint_detection.destinations import refuse_unwritable, shorten_path
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.types import DataError

BASE, QUICKSTART = "base.yaml", "quickstart.yaml"
# Files beside the labels that are taken for the validation part.
VALIDATION_NAMES = ("val.json", "valid.json", "validation.json")
# A size that suits most images if nothing is known about the objects in them.
USUAL_SIZE = (256, 256)
# The mark of a side in a name: a word (though not in bright, upright or cleft), or a letter set off by a separator, a
# capital or the end of the name.
SIDES = (
    re.compile(r"(?<!b)(?<!up)(?<!c)(left|right)", re.IGNORECASE),
    re.compile(r"(?<![^\W_])[lr](?![^\W_])", re.IGNORECASE),
    re.compile(r"^[LRlr](?=[A-Z][a-z])"),
    re.compile(r"(?<=[a-z0-9])[LR]$"),
    re.compile(r"^[LR](?=\d)"),
)
OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


class LabelDescription(NamedTuple):
    """The settings of a config that follow from a label file.

    Attributes:
        train: path of the training file.
        val: path of the validation file; None to hold out a part of the training images.
        keypoint_types: names of the types, in the order of the file.
        image_size: (height, width) in pixels.
    """

    train: str
    val: str | None
    keypoint_types: Sequence[str]
    image_size: tuple[int, int]


def run(words: Sequence[str]) -> None:
    """Write the config described by the words, the first of which is `init`.

    Raises:
        SystemExit: the words or the labels are wrong, or the config exists (2).
    """
    call_with_words(init, "kpd init", words[1:])


def init(
    file: str | None = None,
    /,
    val: str | None = None,
    quickstart: bool = False,
    output: str | None = None,
    image_root: str | None = None,
    coordinates: Coordinates = "continuous",
) -> None:
    """Write a commented config for `kpd fit` that suits a file of labels: kpd init data/train.json.

    It sets what depends on the data: files, an image size that suits the objects, and types that swap in a mirrored
    image, guessed from their names. An existing file is never overwritten.

    Args:
        file: COCO keypoint file (JSON) to train on.
        val: COCO keypoint file to validate on; by default, val.json beside the training file if there is one, otherwise
            a fifth of the training images is held out.
        quickstart: instead, write the config of the first example, which draws its own data: kpd init --quickstart.
        output: the file to write; by default, base.yaml or quickstart.yaml in the working folder.
        image_root: folder that the images' file names are relative to; by default, the folder of each JSON file.
        coordinates: convention of the labels: in `continuous`, (0, 0) is the outer corner of the top-left pixel; in
            `pixel_index`, integers name pixels.

    Raises:
        DataError: the labels cannot be read, or the file to write exists.
    """
    if quickstart and file is not None:
        raise DataError(f"--quickstart draws its own data; leave it out to write a config for {file}.")
    if not quickstart and file is None:
        raise DataError("give a COCO keypoint file: kpd init data/train.json; or --quickstart for the first example.")
    path = Path(output or (QUICKSTART if quickstart else BASE)).expanduser()
    if path.exists():
        raise DataError(f"{path} already exists and is left unchanged; give another name with --output.")
    refuse_unwritable(path, "--output")
    text = _read_template(QUICKSTART)
    if file is not None:
        text = write_config(_describe_labels(Path(file), val, image_root, coordinates), path.name)
        extra = {"image_root": image_root, "coordinates": None if coordinates == "continuous" else coordinates}
        lines = "".join(f"\n  {name}: {_as_yaml(value)}" for name, value in extra.items() if value is not None)
        text = text.replace("\ndata:", f"\ndata:{lines}", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    word = shlex.quote(str(path))
    check = "" if quickstart else f"  kpd check --config {word}\n"
    sys.stdout.write(f"Wrote {path}. Next:\n{check}  kpd fit --config {word}\n")


def _describe_labels(path: Path, val: str | None, image_root: str | None, coordinates: Coordinates) -> LabelDescription:
    table = read_table(path, image_root, coordinates, None, "error", "error")
    names = list(resolve_channels(None, table.keypoint_types, path))
    sizes = check_images(table, np.arange(len(table.image_ids)), needs_equal_sizes=False)
    part = make_part("train", table, sizes, {name: [name] for name in names}, visible_only=False)
    beside = [one for one in map(path.with_name, VALIDATION_NAMES) if one.is_file() and one.name != path.name]
    if val is None and beside:
        val = str(beside[0])
    if val is not None:
        read_table(Path(val), image_root, coordinates, None, "error", "error")
    return LabelDescription(
        train=str(shorten_path(path)),
        val=None if val is None else str(shorten_path(val)),
        keypoint_types=names,
        image_size=measure_sizes(part).proposed_size or USUAL_SIZE,
    )


def write_config(labels: LabelDescription, name: str) -> str:
    """Return the text of a commented config.

    Args:
        labels: the file that it is for.
        name: the file that it will be in.
    """
    val = f"  # val: {_as_yaml(str(Path(labels.train).with_name(VALIDATION_NAMES[0])))}"
    return Template(_read_template(BASE)).substitute(
        name=name,
        channels=_propose_channels(labels.keypoint_types),
        train=_as_yaml(labels.train),
        val=val if labels.val is None else f"  val: {_as_yaml(labels.val)}",
        image_size=_as_yaml(list(labels.image_size)),
        flip_pairs=_propose_flip_pairs(labels.keypoint_types),
    )


def _propose_channels(types: Sequence[str]) -> str:
    """Suggest channels, as a comment, for types whose names differ by a number: only users know which look alike."""
    groups: dict[str, list[str]] = {}
    for one in types:
        groups.setdefault(re.sub(r"[\s_-]*\d+$", "", one) or one, []).append(one)
    if all(len(group) == 1 for group in groups.values()):
        return "  # channels: {ear: [left_ear, right_ear], nose: [nose]}"
    lines = (f"  #   {_as_yaml(name)}: {_as_yaml(group)}" for name, group in groups.items())
    return "\n".join(["  # channels:", *lines])


def _propose_flip_pairs(types: Sequence[str]) -> str:
    pairs = guess_flip_pairs(types)
    if not pairs:
        return "  # flip_pairs: [[left_ear, right_ear]]"
    return "  # Guessed from the names: correct them, or delete the line.\n" + f"  flip_pairs: {_as_yaml(pairs)}"


def guess_flip_pairs(types: Sequence[str]) -> list[list[str]]:
    """Pair the types whose names differ by their side; return no pairs if any side lacks its counterpart.

    >>> guess_flip_pairs(["nose", "left_ear", "right_ear", "LEye", "REye"])
    [['left_ear', 'right_ear'], ['LEye', 'REye']]
    """
    pairs: list[list[str]] = []
    for one in types:
        side = next((found for pattern in SIDES if (found := pattern.search(one))), None)
        if side is None or any(one in pair for pair in pairs):
            continue
        other = OTHER_SIDE[side[0].lower()]
        other = other.upper() if side[0].isupper() else other.capitalize() if side[0][0].isupper() else other
        twin = one[: side.start()] + other + one[side.end() :]
        if twin not in types:
            if side[0].lower() in ("left", "right"):
                return []
            continue
        pairs.append([one, twin])
    return pairs


def _read_template(name: str) -> str:
    return (resources.files("keypoint_detection") / "templates" / name).read_text(encoding="utf-8")


def _as_yaml(value: Any) -> str:
    """Write a value on one line of a config.

    >>> _as_yaml(["no", "left ear"]), _as_yaml("a: b.json")
    ("['no', left ear]", "'a: b.json'")
    """
    # A scalar would be followed by the end of its document.
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True).strip()[1:-1]
