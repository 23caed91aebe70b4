"""CVAT for images 1.1: one XML file with the points of all images.

Skeletons (one category each) and single points, whose label is a keypoint type, are read; points with the same
`group_id` are one object. A point that is `outside` is not labelled, one that is `occluded` has v=1. Coordinates are
continuous.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from keypoint_detection.conversion.image_finder import ImageFinder
from keypoint_detection.conversion.label_set import (
    Category,
    Format,
    Instance,
    LabelSet,
    Reading,
    make_instance,
    name_split,
    round_px,
)
from keypoint_detection.data.problems import Problems
from keypoint_detection.destinations import shorten_path
from keypoint_detection.types import NOT_LABELLED, OCCLUDED, VISIBLE, DataError

SUFFIX, FILE_NAME = ".xml", "annotations.xml"
# The category of points that do not belong to a skeleton.
LOOSE = "object"
# The folder of images that are in no subset.
DEFAULT_SUBSET = "default"


class _Point(NamedTuple):
    label: str
    x: float
    y: float
    visibility: int


def _is_cvat(source: Path) -> bool:
    """Whether this is an XML file, or the folder of a CVAT export."""
    return source.suffix.lower() == SUFFIX or (source / FILE_NAME).is_file()


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a CVAT XML file, or the unpacked folder of an export.

    Raises:
        DataError: it is not a CVAT for images file, is broken, or its images are missing.
    """
    path = source / FILE_NAME if source.is_dir() else source
    root = _parse(path)
    problems = Problems()
    folder = path.parent
    roots = [reading.image_root] if reading.image_root else [folder, folder / "images"]
    names = _name_images(root, roots)
    finder = ImageFinder(roots, [[name] for name in names], reading.bound_images(path), reading, problems)
    categories = _read_categories(root, reading.keypoints)
    if len({element.get("task_id") for element in root.findall("image")}) > 1:
        finder.advice = (
            "Put the images of each task in a folder named after its id (1/, 2/), and give the folder above as "
            "--image_root; or export the tasks one by one."
        )
    images = []
    n_others: Counter[str] = Counter()
    for element, name in zip(root.findall("image"), names, strict=True):
        # Tasks of a project may have images of equal names.
        names_of_image = (element.get("task_id"), element.get("subset"), element.get("name"))
        size = (element.get("height"), element.get("width"))
        image = finder.find([name], size, "/".join(filter(None, names_of_image)))
        instances = _read_shapes(element, categories, problems)
        n_others.update(shape.tag for shape in element if shape.tag not in ("skeleton", "points", "tag"))
        if image is not None:
            image.instances = instances
            image.split = name_split(element.get("subset", ""))
            images.append(image)
    notes = finder.conclude()
    problems.raise_if_any(path)
    # Labels of points that were never drawn outside a skeleton.
    if categories and not categories[-1].keypoints:
        categories.pop()
    notes += [f"Shapes of the kind {kind!r} are left out: {count}." for kind, count in n_others.items()]
    return LabelSet(categories, images, notes)


def _name_images(root: ElementTree.Element, roots: Sequence[Path]) -> list[str]:
    """Name the file of each image; the export of a project keeps the images of each subset in a folder."""
    plain = [element.get("name", "") for element in root.findall("image")]
    subsets = [element.get("subset") or DEFAULT_SUBSET for element in root.findall("image")]
    below = [f"{subset}/{name}" for subset, name in zip(subsets, plain, strict=True)]
    has_folders = any((place / subset).is_dir() for place in roots for subset in set(subsets))
    is_below, is_plain = (
        any((place / name).is_file() for place in roots for name in names) for names in (below, plain)
    )
    tasks = [element.get("task_id") or "" for element in root.findall("image")]
    by_task = [f"{task}/{name}" for task, name in zip(tasks, plain, strict=True)]
    if len(set(tasks)) > 1 and any((place / name).is_file() for place in roots for name in by_task):
        return by_task
    return below if has_folders and (is_below or not is_plain) else plain


