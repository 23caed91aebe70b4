"""Read COCO keypoint files into flat arrays, and report all problems of a file together.

The format: https://cocodataset.org/#format-data (keypoint detection). `categories[].keypoints` names the keypoint
types, `annotations[].keypoints` has one (x, y, v) triple for each of them.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from keypoint_detection.channels import KeypointType
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.missing import advise_on_missing
from keypoint_detection.data.coco_annotations import CocoCategory, is_identifier, read_annotations
from keypoint_detection.data.coco_file import CategoryEntry, CocoFile, NotPlainJson, load_leniently, load_quickly
from keypoint_detection.data.coco_images import CocoImages, read_images
from keypoint_detection.data.image_bounds import ImageBounds, MissingImages, OutsideImages
from keypoint_detection.data.problems import Problems
from keypoint_detection.types import GroundTruths

logger = logging.getLogger(__name__)

N_EXAMPLES = 3

Coordinates = Literal["continuous", "pixel_index"]

# A network cannot have more channels than this; a longer list is a mistake.
MAX_KEYPOINT_TYPES = 10_000


def offset_px(coordinates: Coordinates) -> float:
    """Return the offset from the coordinates of a convention to continuous coordinates.

    >>> offset_px("pixel_index")
    0.5
    """
    # An integer that names a pixel is half a pixel from its centre.
    return 0.5 if coordinates == "pixel_index" else 0.0


class CocoKeypoints(NamedTuple):
    """A keypoint data set as flat arrays, which loader workers share rather than copy (I images, P labelled points).

    Attributes:
        path: the JSON file.
        keypoint_types: all keypoint types in the file; equal names in several categories are distinguished.
        image_ids: (I,) int64.
        image_paths: (I,) UTF-8 bytes, the files of the images.
        image_sizes: (I, 2) int64, (height, width) of the images according to the file; 0 if not given.
        offsets: (I + 1,) int64; the points of image i are the rows offsets[i] to offsets[i + 1].
        types: (P,) int64, indices into `keypoint_types`.
        truths: (P,), the points and centres in continuous image pixels; unlabelled ones are left out.
    """

    path: Path
    keypoint_types: tuple[KeypointType, ...]
    image_ids: NDArray[np.int64]
    image_paths: NDArray[np.bytes_]
    image_sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    types: NDArray[np.int64]
    truths: GroundTruths[NDArray[Any]]


class ExaminedCoco(NamedTuple):
    """The readable part of a file.

    Attributes:
        table: the usable part of it.
        problems: everything wrong with it.
        file: its entries.
        categories: its categories, with names for keypoints that it leaves unnamed.
        missing: names of the image files that do not exist.
    """

    table: CocoKeypoints
    problems: Problems
    file: CocoFile
    categories: list[CategoryEntry]
    missing: list[str]


def read_coco(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    coordinates: Coordinates,
    picked: Sequence[str] | None = None,
    missing_images: MissingImages = "error",
    outside_images: OutsideImages = "error",
) -> CocoKeypoints:
    """Read and validate a COCO keypoint file.

    Images without annotations are kept as negatives. Annotations of categories without keypoints, and those
    that have no keypoints, are left out; the log says how many.

    Args:
        path: the JSON file.
        image_root: the folder that the images' file names are relative to; by default, that of the JSON file.
        coordinates: in `continuous`, (0, 0) is the corner of the top-left pixel; in `pixel_index`, the numbers name
            pixels, so half a pixel is added to reach their centres.
        picked: the names of the categories whose annotations are used; by default, all that have keypoints.
        missing_images: whether images whose file is missing are an error, or left out, which is logged.
        outside_images: whether images that are not below that folder are an error, or allowed.

    Raises:
        DataError: the file is missing, is not a COCO keypoint file, or has inconsistent entries; all problems are
            listed together.
    """
    path = Path(path)
    examined = examine_coco(path, image_root, coordinates, picked, missing_images, outside_images)
    names, n_images = examined.missing, len(examined.file.images)
    listed = ", ".join(map(repr, names[:N_EXAMPLES]))
    if "image file" in examined.problems.by_kind:
        root = Path(image_root) if image_root is not None else path.parent
        total, verb = count_in_words(n_images, "image file"), agree(len(names), "is", "are")
        advice = advise_on_missing(names, n_images, root, path)
        examined.problems.by_kind["image file"] = [
            f"{len(names)} of {total} {verb} missing below {root}, e.g. {listed}. {advice}"
        ]
    examined.problems.raise_if_any(path)
    if names:
        logger.info("%s: left out missing images: %d of %d, e.g. %s.", path, len(names), n_images, listed)
    return examined.table


def examine_coco(
    path: str | Path,
    image_root: str | Path | None,
    coordinates: Coordinates,
    picked: Sequence[str] | None,
    missing_images: MissingImages,
    outside_images: OutsideImages,
) -> ExaminedCoco:
    """Read as much as possible of a COCO keypoint file, and collect everything wrong with it; see `read_coco`.

    Raises:
        DataError: the file is missing or is not a COCO file.
    """
    path = Path(path)
    root = Path(image_root) if image_root is not None else path.parent

    def read(file: CocoFile) -> ExaminedCoco:
        problems = Problems()
        categories = _name_keypoints(file)
        types = _read_categories(categories, picked, problems)
        bounds = ImageBounds.of_file(path, image_root, outside_images, file.info)
        images = read_images(file.images, root, bounds, missing_images, problems)
        table = _read(path, file, types, images, coordinates, problems)
        return ExaminedCoco(table, problems, file, categories, images.missing)

    try:
        return read(load_quickly(path))
    except (NotPlainJson, RecursionError):
        return read(load_leniently(path))


def _read(
    path: Path,
    file: CocoFile,
    types: tuple[tuple[KeypointType, ...], dict[Any, CocoCategory | None]],
    images: CocoImages,
    coordinates: Coordinates,
    problems: Problems,
) -> CocoKeypoints:
    keypoint_types, categories = types
    labelled = read_annotations(file, images, categories, problems)
    for positions in (labelled.truths.points, labelled.truths.centres):
        positions[:] += np.float32(offset_px(coordinates))
    return CocoKeypoints(
        path=path,
        keypoint_types=keypoint_types,
        image_ids=np.array(images.ids, dtype=np.int64),
        image_paths=np.array(images.paths, dtype=np.bytes_),
        image_sizes=np.array(images.sizes, dtype=np.int64).reshape(-1, 2),
        offsets=np.concatenate([[0], np.cumsum(labelled.n_points)]).astype(np.int64),
        types=labelled.types,
        truths=labelled.truths,
    )


def _name_keypoints(file: CocoFile) -> list[CategoryEntry]:
    """Name the keypoints of categories that leave them unnamed although their annotations contain them (as in WFLW)."""
    if all(category.keypoints for category in file.categories):
        return file.categories
    n_values: dict[Any, int] = {}
    for annotation in file.read_annotations():
        if isinstance(annotation.keypoints, list) and is_identifier(annotation.category_id):
            n_values.setdefault(annotation.category_id, len(annotation.keypoints))
    categories = []
    for category in file.categories:
        n_keypoints = n_values.get(category.id, 0) // 3 if is_identifier(category.id) else 0
        if not category.keypoints and n_keypoints:
            name = name_category(category)
            logger.info(
                "Category '%s' names no keypoints; they are called %s_0 to %s_%d.", name, name, name, n_keypoints - 1
            )
            names = [f"{name}_{index}" for index in range(n_keypoints)]
            category = msgspec.structs.replace(category, keypoints=names)
        categories.append(category)
    return categories


def name_category(category: CategoryEntry) -> str:
    """Return a category's name, or else its id."""
    return str(category.id if category.name is msgspec.UNSET else category.name)


