"""A seeded data set of drawn images: open cardboard boxes, written as an ordinary COCO keypoint data set.

Every image has its own random generator, seeded with (seed, split, index): the first images of a data set do not
depend on how many follow, and no image is in two splits.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from jsonargparse.typing import NonNegativeInt, PositiveInt
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.boxes.rendering import SUPERSAMPLING, Bools, render
from keypoint_detection.boxes.scene import KEYPOINT_NAMES, Camera, OpenBox, label_keypoints, sample_scene
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.types import NOT_LABELLED, DataFiles

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

GENERATOR_VERSION = 4  # raise it whenever the same options would give different images or labels
RECORD = "synthetic.json"  # records what a folder holds
SMALLEST_SIDE = 64  # pixels; the corners of smaller boxes run together
JPEG_QUALITY = 93
# 1-based, as in COCO: the opening, then around each flap.
OPENING = [[1, 2], [2, 3], [3, 4], [4, 1]]
FLAPS = [edge for i in range(4) for edge in ([i + 1, 2 * i + 5], [2 * i + 5, 2 * i + 6], [2 * i + 6, (i + 1) % 4 + 1])]
CATEGORY = {
    "id": 1,
    "name": "box",
    "supercategory": "container",
    "keypoints": KEYPOINT_NAMES,
    "skeleton": OPENING + FLAPS,
}


@dataclasses.dataclass(frozen=True)
class SyntheticBoxes:
    """Draw images of open cardboard boxes as a COCO keypoint data set.

    Each image shows a box with four flaps on a cluttered ground, or several; about one in 25 shows none. The corners
    of the opening are box_corner0 to box_corner3, counter-clockwise seen from above. Flap i hangs on the edge from
    box_corner i to the next one; its outer corners are flap_corner 2i, beside box_corner i, and flap_corner 2i + 1.
    Nothing in an image shows which corner is number 0, so collect them in two channels:
    `{corner: [box_corner0, ..., box_corner3], flap: [flap_corner0, ..., flap_corner7]}`.

    A keypoint is flagged 2 (visible), 1 (hidden behind the box or something else) or 0 (outside the image).
    Coordinates are continuous: (0, 0) is the outer corner of the top-left pixel. The same options give the same data
    set; raising a number of images adds images and changes none.

    Beside the fields of COCO, images have a `camera`: its focal length `focal_px`, and the pixel that looks straight
    forward, `principal`. Annotations have a `pose`: `size_m`, the width, depth and height of the box; `translation_m`,
    the centre of its opening in the frame of the camera (right, down, forward); and `rotation`, the matrix from the
    box's axes (from corner 1 to 0, from corner 2 to 1, up) to those of the camera.

    Args:
        folder: where to write train.json, val.json, test.json and images/. It is created if missing. If it already
            holds exactly this data set, nothing is drawn; if it holds anything else, it is left alone and an error is
            raised.
        n_train: number of training images.
        n_val: number of validation images; 0 writes no val.json.
        n_test: number of test images; 0 writes no test.json.
        height: height of an image in pixels, at least 64.
        width: width of an image in pixels, at least 64.
        seed: seed of the random generators; another seed draws other images.
        max_boxes: maximum number of boxes in an image; those that can be seen are annotations of their own.
    """

    folder: str = "kpd_boxes"
    n_train: PositiveInt = 200
    n_val: NonNegativeInt = 40
    n_test: NonNegativeInt = 0
    height: PositiveInt = 160
    width: PositiveInt = 224
    seed: NonNegativeInt = 0
    max_boxes: PositiveInt = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width) < SMALLEST_SIDE:
            raise ValueError(
                f"SyntheticBoxes: height and width must be {SMALLEST_SIDE} pixels or more, found {self.height} x "
                f"{self.width}. In smaller images the corners run together: draw larger ones and resize them."
            )
        if self.n_train < 1 or min(self.n_val, self.n_test, self.seed) < 0:
            raise ValueError(
                "SyntheticBoxes: expected n_train of 1 or more, and n_val, n_test and seed of 0 or more; found "
                f"{self.n_train}, {self.n_val}, {self.n_test} and {self.seed}."
            )


def draw_data_set(options: SyntheticBoxes) -> DataFiles:
    """Write the data set that `options` describe, unless it is there already.

    It is drawn in a folder beside the final one and renamed at the end, so that an interrupted run leaves no partial
    data set. Of processes that start together on one machine, one draws and the others wait; of several machines, the
    first to finish wins, and all use its copy.

    Returns:
        The COCO files.

    Raises:
        FileExistsError: the folder holds something else.
        DataError: it cannot be written.
    """
    folder = Path(options.folder).expanduser()
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    if is_drawn(folder, options):
        log.info("%s already holds this data set: nothing to draw.", folder)
    else:
        with FileLock(Path(tempfile.gettempdir()) / f"kpd-{name}.lock", is_singleton=True):
            if not is_drawn(folder, options):
                draw(folder, options)
    return list_files(folder, options)


def draw(folder: Path, options: SyntheticBoxes) -> None:
    """Draw the data set into a folder that is missing or empty."""
    refuse_unwritable(folder, "folder")
    draft = folder.absolute().with_name(f".{folder.absolute().name}-{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        for split, count in count_images(options).items():
            draw_split(draft, split, count, options)
        (draft / RECORD).write_text(json.dumps(make_record(options), indent=2) + "\n")
        publish(draft, folder, options)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info(
        "Drew %s images of %d x %d pixels (height x width) into %s. To look at them, open %s, or load %s in any "
        "program that reads COCO keypoints.",
        " + ".join(f"{count} {split}" for split, count in count_images(options).items()),
        options.height,
        options.width,
        folder,
        folder / "images",
        folder / "train.json",
    )


def publish(draft: Path, folder: Path, options: SyntheticBoxes) -> None:
    """Move the finished draft to its final place, unless another process has already put the same data set there."""
    try:
        if folder.is_dir() and not os.listdir(folder):
            folder.rmdir()  # not every system can rename onto an empty folder
        draft.rename(folder)
    except OSError:
        if not is_drawn(folder, options):  # raises if something else is there
            raise


def is_drawn(folder: Path, options: SyntheticBoxes) -> bool:
    """Whether the folder holds this data set (True) or nothing (False).

    Raises:
        FileExistsError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not os.listdir(folder)):
        return False
    expected = make_record(options)
    way_out = "Give another folder, or delete this one if nothing in it is needed."
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder}: expected an empty or missing folder, found something that `kpd synthesize` did not draw (it "
            f"has no readable {RECORD}). {way_out}"
        ) from None
    if found != expected:
        found = found if isinstance(found, dict) else {}
        changes = [
            f"{key} {found.get(key)!r} instead of {expected.get(key)!r}"
            for key in sorted(found.keys() | expected.keys())
            if found.get(key) != expected.get(key)
        ]
        raise FileExistsError(f"{folder}: holds a data set drawn with other options: {', '.join(changes)}. {way_out}")
    missing = [str(path) for path in list_files(folder, options) if path is not None and not path.is_file()]
    if missing:
        raise FileExistsError(f"{folder}: the drawn data set is incomplete, missing {', '.join(missing)}. {way_out}")
    return True


