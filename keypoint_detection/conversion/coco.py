"""COCO keypoint files, with everything that the other formats may need."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_detection.conversion.labels import (
    Category,
    ImageFinder,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
    read_edges,
)
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco import read_coco
from keypoint_detection.data.image_bounds import allow_outside
from keypoint_detection.data.problems import Problems
from keypoint_detection.destinations import relate_path
from keypoint_detection.documents import read_json
from keypoint_detection.types import NOT_LABELLED, DataError

__all__ = ["SPLITS", "read_coco_labels", "round_px", "write_coco_labels"]

SPLITS = ("train", "val", "test")
# Decimals of pixels in text: a millionth is far below anything visible, and hides the noise of binary fractions.
DECIMALS = 6


def read_coco_labels(source: Path, reading: Reading) -> LabelSet:
    """Read a COCO keypoint file, or a folder's train.json, val.json and test.json as parts of one data set.

    Raises:
        DataError: a file is missing or inconsistent, or its images are missing.
    """
    files = [source]
    if source.is_dir():
        files = [path for split in SPLITS if (path := source / f"{split}.json").is_file()]
        if not files:
            raise DataError(f"{source}: has no {', '.join(f'{split}.json' for split in SPLITS)}; name a file instead.")
    parts = [_read_file(path, path.stem if source.is_dir() else "", reading) for path in files]
    categories = _merge_categories(files, [part.categories for part in parts])
    return LabelSet(
        categories, [image for part in parts for image in part.images], [note for part in parts for note in part.notes]
    )


def _merge_categories(files: list[Path], per_file: list[list[Category]]) -> list[Category]:
    for path, categories in zip(files, per_file, strict=True):
        if [(one.name, one.keypoints) for one in categories] != [(one.name, one.keypoints) for one in per_file[0]]:
            raise DataError(
                f"{path}: its categories differ from those of {files[0]}: "
                f"{[(one.name, one.keypoints) for one in categories]}. Convert the files one by one."
            )
    return per_file[0]


def _read_file(path: Path, split: str, reading: Reading) -> LabelSet:
    try:
        read_coco(path, reading.image_root, coordinates="continuous")  # lists every problem of the file
    except DataError as error:
        # The option has a different name here than in a training.
        raise DataError(str(error).replace("`data.image_root`", "`--image_root`")) from error
    content = read_json(path, "a COCO keypoint file (JSON)")
    labelled = [one for one in content["annotations"] if one.get("keypoints") is not None]
    categories, indices = _read_categories(content["categories"], labelled)
    problems = Problems()
    finder = ImageFinder([reading.image_root or path.parent], problems)
    images: dict[int, LabelledImage] = {}
    for entry in content["images"]:
        if (image := finder.find(entry["file_name"], (entry.get("height"), entry.get("width")))) is not None:
            image.split = split
            images[entry["id"]] = image
    n_left_out = len(content["annotations"])
    for entry in labelled:
        if entry["category_id"] in indices:
            n_left_out -= 1
            if entry["image_id"] in images:
                images[entry["image_id"]].instances.append(_read_annotation(entry, indices[entry["category_id"]]))
    problems.raise_if_any(path)
    notes = [f"Left out, as without keypoints: {count_in_words(n_left_out, 'annotation')}."] if n_left_out else []
    return LabelSet(categories, list(images.values()), notes)


def _read_categories(
    entries: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> tuple[list[Category], dict[Any, int]]:
    """Index the categories that have keypoints; unnamed keypoints get the names that training gives them."""
    n_values = {one["category_id"]: len(one["keypoints"]) for one in reversed(annotations)}
    categories: list[Category] = []
    indices: dict[Any, int] = {}
    for entry in entries:
        name = str(entry.get("name", entry["id"]))
        names = entry.get("keypoints") or [f"{name}_{index}" for index in range(n_values.get(entry["id"], 0) // 3)]
        if names:
            indices[entry["id"]] = len(categories)
            categories.append(Category(name, list(names), read_edges(entry.get("skeleton"), len(names), start=1)))
    return categories, indices


def _read_annotation(entry: Mapping[str, Any], category: int) -> Instance:
    triples = np.array(entry["keypoints"], dtype=np.float64).reshape(-1, 3)
    instance = make_instance(category, len(triples))
    instance.visibility[:] = triples[:, 2]
    instance.points[instance.is_labelled] = triples[instance.is_labelled, :2]
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        instance.box = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return instance


def write_coco_labels(labels: LabelSet, path: Path, info: Mapping[str, Any]) -> None:
    """Write a COCO keypoint file; the paths of the images in it are relative to its folder.

    Args:
        labels: the labels to write; every image has a file.
        path: path of the JSON file.
        info: the file's description of itself.
    """
    content: dict[str, Any] = {
        "info": {**info, **allow_outside(path)},
        "images": [],
        "annotations": [],
        "categories": [],
    }
    for number, category in enumerate(labels.categories, start=1):
        skeleton = [[a + 1, b + 1] for a, b in category.skeleton]
        content["categories"].append(
            {"id": number, "name": category.name, "supercategory": "", "keypoints": category.keypoints}
            | {"skeleton": skeleton}
        )
    for number, image in enumerate(labels.images, start=1):
        assert image.path is not None
        height, width = image.size
        name = relate_path(image.path, path.parent)
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for instance in image.instances:
            if instance.is_labelled.any() or instance.box is not None:
                annotation_id = len(content["annotations"]) + 1
                content["annotations"].append({"id": annotation_id, "image_id": number} | _describe(instance))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _describe(instance: Instance) -> dict[str, Any]:
    triples = [
        value
        for (x, y), visibility in zip(instance.points.tolist(), instance.visibility.tolist(), strict=True)
        for value in ((round_px(x), round_px(y), visibility) if visibility != NOT_LABELLED else (0, 0, NOT_LABELLED))
    ]
    box = [round_px(value) for value in instance.enclose()]
    return {
        "category_id": instance.category + 1,
        "keypoints": triples,
        "num_keypoints": int(instance.is_labelled.sum()),
        "bbox": box,
        "area": round_px(box[2] * box[3]),
        "iscrowd": 0,
    }


def round_px(value: float) -> float:
    """Round a coordinate for a text file."""
    return round(float(value), DECIMALS)