def _read_categories(
    entries: list[CategoryEntry], picked: Sequence[str] | None, problems: Problems
) -> tuple[tuple[KeypointType, ...], dict[Any, CocoCategory | None]]:
    """Index the keypoint types; a category that has no keypoints, or is not picked, maps to None."""
    named: dict[Any, tuple[str, list[str]]] = {}
    categories: dict[Any, CocoCategory | None] = {}
    for entry in entries:
        identifier, names, name = entry.id, entry.keypoints, name_category(entry)
        if not is_identifier(identifier) or identifier in categories:
            problems.add(
                "category id",
                f"category '{name}' has the id {identifier!r:.80}; each category needs a unique integer.",
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
        if len(names) > MAX_KEYPOINT_TYPES:
            problems.add(
                "many keypoints",
                f"category '{name}' has {len(names)} keypoints; at most {MAX_KEYPOINT_TYPES} are expected.",
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
    # Counted over all categories, so that a type's name does not depend on which are picked.
    counts = Counter(keypoint for _, names in named.values() for keypoint in set(names))
    if picked is not None:
        named = _pick_categories(named, picked, problems)
    indices: dict[KeypointType, int] = {}
    for identifier, (name, names) in named.items():
        types = [KeypointType(name, keypoint, counts[keypoint] == 1) for keypoint in names]
        categories[identifier] = CocoCategory(name, [indices.setdefault(one, len(indices)) for one in types])
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
        problems.add("category picked", f"data.categories is empty; choose from {', '.join(map(repr, known))}.")
    return {identifier: entry for identifier, entry in named.items() if entry[0] in picked}
