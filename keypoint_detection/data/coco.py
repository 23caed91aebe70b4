"""Read COCO keypoint files into flat arrays, and report every problem of a file at once.

The format: https://cocodataset.org/#format-data (keypoint detection). `categories[].keypoints` names the keypoint
types, `annotations[].keypoints` holds one (x, y, v) triple for each of them.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.channels import KeypointType
from keypoint_detection.data.problems import Problems
from keypoint_detection.types import NOT_LABELLED, VISIBLE, DataError

__all__ = ["PIXEL_INDEX_OFFSET_PX", "CocoKeypoints", "Coordinates", "examine_coco", "load_content", "read_coco"]

logger = logging.getLogger(__name__)

Coordinates = Literal["continuous", "pixel_index"]

# How far an integer that names a pixel lies from the centre of that pixel.
PIXEL_INDEX_OFFSET_PX = 0.5


# Ids are kept in 64 bits with a sign.
ID_LIMIT = 2**63
# Further from an image than this is nothing that anybody has labelled.
COORDINATE_LIMIT = 1e9
# What files begin with that are not text in UTF-8, and what to say of them.
MAGIC = {
    b"\x1f\x8b": "is compressed by gzip; unpack it first (gunzip)",
    b"PK": "is a ZIP archive; unpack it first",
    b"\xff\xfe": "is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16; save it as UTF-8",
}


class CocoKeypoints(NamedTuple):
    """A keypoint data set as flat arrays, which loader workers share instead of copying (I images, P labelled points).

    Attributes:
        path: the JSON file.
        keypoint_types: all keypoint types of the file; equal names of several categories are told apart.
        image_ids: (I,) int64.
        image_paths: (I,) UTF-8 bytes, the images' files.
        image_sizes: (I, 2) int64, (height, width) of the images according to the file; 0 where it does not say.
        offsets: (I + 1,) int64; the points of image i are the rows offsets[i] to offsets[i + 1].
        points: (P, 2) float32 continuous image pixels.
        visibility: (P,) int64, 1 or 2: unlabelled points are left out.
        types: (P,) int64, indices into `keypoint_types`.
        instances: (P,) int64, the index in its image of the annotation that the point belongs to.
        box_sizes: (P,) float32, the longer side of that annotation's box in pixels; NaN where it has none.
        areas: (P,) float32, the area of that annotation in square pixels; NaN where it has none.
    """

    path: Path
    keypoint_types: tuple[KeypointType, ...]
    image_ids: NDArray[np.int64]
    image_paths: NDArray[np.bytes_]
    image_sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    points: NDArray[np.float32]
    visibility: NDArray[np.int64]
    types: NDArray[np.int64]
    instances: NDArray[np.int64]
    box_sizes: NDArray[np.float32]
    areas: NDArray[np.float32]


class _Category(NamedTuple):
    name: str
    type_indices: list[int]


class _Row(NamedTuple):
    x: float
    y: float
    visibility: int
    type_index: int
    instance: int
    box_size: float
    area: float


def read_coco(
    path: str | Path,
    image_root: str | Path | None = None,
    coordinates: Coordinates = "continuous",
    picked: Sequence[str] | None = None,
) -> CocoKeypoints:
    """Read and validate a COCO keypoint file.

    Images without annotations are kept: they are negatives. Annotations of categories without keypoints, and those
    that carry no keypoints, are left out; the log says how many.

    Args:
        path: the JSON file.
        image_root: the folder that the file names of the images are relative to; the JSON's own when left out.
        coordinates: `continuous` where (0, 0) is the corner of the top-left pixel, `pixel_index` where the numbers name
            pixels: half a pixel is then added to reach their centres.
        picked: the names of the categories whose annotations count; all that have keypoints when left out.

    Raises:
        DataError: the file is missing, is not a COCO keypoint file, or holds inconsistent entries; all problems of the
            file are listed together.
    """
    table, problems = examine_coco(path, image_root, coordinates, picked)
    problems.raise_if_any(Path(path))
    return table


def examine_coco(
    path: str | Path, image_root: str | Path | None, coordinates: Coordinates, picked: Sequence[str] | None
) -> tuple[CocoKeypoints, Problems]:
    """Read what can be read of a COCO keypoint file, and collect all that is wrong with it; see `read_coco`.

    Raises:
        DataError: the file is missing or is not a COCO file.
    """
    path = Path(path)
    root = Path(image_root) if image_root is not None else path.parent
    content = load_content(path)
    problems = Problems()
    keypoint_types, categories = _read_categories(_name_keypoints(content), picked, problems)
    images = _read_images(content["images"], root, problems)
    rows = _read_annotations(content["annotations"], set(images.ids), categories, problems)
    return _flatten(path, keypoint_types, images, rows, coordinates), problems


def load_content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Load a COCO file: its lists of images, annotations and categories, whose entries may still be wrong.

    Raises:
        DataError: the file is missing, is not JSON, or lacks one of the lists.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; expected a COCO keypoint file (JSON). Paths are relative to {Path.cwd()}."
        )
    raw = path.read_bytes()
    for magic, what in MAGIC.items():
        if raw.startswith(magic):
            raise DataError(f"{path} {what}. A COCO keypoint file (JSON) is expected.")
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); expected a COCO keypoint file.") from error
    expected = "a COCO keypoint file is an object with the lists 'images', 'annotations' and 'categories'"
    if not isinstance(content, dict):
        hint = " A list is what detection results look like; give the ground-truth file." if content else ""
        raise DataError(f"{path}: holds a {type(content).__name__}; {expected}.{hint}")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            found = "is missing" if key not in content else "is not a list of objects"
            raise DataError(f"{path}: '{key}' {found}; {expected}. It has: {', '.join(map(repr, content))}.")
    if not content["images"]:
        raise DataError(f"{path}: 'images' is empty; there is nothing to train on or to measure.")
    return content


def _name_keypoints(content: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Name the keypoints of categories that leave them unnamed though their annotations carry them (as WFLW does)."""
    n_values: dict[Any, int] = {}
    for annotation in content["annotations"]:
        values, category_id = annotation.get("keypoints"), annotation.get("category_id")
        if isinstance(values, list) and _is_identifier(category_id):
            n_values.setdefault(category_id, len(values))
    categories = []
    for category in content["categories"]:
        identifier = category.get("id")
        n_keypoints = n_values.get(identifier, 0) // 3 if _is_identifier(identifier) else 0
        if not category.get("keypoints") and n_keypoints:
            name = str(category.get("name", category.get("id")))
            logger.info(
                "Category '%s' names no keypoints; they are called %s_0 to %s_%d.", name, name, name, n_keypoints - 1
            )
            category = {**category, "keypoints": [f"{name}_{index}" for index in range(n_keypoints)]}
        categories.append(category)
    return categories


