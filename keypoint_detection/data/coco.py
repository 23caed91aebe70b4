"""Read COCO keypoint files into flat arrays, and report every problem of a file at once.

The format: https://cocodataset.org/#format-data (keypoint detection). `categories[].keypoints` names the keypoint
types, `annotations[].keypoints` holds one (x, y, v) triple for each of them.
"""

import json
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.problems import Problems
from keypoint_detection.types import NOT_LABELLED, VISIBLE, DataError

__all__ = ["CocoKeypoints", "Coordinates", "read_coco"]

logger = logging.getLogger(__name__)

Coordinates = Literal["continuous", "pixel_index"]

# How far an integer that names a pixel lies from the centre of that pixel.
PIXEL_INDEX_OFFSET_PX = 0.5


class CocoKeypoints(NamedTuple):
    """A keypoint data set as flat arrays, which loader workers share instead of copying (I images, P labelled points).

    Attributes:
        path: the JSON file.
        keypoint_types: the names of all keypoint types of the file; equal names of several categories are one type.
        image_ids: (I,) int64.
        image_paths: (I,) UTF-8 bytes, the pictures' files.
        offsets: (I + 1,) int64; the points of image i are the rows offsets[i] to offsets[i + 1].
        points: (P, 2) float32 continuous image pixels.
        visibility: (P,) int64, 1 or 2: unlabelled points are left out.
        types: (P,) int64, indices into `keypoint_types`.
        instances: (P,) int64, the index in its image of the annotation that the point belongs to.
        box_sizes: (P,) float32, the longer side of that annotation's box in pixels; NaN where it has none.
        areas: (P,) float32, the area of that annotation in square pixels; NaN where it has none.
    """

    path: Path
    keypoint_types: tuple[str, ...]
    image_ids: NDArray[np.int64]
    image_paths: NDArray[np.bytes_]
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
    path: str | Path, image_root: str | Path | None = None, coordinates: Coordinates = "continuous"
) -> CocoKeypoints:
    """Read and validate a COCO keypoint file.

    Images without annotations are kept: they are negatives. Annotations of categories without keypoints, and those
    that carry no keypoints, are left out; the log says how many.

    Args:
        path: the JSON file.
        image_root: the folder that the file names of the pictures are relative to; the JSON's own when left out.
        coordinates: `continuous` where (0, 0) is the corner of the top-left pixel, `pixel_index` where the numbers name
            pixels: half a pixel is then added to reach their centres.

    Raises:
        DataError: the file is missing, is no COCO keypoint file, or holds inconsistent entries; all problems of the
            file are listed together.
    """
    path = Path(path)
    root = Path(image_root) if image_root is not None else path.parent
    content = _load(path)
    problems = Problems()
    keypoint_types, categories = _read_categories(_name_keypoints(content), problems)
    image_ids, image_paths = _read_images(content["images"], root, problems)
    rows = _read_annotations(content["annotations"], set(image_ids), categories, problems)
    problems.raise_if_any(path)
    return _flatten(path, keypoint_types, image_ids, image_paths, rows, coordinates)


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; expected a COCO keypoint file (JSON). Paths are relative to {Path.cwd()}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); expected a COCO keypoint file.") from error
    expected = "a COCO keypoint file is an object with the lists 'images', 'annotations' and 'categories'"
    if not isinstance(content, dict):
        hint = " A list is what detection results look like; give the ground-truth file." if content else ""
        raise DataError(f"{path}: holds a {type(content).__name__}; {expected}.{hint}")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            found = "is missing" if key not in content else "is no list of objects"
            raise DataError(f"{path}: '{key}' {found}; {expected}. It has: {', '.join(map(repr, content))}.")
    if not content["images"]:
        raise DataError(f"{path}: 'images' is empty; there is nothing to train on or to measure.")
    return content


