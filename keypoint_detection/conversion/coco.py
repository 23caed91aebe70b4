"""COCO keypoint files, with everything that the other formats can need."""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from keypoint_detection.conversion.image_finder import ImageFinder, identify, tidy_name
from keypoint_detection.conversion.label_set import (
    SPLITS,
    Category,
    Format,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
    name_split,
    read_edges,
    round_px,
)
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco_file import AnnotationEntry
from keypoint_detection.data.coco_keypoints import examine_coco, name_category
from keypoint_detection.data.image_bounds import allow_outside
from keypoint_detection.destinations import relate_path
from keypoint_detection.types import NOT_LABELLED, DataError

ROBOFLOW_FILE = "_annotations.coco.json"
# Names that CVAT and COCO itself give their keypoint files.
KEYPOINT_FILES = "person_keypoints_"


class _File(NamedTuple):
    """A label file.

    Attributes:
        path: the file.
        split: its part of the data set; can be empty.
        roots: the folders that its images could be in, the most likely first.
        folder: the name of the folder that contains only its images; empty if there is none.
    """

    path: Path
    split: str
    roots: list[Path]
    folder: str = ""


def _find_files(folder: Path) -> list[_File]:
    """Find the files of a data set in parts: train.json and so on, or as Roboflow, CVAT and COCO arrange them."""
    plain = [_File(path, split, [folder]) for split in SPLITS if (path := folder / f"{split}.json").is_file()]
    if plain:
        return plain
    if files := sorted(folder.glob(f"*/{ROBOFLOW_FILE}")):
        return [_File(path, name_split(path.parent.name), [path.parent], path.parent.name) for path in files]
    folder = folder.absolute()
    dataset = folder.parent if folder.name == "annotations" else folder
    files = sorted((dataset / "annotations").glob("*.json"))
    files = [path for path in files if path.name.startswith(KEYPOINT_FILES)] or files
    found = []
    for path in files:
        part = path.stem.removeprefix(KEYPOINT_FILES)
        roots = [one for one in (dataset / "images" / part, dataset / part) if one.is_dir()]
        shared = [dataset / "images", dataset, path.parent]
        found.append(_File(path, name_split(part), roots or shared, part if roots else ""))
    return found


def _is_folder_of_coco(source: Path) -> bool:
    """Whether this is a folder with COCO files, and not a YOLO data set, which can contain some too."""
    return source.is_dir() and bool(_find_files(source)) and not (source / "data.yaml").is_file()


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a COCO keypoint file, or a folder's train.json, val.json and test.json as parts of one data set.

    Raises:
        DataError: a file is missing or inconsistent, or its images are missing.
    """
    found = _find_files(source) if source.is_dir() else [_File(source, "", [source.parent])]
    if not found:
        raise DataError(f"{source}: has no {', '.join(f'{split}.json' for split in SPLITS)}; name a file instead.")
    reached: dict[str, str] = {}
    parts = [_read_file(one, reading, reached) for one in found]
    files = [one.path for one in found]
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


def _read_file(file: _File, reading: Reading, reached: dict[str, str]) -> LabelSet:
    path = file.path
    # Lists every problem of the file; its images are looked for below.
    _, problems, content, entries, _ = examine_coco(path, file.roots[0], "continuous", None, "error", "allow")
    problems.by_kind.pop("image file", None)
    problems.raise_if_any(path)
    named = {entry.id: entry for entry in entries if entry.keypoints}
    indices = {identifier: index for index, identifier in enumerate(named)}
    # Parts with folders of their own may have images of equal names.
    below = [str(PurePosixPath(file.folder, entry.file_name)) for entry in content.images]
    names = [
        [whole, entry.file_name] if reading.image_root else [entry.file_name]
        for whole, entry in zip(below, content.images, strict=True)
    ]
    finder = ImageFinder(file.roots, names, reading.bound_images(path, content.info), reading, problems, reached)
    images: dict[int, LabelledImage] = {}
    for entry, candidates, whole in zip(content.images, names, below, strict=True):
        image = finder.find(candidates, (entry.height, entry.width), identify(whole))
        if image is not None:
            image.name, image.split = tidy_name(whole), file.split
            images[entry.id] = image
    n_left_out = 0
    for annotation in content.read_annotations():
        if not annotation.keypoints or annotation.category_id not in indices:
            n_left_out += 1
        elif annotation.image_id in images:
            instance = _read_annotation(annotation, indices[annotation.category_id])
            images[annotation.image_id].instances.append(instance)
    notes = finder.conclude()
    problems.raise_if_any(path)
    notes += [f"Left out: {count_in_words(n_left_out, 'annotation')} without keypoints."] if n_left_out else []
    categories = [
        Category(name_category(one), one.keypoints, read_edges(one.skeleton, len(one.keypoints), start=1))
        for one in named.values()
    ]
    return LabelSet(categories, list(images.values()), notes)


def _read_annotation(entry: AnnotationEntry, category: int) -> Instance:
    triples = np.array(entry.keypoints, dtype=np.float64).reshape(-1, 3)
    instance = make_instance(category, len(triples))
    instance.visibility[:] = triples[:, 2]
    instance.points[instance.is_labelled] = triples[instance.is_labelled, :2]
    box = entry.bbox
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        instance.box = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return instance


def write(labels: LabelSet, path: Path) -> list[str]:
    """Write a COCO keypoint file; the paths of the images in it are relative to its folder."""
    content: dict[str, Any] = {
        "info": {**labels.info, **allow_outside(path)},
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
    return []


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


COCO = Format(
    title="COCO keypoints",
    coordinates="continuous",
    recognises=_is_folder_of_coco,
    read=read,
    write=write,
    source_suffix=".json",
    output_suffix=".json",
    parts="files",
)