def _read_categories(
    entries: list[dict[str, Any]], picked: Sequence[str] | None, problems: Problems
) -> tuple[tuple[KeypointType, ...], dict[Any, _Category | None]]:
    """Index the keypoint types; a category without keypoints, or that is not picked, maps to None."""
    named: dict[Any, tuple[str, list[str]]] = {}
    categories: dict[Any, _Category | None] = {}
    for entry in entries:
        identifier, names = entry.get("id"), entry.get("keypoints")
        name = str(entry.get("name", identifier))
        if not _is_identifier(identifier) or identifier in categories:
            problems.add(
                "category id", f"category '{name}' has the id {identifier!r:.80}; each needs a number of its own."
            )
            continue
        categories[identifier] = None
        if not names:
            continue
        if not isinstance(names, list) or not all(isinstance(keypoint, str) for keypoint in names):
            problems.add(
                "category names", f"the keypoints of category '{name}' are not a list of names: {names!r:.80}."
            )
            continue
        repeated = [keypoint for keypoint, count in Counter(names).items() if count > 1]
        if repeated:
            problems.add("category twice", f"category '{name}' names the keypoint {repeated[0]!r} more than once.")
        named[identifier] = (name, names)
    if not named and not problems.by_kind:
        problems.add(
            "no keypoints",
            "no category has 'keypoints'; a box or mask data set cannot train a keypoint detector. "
            "Expected e.g. {'id': 1, 'name': 'box', 'keypoints': ['corner0', 'corner1']}.",
        )
    # Over all categories, so that a type keeps its name whichever of them are picked.
    counts = Counter(keypoint for _, names in named.values() for keypoint in set(names))
    if picked is not None:
        named = _pick_categories(named, picked, problems)
    indices: dict[KeypointType, int] = {}
    for identifier, (name, names) in named.items():
        types = [KeypointType(name if counts[keypoint] > 1 else "", keypoint) for keypoint in names]
        categories[identifier] = _Category(name, [indices.setdefault(one, len(indices)) for one in types])
    return tuple(indices), categories