def _name_keypoints(content: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Name the keypoints of categories that leave them unnamed though their annotations carry them (as WFLW does)."""
    n_values: dict[Any, int] = {}
    for annotation in content["annotations"]:
        if isinstance(values := annotation.get("keypoints"), list):
            n_values.setdefault(annotation.get("category_id"), len(values))
    categories = []
    for category in content["categories"]:
        n_keypoints = n_values.get(category.get("id"), 0) // 3
        if not category.get("keypoints") and n_keypoints:
            name = str(category.get("name", category.get("id")))
            logger.info(
                "Category '%s' names no keypoints; they are called %s_0 to %s_%d.", name, name, name, n_keypoints - 1
            )
            category = {**category, "keypoints": [f"{name}_{index}" for index in range(n_keypoints)]}
        categories.append(category)
    return categories


def _read_categories(
    entries: list[dict[str, Any]], problems: Problems
) -> tuple[tuple[str, ...], dict[Any, _Category | None]]:
    """Index the keypoint types by name; a category without keypoints maps to None."""
    indices: dict[str, int] = {}
    categories: dict[Any, _Category | None] = {}
    for entry in entries:
        identifier, names = entry.get("id"), entry.get("keypoints")
        name = str(entry.get("name", identifier))
        if identifier is None or identifier in categories:
            problems.add("category id", f"category '{name}' has the id {identifier!r}; each needs one of its own.")
        if not names:
            categories[identifier] = None
            continue
        if not isinstance(names, list) or not all(isinstance(keypoint, str) for keypoint in names):
            problems.add("category names", f"the keypoints of category '{name}' are no list of names: {names!r:.80}.")
            continue
        repeated = [keypoint for keypoint, count in Counter(names).items() if count > 1]
        if repeated:
            problems.add("category twice", f"category '{name}' names the keypoint {repeated[0]!r} more than once.")
        categories[identifier] = _Category(name, [indices.setdefault(keypoint, len(indices)) for keypoint in names])
    if not indices and not problems.by_kind:
        problems.add(
            "no keypoints",
            "no category has 'keypoints'; a box or mask data set cannot train a keypoint detector. "
            "Expected e.g. {'id': 1, 'name': 'box', 'keypoints': ['corner0', 'corner1']}.",
        )
    return tuple(indices), categories


def _read_images(entries: list[dict[str, Any]], root: Path, problems: Problems) -> tuple[list[int], list[bytes]]:
    image_ids: list[int] = []
    paths: list[bytes] = []
    seen: set[Any] = set()
    for entry in entries:
        identifier, file_name = entry.get("id"), entry.get("file_name")
        if isinstance(identifier, bool) or not isinstance(identifier, int):
            problems.add("image id", f"image {file_name!r} has the id {identifier!r}; an integer is expected.")
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
        image_ids.append(identifier)
        paths.append(str(file).encode())
    return image_ids, paths


def _read_annotations(
    entries: list[dict[str, Any]], image_ids: set[int], categories: dict[Any, _Category | None], problems: Problems
) -> dict[int, list[_Row]]:
    rows: dict[int, list[_Row]] = {}
    n_instances: Counter[int] = Counter()
    n_without_keypoints = 0
    for position, entry in enumerate(entries):
        name = f"annotation {entry.get('id', f'number {position}')}"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if category_id not in categories:
            problems.add("category", f"{name} is of category {category_id!r}, which 'categories' does not list.")
            continue
        category = categories[category_id]
        if category is None or entry.get("keypoints") is None:
            n_without_keypoints += 1
            continue
        if image_id not in image_ids:
            problems.add("image", f"{name} is of image {image_id!r}, which 'images' does not list.")
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
        problems.add("no numbers", f"{name}: 'keypoints' is no flat list of numbers: {values!r:.80}.")
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
        elif visibility != NOT_LABELLED and not (math.isfinite(x) and math.isfinite(y)):
            problems.add("not finite", f"{name} has the labelled point ({x}, {y}); finite numbers are expected.")
        else:
            triples.append((float(x), float(y), int(visibility)))
    return triples


def _read_extent(entry: dict[str, Any]) -> tuple[float, float]:
    """The longer side of the box and the area, NaN where the annotation has none that can be used."""
    box, area = entry.get("bbox"), entry.get("area")
    box_size = math.nan
    if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
        box_size = max(box[2], box[3])
    if not isinstance(area, int | float) or isinstance(area, bool):
        area = math.nan
    return (box_size if box_size > 0 else math.nan), (float(area) if area > 0 else math.nan)


def _flatten(
    path: Path,
    keypoint_types: tuple[str, ...],
    image_ids: list[int],
    image_paths: list[bytes],
    rows: dict[int, list[_Row]],
    coordinates: Coordinates,
) -> CocoKeypoints:
    flat = [row for image_id in image_ids for row in rows.get(image_id, [])]
    counts = [len(rows.get(image_id, [])) for image_id in image_ids]
    points = np.array([(row.x, row.y) for row in flat], dtype=np.float32).reshape(-1, 2)
    if coordinates == "pixel_index":
        points += np.float32(PIXEL_INDEX_OFFSET_PX)
    return CocoKeypoints(
        path=path,
        keypoint_types=keypoint_types,
        image_ids=np.array(image_ids, dtype=np.int64),
        image_paths=np.array(image_paths, dtype=np.bytes_),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        points=points,
        visibility=np.array([row.visibility for row in flat], dtype=np.int64),
        types=np.array([row.type_index for row in flat], dtype=np.int64),
        instances=np.array([row.instance for row in flat], dtype=np.int64),
        box_sizes=np.array([row.box_size for row in flat], dtype=np.float32),
        areas=np.array([row.area for row in flat], dtype=np.float32),
    )
