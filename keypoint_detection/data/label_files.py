"""Find and read the COCO files of a data set."""

import functools
from collections.abc import Sequence
from pathlib import Path

from keypoint_detection.boxes.data_set import SyntheticBoxes, list_files
from keypoint_detection.data.coco_keypoints import CocoKeypoints, Coordinates, read_coco
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.types import DataError, DataFiles

# Training, validation and test file; more are seldom needed together.
N_TABLES = 3


def find_files(train: str | None, val: str | None, test: str | None, synthetic: SyntheticBoxes | None) -> DataFiles:
    """Name the file of each part; those of the procedural data set must be drawn first.

    Raises:
        DataError: files and the procedural data set are both given.
    """
    if synthetic is None:
        return DataFiles(*(Path(path) if path else None for path in (train, val, test)))
    if train or val or test:
        raise DataError("data.synthetic draws its own files; leave it out (null) if data.train, val or test is given.")
    return list_files(Path(synthetic.folder).expanduser(), synthetic)


def read_table(
    path: Path,
    image_root: str | None,
    coordinates: Coordinates,
    categories: Sequence[str] | None,
    missing_images: MissingImages,
    outside_images: OutsideImages,
) -> CocoKeypoints:
    """Read a COCO keypoint file, once per process as long as it does not change; see `read_coco`."""
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    picked = None if categories is None else tuple(categories)
    return _read(path, image_root, coordinates, picked, missing_images, outside_images, stamp)


@functools.lru_cache(maxsize=N_TABLES)
def _read(
    path: Path,
    image_root: str | None,
    coordinates: Coordinates,
    categories: tuple[str, ...] | None,
    missing_images: MissingImages,
    outside_images: OutsideImages,
    stamp: tuple[int, int] | None,
) -> CocoKeypoints:
    return read_coco(
        path,
        image_root,
        coordinates=coordinates,
        picked=categories,
        missing_images=missing_images,
        outside_images=outside_images,
    )