def _pick_categories(
    named: dict[Any, tuple[str, list[str]]], picked: Sequence[str], problems: Problems
) -> dict[Any, tuple[str, list[str]]]:
    known = [name for name, _ in named.values()]
    for name in picked:
        if name not in known:
            problems.add(
                "category picked",
                f"data.categories names {name!r}; the categories with keypoints are {', '.join(map(repr, known))}.",
            )
    if not picked:
        problems.add("category picked", f"data.categories is empty; it picks among {', '.join(map(repr, known))}.")
    return {identifier: entry for identifier, entry in named.items() if entry[0] in picked}


def _is_identifier(value: Any) -> bool:
    """Whether a value can name a category or an image in a file of COCO."""
    return isinstance(value, int | str) and not isinstance(value, bool)


class _Images(NamedTuple):
    ids: list[int]
    paths: list[bytes]
    sizes: list[tuple[int, int]]


def _read_images(entries: list[dict[str, Any]], root: Path, problems: Problems) -> _Images:
    images = _Images([], [], [])
    seen: set[int] = set()
    for entry in entries:
        identifier, file_name = entry.get("id"), entry.get("file_name")
        if isinstance(identifier, bool) or not isinstance(identifier, int):
            kind = " (a text)" if isinstance(identifier, str) else ""
            problems.add(
                "image id", f"image {file_name!r} has the id {identifier!r:.80}{kind}; an integer is expected."
            )
            continue
        if abs(identifier) >= ID_LIMIT:
            problems.add(
                "image id size", f"image {file_name!r} has the id {identifier}, which takes more than 64 bits."
            )
            continue
        if identifier in seen:
            problems.add("image twice", f"the image id {identifier} is used more than once (again by {file_name!r}).")
            continue
        seen.add(identifier)
        if not isinstance(file_name, str) or not file_name:
            problems.add("image name", f"image {identifier} has no 'file_name'.")
            continue
        file = root / file_name
        if not file.is_file():
            problems.add(
                "image file", f"image {identifier}: {file} does not exist; `data.image_root` sets another folder."
            )
        height, width = (
            side if isinstance(side, int) and 0 < side < ID_LIMIT else 0
            for side in (entry.get("height"), entry.get("width"))
        )
        images.ids.append(identifier)
        images.paths.append(str(file).encode())
        images.sizes.append((height, width) if height and width else (0, 0))
    return images