def make_record(options: SyntheticBoxes) -> dict[str, int]:
    """Return what determines the content of a data set: all options but the folder, and the generator's version."""
    numbers = {
        field.name: int(getattr(options, field.name)) for field in dataclasses.fields(options) if field.name != "folder"
    }
    if numbers["max_boxes"] == 1:  # as in the records of versions that drew no more
        del numbers["max_boxes"]
    return {"generator_version": GENERATOR_VERSION, **numbers}


def count_images(options: SyntheticBoxes) -> dict[Split, int]:
    """Return the number of images of each split that has any."""
    counts = zip(SPLITS, (options.n_train, options.n_val, options.n_test), strict=True)
    return {split: count for split, count in counts if count > 0}


def list_files(folder: Path, options: SyntheticBoxes) -> DataFiles:
    """Return the COCO files of a data set with these options in a folder."""
    val = folder / "val.json" if options.n_val else None
    test = folder / "test.json" if options.n_test else None
    return DataFiles(folder / "train.json", val, test)


def draw_box_images(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Draw images without writing them, (height, width, 3) uint8 RGB."""
    rngs = [np.random.default_rng(index) for index in range(count)]
    return [render(sample_scene(rng, height, width), rng).image for rng in rngs]


def draw_split(folder: Path, split: Split, count: int, options: SyntheticBoxes) -> None:
    """Draw the images of one split into a folder, and write its COCO file."""
    (folder / "images" / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        file_name = f"images/{split}/{index:06d}.jpg"
        rng = np.random.default_rng([options.seed, SPLITS.index(split), index])
        scene = sample_scene(rng, options.height, options.width, options.max_boxes)
        rendering = render(scene, rng)
        # No colour subsampling: it would blur coloured edges by two pixels.
        Image.fromarray(rendering.image).save(folder / file_name, quality=JPEG_QUALITY, subsampling=0)
        image_id = index + 1
        images.append({"id": image_id, "file_name": file_name, "height": options.height, "width": options.width})
        images[-1]["camera"] = {"focal_px": scene.camera.focal_px, "principal": scene.camera.principal.tolist()}
        for number, box in enumerate(scene.boxes):
            is_shown = rendering.boxes == number
            if is_shown.any():
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0})
                annotations[-1] |= describe_silhouette(is_shown) | describe_keypoints(*label_keypoints(scene, box))
                annotations[-1]["pose"] = describe_pose(scene.camera, box)
    record = make_record(options)
    info = {
        "description": f"Drawn open cardboard boxes, {split} split",
        "version": str(GENERATOR_VERSION),
        "coordinates": "continuous: (0, 0) is the outer corner of the top-left pixel, (0.5, 0.5) its centre",
        "options": record,
    }
    content = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": [CATEGORY]}
    (folder / f"{split}.json").write_text(json.dumps(content, allow_nan=False) + "\n")


def describe_keypoints(points: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    """Return the COCO fields of (12, 2) keypoints with (12,) flags."""
    rows = [
        [0, 0, 0] if flag == NOT_LABELLED else [round(float(x), 2), round(float(y), 2), int(flag)]
        for (x, y), flag in zip(points, flags, strict=True)
    ]
    return {"keypoints": [value for row in rows for value in row], "num_keypoints": int((flags != NOT_LABELLED).sum())}


def describe_pose(camera: Camera, box: OpenBox) -> dict[str, Any]:
    """Return the size of a box in metres, and the pose of its opening in the camera's frame; see `Camera.locate`."""
    rotation, translation = camera.locate(box)
    return {
        "size_m": box.size.round(6).tolist(),
        "rotation": rotation.round(6).tolist(),
        "translation_m": translation.round(6).tolist(),
    }


def describe_silhouette(is_box: Bools) -> dict[str, Any]:
    """Return the COCO fields of the visible part of a box, from half-pixel samples."""
    rows, columns = np.flatnonzero(is_box.any(axis=1)), np.flatnonzero(is_box.any(axis=0))
    left, top, right, bottom = (int(end) for end in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    box = [edge / SUPERSAMPLING for edge in (left, top, right - left, bottom - top)]
    return {"bbox": box, "area": float(is_box.sum()) / SUPERSAMPLING**2, "segmentation": []}