def _parse(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected a CVAT XML file.") from error
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not valid XML ({error}); expected a CVAT for images 1.1 file.") from error
    if root.tag != "annotations":
        raise DataError(f"{path}: begins with <{root.tag}>; a CVAT file begins with <annotations>.")
    if root.find("track") is not None:
        raise DataError(f"{path}: is a CVAT for video file (it has tracks); export it again as 'CVAT for images 1.1'.")
    if root.find("image") is None:
        raise DataError(f"{path}: has no <image>; expected a CVAT for images 1.1 file.")
    return root


def _read_categories(root: ElementTree.Element, keypoints: list[str]) -> list[Category]:
    """Read the skeletons that the task declares; undeclared ones are taken from the shapes, in order."""
    categories: dict[str, Category] = {}
    loose = Category(LOOSE, list(keypoints))
    for label in root.iter("label"):
        name, kind, parent = (label.findtext(tag) or "" for tag in ("name", "type", "parent"))
        if parent:
            categories.setdefault(parent, Category(parent, [])).keypoints.append(name)
        elif kind == "skeleton":
            categories.setdefault(name, Category(name, []))
        elif kind == "points" and name not in loose.keypoints and not keypoints:
            loose.keypoints.append(name)
    for skeleton in root.iter("skeleton"):
        name = skeleton.get("label", "")
        names = categories.setdefault(name, Category(name, [])).keypoints
        names += [new for point in skeleton.iter("points") if (new := point.get("label", "")) not in names]
    for image in root.iter("image"):
        for point in image.findall("points"):
            if (name := point.get("label", "")) not in loose.keypoints:
                loose.keypoints.append(name)
    if not any(image.find("points") is not None for image in root.iter("image")) and categories:
        loose.keypoints = []
    _read_edges(root, categories)
    return [*(one for one in categories.values() if one.keypoints), loose]


def _read_edges(root: ElementTree.Element, categories: dict[str, Category]) -> None:
    """Read the edges of a skeleton from its drawing, in which they join numbered nodes."""
    for label in root.iter("label"):
        category, drawing = categories.get(label.findtext("name") or ""), label.findtext("svg")
        if category is None or not drawing or label.findtext("parent"):
            continue
        try:
            svg = ElementTree.fromstring(f"<svg>{drawing}</svg>")
        except ElementTree.ParseError:
            continue
        nodes = {one.get("data-node-id"): one.get("data-label-name") for one in svg.iter("circle")}
        for line in svg.iter("line"):
            ends = [nodes.get(line.get(f"data-node-{end}")) for end in ("from", "to")]
            if ends[0] in category.keypoints and ends[1] in category.keypoints:
                category.skeleton.append((category.keypoints.index(ends[0]), category.keypoints.index(ends[1])))


def _read_shapes(image: ElementTree.Element, categories: list[Category], problems: Problems) -> list[Instance]:
    indices = {category.name: index for index, category in enumerate(categories[:-1])}
    instances = []
    for skeleton in image.findall("skeleton"):
        index = indices.get(skeleton.get("label", ""))
        if index is None:  # neither the task nor a shape gives this skeleton any points
            continue
        instance = make_instance(index, len(categories[index].keypoints))
        for element in skeleton.findall("points"):
            for point in _read_points(element, image, problems):
                _place(instance, categories[index].keypoints.index(point.label), point)
        instances.append(instance)
    return instances + _gather_loose(image, len(categories) - 1, categories[-1].keypoints, problems)


def _gather_loose(
    image: ElementTree.Element, category: int, keypoints: list[str], problems: Problems
) -> list[Instance]:
    """Make objects of points outside skeletons: by group, or the n-th point of every label goes to the n-th object."""
    instances: dict[tuple[str, int], Instance] = {}
    n_seen: Counter[tuple[str, str]] = Counter()
    for element in image.findall("points"):
        group = element.get("group_id", "0")
        for point in _read_points(element, image, problems):
            key = (group, n_seen[group, point.label])
            n_seen[group, point.label] += 1
            instance = instances.setdefault(key, make_instance(category, len(keypoints)))
            _place(instance, keypoints.index(point.label), point)
    return list(instances.values())


def _read_points(element: ElementTree.Element, image: ElementTree.Element, problems: Problems) -> list[_Point]:
    label, text = element.get("label", ""), element.get("points", "")
    visibility = OCCLUDED if element.get("occluded") == "1" else VISIBLE
    visibility = NOT_LABELLED if element.get("outside") == "1" else visibility
    try:
        pairs = [[float(value) for value in pair.split(",")] for pair in text.split(";")]
    except ValueError:
        pairs = []
    if not pairs or any(len(pair) != 2 or not np.isfinite(pair).all() for pair in pairs):
        if visibility != NOT_LABELLED:
            problems.add(
                "points", f"image {image.get('name')!r}: {label!r} has points={text!r:.60}; 'x,y' is expected."
            )
        return []
    return [_Point(label, x, y, visibility) for x, y in pairs]


def _place(instance: Instance, keypoint: int, point: _Point) -> None:
    instance.visibility[keypoint] = point.visibility
    if point.visibility != NOT_LABELLED:
        instance.points[keypoint] = point.x, point.y


def write(labels: LabelSet, output: Path) -> list[str]:
    """Write an XML file for CVAT, in which every category is a skeleton; a folder gets an annotations.xml.

    Raises:
        DataError: two images have one name.
    """
    path = output if output.suffix.lower() == SUFFIX else output / FILE_NAME
    taken: dict[tuple[str, str], Path | None] = {}
    for image in labels.images:
        other = taken.setdefault((image.split, image.name), image.path)
        if other != image.path:
            raise DataError(
                f"{image.path} and {other} would both be called {image.name!r:.120}; convert them one by one, or "
                "rename one."
            )
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for tag, text in (("name", output.stem), ("size", str(len(labels.images))), ("mode", "annotation")):
        ElementTree.SubElement(task, tag).text = text
    entries = ElementTree.SubElement(task, "labels")
    for category in labels.categories:
        _declare(entries, category)
    for number, image in enumerate(labels.images):
        height, width = image.size
        attributes = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
        if image.split:
            attributes["subset"] = image.split
        element = ElementTree.SubElement(root, "image", attributes)
        for instance in image.instances:
            _write_skeleton(element, instance, labels.categories[instance.category])
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    folders = {
        image.path.absolute().parents[image.name.count("/")]
        for image in labels.images
        if image.path is not None and image.path.as_posix().endswith(image.name)
    }
    where = shorten_path(folders.pop()) if len(folders) == 1 else "FOLDER_OF_THE_IMAGES"
    return [
        "The images stay where they are: in CVAT, create a task from them, then upload this file as annotations in "
        f"the format CVAT 1.1. `kpd convert` reads it with `--image_root={where}`."
    ]


def _declare(entries: ElementTree.Element, category: Category) -> None:
    """Declare a skeleton and its points, with a drawing in which the points are on a circle."""
    angles = 2 * np.pi * np.arange(len(category.keypoints)) / len(category.keypoints)
    # As percentages of the drawing.
    xs, ys = (50 + 40 * np.sin(angles)).round(2).tolist(), (50 - 40 * np.cos(angles)).round(2).tolist()
    drawing = ElementTree.Element("svg")
    for a, b in category.skeleton:
        ends = {"x1": xs[a], "y1": ys[a], "x2": xs[b], "y2": ys[b], "data-node-from": a + 1, "data-node-to": b + 1}
        attributes = {"data-type": "edge", **{key: str(value) for key, value in ends.items()}}
        ElementTree.SubElement(drawing, "line", attributes)
    for index, keypoint in enumerate(category.keypoints):
        place = {"cx": str(xs[index]), "cy": str(ys[index]), "r": "0.75", "data-type": "element node"}
        ids = {"data-element-id": str(index + 1), "data-node-id": str(index + 1), "data-label-name": keypoint}
        ElementTree.SubElement(drawing, "circle", place | ids)
    label = ElementTree.SubElement(entries, "label")
    ElementTree.SubElement(label, "name").text = category.name
    ElementTree.SubElement(label, "type").text = "skeleton"
    ElementTree.SubElement(label, "attributes")
    ElementTree.SubElement(label, "svg").text = "".join(ElementTree.tostring(one, "unicode") for one in drawing)
    for keypoint in category.keypoints:
        label = ElementTree.SubElement(entries, "label")
        ElementTree.SubElement(label, "name").text = keypoint
        ElementTree.SubElement(label, "type").text = "points"
        ElementTree.SubElement(label, "attributes")
        ElementTree.SubElement(label, "parent").text = category.name


def _write_skeleton(image: ElementTree.Element, instance: Instance, category: Category) -> None:
    if not instance.is_labelled.any():
        return
    skeleton = ElementTree.SubElement(image, "skeleton", {"label": category.name, "source": "manual", "z_order": "0"})
    for keypoint, (x, y), visibility in zip(
        category.keypoints, instance.points.tolist(), instance.visibility.tolist(), strict=True
    ):
        attributes = {"label": keypoint, "source": "manual", "outside": str(int(visibility == NOT_LABELLED))}
        attributes |= {"occluded": str(int(visibility == OCCLUDED)), "points": f"{round_px(x)},{round_px(y)}"}
        ElementTree.SubElement(skeleton, "points", attributes)


CVAT = Format(
    title="CVAT for images 1.1",
    coordinates="continuous",
    recognises=_is_cvat,
    read=read,
    write=write,
    output_suffix=SUFFIX,
    parts="inside",
    has_equal_names=False,
)
