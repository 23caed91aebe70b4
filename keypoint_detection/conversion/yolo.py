"""YOLO-pose data sets of Ultralytics: data.yaml, images/ and labels/, one text file per image.

A line is an object: class, then the box (centre and size), then the points, each with x, y and, if `kpt_shape` says 3,
a visibility as in COCO. Coordinates are fractions of the image's width and height, hence continuous. If `kpt_shape`
says 2, a point at (0, 0) or below is not labelled. `kpt_names` (or `node_names`) name the points; without them, give
--keypoints.

https://docs.ultralytics.com/datasets/pose/. sleap-io reads such data sets too, but makes occluded points visible,
supports only one class, and mistakes objects without visibility for outlines.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from keypoint_detection.conversion.image_finder import ImageFinder
from keypoint_detection.conversion.label_set import (
    SPLITS,
    Category,
    Format,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
    read_edges,
)
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.coco_keypoints import MAX_KEYPOINT_TYPES
from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_text, read_yaml
from keypoint_detection.images import IMAGE_SUFFIXES
from keypoint_detection.types import VISIBLE, DataError

# The class names in numerical order, a file that some programs write among the labels.
CLASS_FILE = "classes.txt"
N_BOX_CELLS = 5  # class, and the box's centre and size
WITH_VISIBILITY = 3  # numbers per point
# Decimals of fractions: 1e-8 of an image 10,000 pixels wide is a ten-thousandth of a pixel.
SHARE_DECIMALS = 8
LARGEST_SHARE = 2.0  # points can be outside their image, but not this far

# What a config of `kpd fit` has, and a data.yaml has not.
CONFIG_KEYS = {"model", "data", "trainer"}


class _Config(NamedTuple):
    path: Path
    root: Path
    content: dict[str, Any]
    n_keypoints: int
    n_numbers: int


def _find_config(source: Path) -> Path | None:
    """Find the data.yaml of a data set: the file itself, or the one in a folder."""
    if source.suffix in (".yaml", ".yml"):
        return source
    return next((path for path in (source / "data.yaml", *sorted(source.glob("*.yaml"))) if path.is_file()), None)


def _label_path(image: Path) -> Path:
    """Return the label file of an image as Ultralytics does, with labels/ for the last images/ in its path."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a YOLO-pose data set by its data.yaml.

    Raises:
        DataError: the data.yaml is missing or incomplete, or label files are broken.
    """
    config = _read_config(source, reading)
    categories = _read_categories(config, reading.keypoints)
    problems = Problems()
    images: list[LabelledImage] = []
    seen: set[Path] = set()
    listed = {split: list(_list_images(config, split, problems)) for split in SPLITS}
    names = [[str(path.absolute())] for paths in listed.values() for path in paths]
    finder = ImageFinder([config.root], names, reading.bound_images(config.path), reading, problems)
    for split in SPLITS:
        for path in listed[split]:
            if path in seen:  # `val` often names the training images
                continue
            seen.add(path)
            image = finder.find([str(path.absolute())])
            if image is not None and image.path is not None:
                path = path if image.path == path.absolute() else image.path
                image.path, image.split = path, split
                image.name = path.relative_to(config.root).as_posix() if path.is_relative_to(config.root) else path.name
                image.instances = _read_labels(_label_path(path), image, config, categories, problems)
                images.append(image)
        _refuse_unlabelled(split, listed[split], problems)
    _refuse_shared_labels(seen, problems)
    lists = {config.root / entry for split in SPLITS for entry in _list_entries(config.content, split)}
    notes = [*finder.conclude(), *_note_labels_without_image(seen, lists)]
    problems.raise_if_any(config.path)
    if not images:
        raise DataError(f"{config.path}: train, val and test name no images.")
    return LabelSet(categories, images, notes)


def _refuse_unlabelled(split: str, paths: list[Path], problems: Problems) -> None:
    """Refuse a part without any label file: it would consist of negatives only."""
    if not paths or any(_label_path(path).is_file() for path in paths):
        return
    beside = paths[0].with_suffix(".txt")
    where = (
        f"there is {beside}; labels are expected in labels/, beside images/"
        if beside.is_file()
        else "if it is not labelled, remove it from the file"
    )
    which = agree(len(paths), "its only image does not have", f"none of its {len(paths)} images has")
    problems.add(
        "no labels",
        f"{split}: {which} a label file, such as {_label_path(paths[0])}; {where}.",
    )


def _refuse_shared_labels(images: set[Path], problems: Problems) -> None:
    """Refuse images that differ only in their suffix: one label file would apply to several."""
    owners: dict[Path, Path] = {}
    for path in sorted(images):
        other = owners.setdefault(_label_path(path), path)
        if other != path and _label_path(path).is_file():
            problems.add(
                "one label file", f"{other} and {path} have the same label file, {_label_path(path)}; rename one."
            )


def _note_labels_without_image(images: set[Path], lists: set[Path]) -> list[str]:
    """Count the label files that belong to no image, such as those of images that were deleted."""
    used = {_label_path(path) for path in images}
    files = {path for folder in {path.parent for path in used} for path in folder.glob("*.[tT][xX][tT]")}
    lost = files - used - lists
    unused = sorted(path for path in lost if path.name != CLASS_FILE)
    counted = count_in_words(len(unused), "label file")
    return [f"Left out: {counted} without an image, e.g. {unused[0]}."] if unused else []


def _read_config(source: Path, reading: Reading) -> _Config:
    path = _find_config(source)
    if path is None or not path.is_file():
        raise DataError(f"{source}: has no data.yaml; expected a YOLO-pose data set of Ultralytics.")
    content = read_yaml(path, "the data.yaml of a YOLO-pose data set")
    if isinstance(content, dict) and "kpt_shape" not in content and content.keys() & CONFIG_KEYS:
        raise DataError(f"{path}: is a config of `kpd fit`; give the labels themselves, such as its data.train.")
    shape = content.get("kpt_shape") if isinstance(content, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or type(shape[0]) is not int
        or not 0 < shape[0] <= MAX_KEYPOINT_TYPES
        or shape[1] not in (2, 3)
    ):
        raise DataError(
            f"{path}: kpt_shape is {shape!r:.60}; [number of keypoints, 2 or 3] is expected, with at most "
            f"{MAX_KEYPOINT_TYPES} keypoints. Without it, the data set has boxes only."
        )
    # `path` is often from another machine.
    stated = Path(str(content.get("path") or "."))
    candidates = [reading.image_root] if reading.image_root else [path.parent / stated, path.parent]
    keys = [key for split in SPLITS for key in _list_entries(content, split)]
    root = next((one for one in candidates if one and any((one / key).exists() for key in keys)), candidates[-1])
    return _Config(path, Path(root or path.parent), content, shape[0], shape[1])


def _read_categories(config: _Config, keypoints: list[str]) -> list[Category]:
    classes = config.content.get("names")
    if isinstance(classes, list):
        classes = dict(enumerate(classes))
    if not isinstance(classes, dict) or set(classes) != set(range(len(classes))):
        raise DataError(f"{config.path}: names is {classes!r:.80}; the classes are expected, e.g. {{0: mouse}}.")
    named = config.content.get("kpt_names") or config.content.get("node_names")
    categories = []
    for index in range(len(classes)):
        names = keypoints or (named.get(index) if isinstance(named, dict) else named)
        if names is not None and not isinstance(names, list):
            raise DataError(f"{config.path}: kpt_names is {named!r:.80}; a list of names for each class is expected.")
        names = [str(name) for name in names or [f"point{number}" for number in range(config.n_keypoints)]]
        if not len(names) <= config.n_keypoints or (keypoints and len(names) != config.n_keypoints):
            raise DataError(
                f"{config.path}: {len(names)} keypoint names ({', '.join(names)}) for {config.n_keypoints} "
                "keypoints of kpt_shape."
            )
        # Not one of Ultralytics' own keys; sleap-io reads and writes it.
        edges = read_edges(config.content.get("skeleton"), len(names), start=0)
        categories.append(Category(str(classes[index]), names, edges))
    return categories


def _list_entries(content: dict[str, Any], split: str) -> list[str]:
    """List the places that a split names: one or several."""
    value = content.get(split)
    return [str(entry) for entry in (value if isinstance(value, list) else [value] if value else [])]


def _list_images(config: _Config, split: str, problems: Problems) -> Iterator[Path]:
    """List the images of a split: those in folders, or the lines of text files."""
    for entry in _list_entries(config.content, split):
        place = config.root / entry
        if not place.exists():
            # Roboflow's exports say ../train/images, relative to a folder that does not exist.
            place = config.root / entry.replace("../", "")
        if place.is_dir():
            place = Path(os.path.normpath(place))
            yield from sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file():
            lines = read_text(place, "a list of images").split("\n")
            yield from (Path(os.path.normpath(place.parent / line.strip())) for line in lines if line.strip())
        else:
            problems.add("no folder", f"{split}: {entry} is neither a folder nor a list of images in {config.root}.")


def _read_labels(
    path: Path, image: LabelledImage, config: _Config, categories: list[Category], problems: Problems
) -> list[Instance]:
    if not path.is_file():  # a negative
        return []
    n_expected = N_BOX_CELLS + config.n_keypoints * config.n_numbers
    instances = []
    for number, line in enumerate(read_text(path, "a YOLO label file").splitlines(), start=1):
        cells = line.split()
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            problems.add("number", f"{path}, line {number}: {line!r:.60} is not a row of numbers.")
            continue
        if not cells:
            continue
        if len(cells) != n_expected or not np.isfinite(values).all():
            problems.add(
                "length",
                f"{path}, line {number} has {len(cells)} numbers; {n_expected} are expected: class, box and "
                f"{config.n_keypoints} keypoints of {config.n_numbers}.",
            )
        elif np.abs(_shares(values, config)).max() > LARGEST_SHARE:
            problems.add(
                "share",
                f"{path}, line {number} has {np.abs(_shares(values, config)).max():g}; fractions of the image's width "
                "and height, from 0 to 1, are expected. Divide pixel coordinates by the width and height.",
            )
        elif values[0] not in range(len(categories)):
            problems.add("class", f"{path}, line {number} has class {cells[0]}; names has {len(categories)}.")
        elif config.n_numbers == WITH_VISIBILITY and not np.isin(values[N_BOX_CELLS + 2 :: 3], (0, 1, VISIBLE)).all():
            problems.add("visibility", f"{path}, line {number} has a visibility that is not 0, 1 or 2.")
        else:
            instances.append(_read_line(values, image, config, categories[int(values[0])]))
    return instances


def _shares(values: NDArray[np.float64], config: _Config) -> NDArray[np.float64]:
    """Return the numbers of a row that are fractions of the image's sides."""
    points = values[N_BOX_CELLS:].reshape(config.n_keypoints, config.n_numbers)[:, :2]
    return np.concatenate([values[1:N_BOX_CELLS], points.ravel()])