def _read_annotations(
    entries: list[dict[str, Any]], image_ids: set[int], categories: dict[Any, _Category | None], problems: Problems
) -> dict[int, list[_Row]]:
    rows: dict[int, list[_Row]] = {}
    n_instances: Counter[int] = Counter()
    n_without_keypoints = 0
    for position, entry in enumerate(entries):
        name = f"annotation {entry.get('id', f'number {position}')!s:.80}"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not _is_identifier(category_id) or category_id not in categories:
            problems.add("category", f"{name} is of category {category_id!r:.80}, which 'categories' does not list.")
            continue
        category = categories[category_id]
        if category is None or entry.get("keypoints") is None:
            n_without_keypoints += 1
            continue
        if not _is_identifier(image_id) or image_id not in image_ids:
            problems.add("image", f"{name} is of image {image_id!r:.80}, which 'images' does not list.")
            continue
        triples = _read_triples(entry["keypoints"], category, name, problems)
        box_size, area = _read_extent(entry)
        instance = n_instances[image_id]
        n_instances[image_id] += 1
        rows.setdefault(image_id, []).extend(
            _Row(x, y, visibility, type_index, instance, box_size, area)
            for (x, y, visibility), type_index in zip(triples, category.type_indices, strict=False)
            if visibility != NOT_LABELLED
        )
    if n_without_keypoints:
        logger.info("%d annotations carry no keypoints and are left out.", n_without_keypoints)
    return rows


def _read_triples(values: Any, category: _Category, name: str, problems: Problems) -> list[tuple[float, float, int]]:
    n_expected = len(category.type_indices)
    if not isinstance(values, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        problems.add("no numbers", f"{name}: 'keypoints' is not a flat list of numbers: {values!r:.80}.")
        return []
    if len(values) != 3 * n_expected:
        problems.add(
            "length",
            f"{name} has {len(values)} keypoint values; category '{category.name}' has {n_expected} keypoints, "
            f"so {3 * n_expected} are expected (x, y, v each).",
        )
        return []
    triples = []
    for x, y, visibility in zip(values[0::3], values[1::3], values[2::3], strict=True):
        if visibility not in (NOT_LABELLED, 1, VISIBLE):
            problems.add("visibility", f"{name} has the visibility {visibility!r}; 0, 1 or 2 is expected.")
        elif visibility == NOT_LABELLED or (abs(x) < COORDINATE_LIMIT and abs(y) < COORDINATE_LIMIT):
            triples.append(
                (0.0, 0.0, NOT_LABELLED) if visibility == NOT_LABELLED else (float(x), float(y), int(visibility))
            )
        else:
            problems.add(
                "not finite", f"{name} has the labelled point ({x!s:.40}, {y!s:.40}); pixel coordinates are expected."
            )
    return triples


def _read_extent(entry: dict[str, Any]) -> tuple[float, float]:
    """The longer side of the box and the area, NaN where the annotation has none that can be used."""
    box, area = entry.get("bbox"), entry.get("area")
    sides = box[2:] if isinstance(box, list) and len(box) == 4 else []
    box_size = max(sides) if sides and all(map(_is_extent, sides)) else math.nan
    return float(box_size), float(area) if area is not None and _is_extent(area) else math.nan


def _is_extent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < COORDINATE_LIMIT**2


def _flatten(
    path: Path,
    keypoint_types: tuple[KeypointType, ...],
    images: _Images,
    rows: dict[int, list[_Row]],
    coordinates: Coordinates,
) -> CocoKeypoints:
    flat = [row for image_id in images.ids for row in rows.get(image_id, [])]
    counts = [len(rows.get(image_id, [])) for image_id in images.ids]
    points = np.array([(row.x, row.y) for row in flat], dtype=np.float32).reshape(-1, 2)
    if coordinates == "pixel_index":
        points += np.float32(PIXEL_INDEX_OFFSET_PX)
    return CocoKeypoints(
        path=path,
        keypoint_types=keypoint_types,
        image_ids=np.array(images.ids, dtype=np.int64),
        image_paths=np.array(images.paths, dtype=np.bytes_),
        image_sizes=np.array(images.sizes, dtype=np.int64).reshape(-1, 2),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        points=points,
        visibility=np.array([row.visibility for row in flat], dtype=np.int64),
        types=np.array([row.type_index for row in flat], dtype=np.int64),
        instances=np.array([row.instance for row in flat], dtype=np.int64),
        box_sizes=np.array([row.box_size for row in flat], dtype=np.float32),
        areas=np.array([row.area for row in flat], dtype=np.float32),
    )