def _read_line(values: NDArray[np.float64], image: LabelledImage, config: _Config, category: Category) -> Instance:
    height, width = image.size
    points = values[N_BOX_CELLS:].reshape(config.n_keypoints, config.n_numbers)[: len(category.keypoints)]
    instance = make_instance(int(values[0]), len(points))
    if config.n_numbers == WITH_VISIBILITY:
        instance.visibility[:] = points[:, 2]
    else:
        instance.visibility[:] = np.where((points < 0).any(axis=1) | (points == 0).all(axis=1), 0, VISIBLE)
    instance.points[instance.is_labelled] = (points[:, :2] * (width, height))[instance.is_labelled]
    x, y, box_width, box_height = (values[1:N_BOX_CELLS] * (width, height, width, height)).tolist()
    instance.box = (x - box_width / 2, y - box_height / 2, box_width, box_height)
    return instance


def write(labels: LabelSet, folder: Path) -> list[str]:
    """Write data.yaml and the label files; the images are already in images/.

    Returns:
        Notes on what the data set does not contain.
    """
    n_keypoints = max(len(one.keypoints) for one in labels.categories)
    used = [split for split in SPLITS if any((image.split or "train") == split for image in labels.images)]
    content: dict[str, Any] = {"path": "."}
    # Ultralytics requires both, even if nothing is held out.
    content |= {split: f"images/{split}" for split in used} | ({} if "val" in used else {"val": f"images/{used[0]}"})
    content["names"] = {index: one.name for index, one in enumerate(labels.categories)}
    content["kpt_shape"] = [n_keypoints, WITH_VISIBILITY]
    content["kpt_names"] = {index: one.keypoints for index, one in enumerate(labels.categories)}
    n_outside = 0
    if len(labels.categories) == 1 and labels.categories[0].skeleton:
        content["skeleton"] = [list(edge) for edge in labels.categories[0].skeleton]
    for image in labels.images:
        assert image.path is not None
        path = _label_path(image.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        n_outside += sum(int(_is_outside(one, image.size).sum()) for one in image.instances)
        path.write_text("".join(_make_line(one, image.size, n_keypoints) for one in image.instances), encoding="utf-8")
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    note = (
        f"{count_in_words(n_outside, 'point outside its image is', 'points outside their image are')} written as not "
        "labelled: Ultralytics skips such images."
    )
    return [note] if n_outside else []


def _is_outside(instance: Instance, size: tuple[int, int]) -> NDArray[np.bool_]:
    is_outside = ((instance.points < 0) | (instance.points > (size[1], size[0]))).any(axis=1)
    return np.asarray(is_outside & instance.is_labelled)


def _make_line(instance: Instance, size: tuple[int, int], n_keypoints: int) -> str:
    is_written = instance.is_labelled & ~_is_outside(instance, size)
    if not is_written.any() and instance.box is None:
        return ""
    height, width = size
    left, top, box_width, box_height = instance.enclose()
    # Inside the image, and at least one pixel wide: Ultralytics refuses other boxes.
    left, right = np.clip([left, max(left + box_width, left + 1)], 0, width).tolist()
    top, bottom = np.clip([top, max(top + box_height, top + 1)], 0, height).tolist()
    shares = [(left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height]
    points = np.zeros((n_keypoints, WITH_VISIBILITY))
    points[: len(is_written), :2] = np.where(is_written[:, None], instance.points / (width, height), 0)
    points[: len(is_written), 2] = np.where(is_written, instance.visibility, 0)
    cells = [f"{share:.{SHARE_DECIMALS}f}" for share in shares]
    for x, y, visibility in points.tolist():
        cells += [f"{x:.{SHARE_DECIMALS}f}", f"{y:.{SHARE_DECIMALS}f}", str(int(visibility))]
    return f"{instance.category} {' '.join(cells)}\n"


YOLO = Format(
    title="YOLO-pose",
    coordinates="continuous",
    recognises=lambda source: _find_config(source) is not None,
    read=read,
    write=write,
    parts="inside",
    skeletons="one",
    image_folder="images",
    place_image=lambda split, parts: Path(split or "train", *parts),
    label_file=_label_path,
)
