"""Label Studio: its JSON export (not JSON-MIN), and pre-annotations to import.

Keypoints are `keypointlabels`, objects `rectanglelabels` whose label is the category. A keypoint belongs to the
rectangle that is its parent (`parentID`), that it has a relation to, or, failing both, the only one around it. Without
rectangles, the n-th point of every label belongs to the n-th object, of the category `object`. A point whose region has
a choice or a text like "occluded" has v=1, others v=2. Coordinates are in percent of the image's width and height,
hence continuous.

A task may have several images: `to_name` names the object tag that a region is on, which shows one entry of `data`, and
`item_index` the page if that is a list.

The order of the keypoints is that of `label_config.xml` beside the export, if there is one, otherwise of `--keypoints`,
otherwise the order of their first appearance.

https://labelstud.io/guide/task_format. sleap-io reads only tasks made from its own videos, and returns the keypoints in
an order that changes with every run.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree

from keypoint_detection.conversion.image_finder import ImageFinder
from keypoint_detection.conversion.label_set import (
    Category,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
)
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.image_bounds import ImageBounds
from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_json
from keypoint_detection.images import IMAGE_SUFFIXES
from keypoint_detection.types import OCCLUDED, VISIBLE, DataError

CONFIG_NAME = "label_config.xml"
LOOSE = "object"
OCCLUDED_WORDS = re.compile(r"occlu|hidden|invisible|not visible", re.IGNORECASE)
# Uploaded files get a prefix of eight hexadecimal digits and a hyphen.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
LOCAL_FILES = "/data/local-files/"
UPLOAD_FOLDER = re.compile(r"^/?data/upload/(\d+/)?")
IMAGE_NAME = re.compile(rf"({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})$", re.IGNORECASE)
# What regions that cannot be used are counted as.
WITHOUT_PLACE = "without a place in the image"
WITHOUT_LABEL = "without a label"


@dataclass
class _Region:
    """One drawn region; coordinates are in percent. Regions of files made by hand may have no key, or the same."""

    key: str
    labels: list[str]
    x: float
    y: float
    extent: tuple[float, float] | None = None
    visibility: int = VISIBLE
    parent: str = ""


class _View(NamedTuple):
    """An image of a task: its address, and the regions drawn on it."""

    address: str
    result: list[dict[str, Any]]


@dataclass
class _Object:
    category: str
    rectangle: _Region | None = None
    points: dict[str, _Region] = field(default_factory=dict)


def looks_like_label_studio(content: Any) -> bool:
    """Whether this is the content of an export."""
    return isinstance(content, list) and bool(content) and all(isinstance(one, dict) for one in content)


def read_label_studio(source: Path, reading: Reading) -> LabelSet:
    """Read a JSON export of Label Studio; of a task with several annotations, the ground truth or the first.

    Raises:
        DataError: it is not such an export, is broken, or its images are missing.
    """
    tasks = _load(source)
    key = "annotations" if any(task.get("annotations") for task in tasks) else "predictions"
    problems = Problems()
    others: Counter[str] = Counter()
    chosen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    n_skipped = n_several = 0
    for task in tasks:
        try:
            kept = [one for one in task.get(key) or [] if not one.get("was_cancelled")]
        except (AttributeError, TypeError) as error:
            problems.add("layout", _describe_layout(task, error))
            continue
        n_skipped += not kept
        n_several += len(kept) > 1
        if kept:
            chosen.append((task, next((one for one in kept if one.get("ground_truth")), kept[0])))
    tags = _read_tags(source.parent / CONFIG_NAME)
    results = [one.get("result") or [] for _, one in chosen]
    entries = [one for result in results if isinstance(result, list) for one in result if isinstance(one, dict)]
    used = list(dict.fromkeys(str(one["to_name"]) for one in entries if one.get("to_name")))
    views = [(task, view) for task, one in chosen for view in _list_views(task, one, tags, used, problems)]
    roots = [reading.image_root] if reading.image_root else [source.parent, *source.absolute().parents]
    bounds = ImageBounds.of_file(source, reading.image_root, reading.outside_images)
    finder = ImageFinder(roots, [_list_names(view.address) for _, view in views], bounds, reading, problems)
    found: list[tuple[LabelledImage, list[_Object]]] = []
    reshaped: list[str] = []
    for task, view in views:
        try:
            image = finder.find(_list_names(view.address))
            objects = _read_objects(view.result, task, problems, others)
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            problems.add("layout", _describe_layout(task, error))
            continue
        if image is not None:
            found.append((image, objects))
            reshaped += _check_size(task, view.result, image, problems)
    notes = finder.conclude()
    problems.raise_if_any(source)
    if not found:
        raise DataError(f"{source}: no task is labelled.")
    if reshaped:
        images = count_in_words(len(reshaped), "image has", "images have")
        notes.append(f"{images} another shape than when labelled, e.g. {reshaped[0]}. Draw the points on some to see.")
    categories = _collect_categories([objects for _, objects in found], source, reading.keypoints)
    for image, objects in found:
        image.instances = _make_instances(objects, image.size, categories)
    left_out = {reason: others.pop(reason) for reason in (WITHOUT_PLACE, WITHOUT_LABEL) if reason in others}
    notes += [f"Regions of the kind {kind!r} are left out: {count}." for kind, count in others.items()]
    notes += [f"Left out, as {reason}: {count_in_words(count, 'region')}." for reason, count in left_out.items()]
    notes += [f"Left out, as not labelled or skipped: {count_in_words(n_skipped, 'task')}."] if n_skipped else []
    if n_several:
        several = count_in_words(n_several, "task has", "tasks have")
        notes.append(f"{several} several annotations; the ground truth or the first is read.")
    notes += ["The file has no annotations: its predictions are read."] if key == "predictions" else []
    return LabelSet(categories, [image for image, _ in found], notes)


def _load(path: Path) -> list[dict[str, Any]]:
    content = read_json(path, "a JSON export from Label Studio")
    if not looks_like_label_studio(content):
        raise DataError(f"{path}: is not a list of tasks; expected a JSON export from Label Studio.")
    if not any("annotations" in task or "predictions" in task for task in content):
        raise DataError(f"{path}: no task has 'annotations'. Is this JSON-MIN? Export again as JSON.")
    tasks: list[dict[str, Any]] = content
    return tasks


def _describe_layout(task: dict[str, Any], error: Exception) -> str:
    return f"task {task.get('id')} is not laid out as in a Label Studio export ({error})."


def _read_tags(path: Path) -> dict[str, str]:
    """Read which entry of `data` each image tag of a labelling config shows."""
    root = _read_config(path)
    tags = [] if root is None else root.iter("Image")
    found = {tag.get("name", ""): tag.get("value") or tag.get("valueList") or "" for tag in tags}
    return {name: value.removeprefix("$") for name, value in found.items() if value.startswith("$")}


def _list_views(
    task: dict[str, Any], annotation: dict[str, Any], tags: dict[str, str], used: list[str], problems: Problems
) -> Iterator[_View]:
    """List the images of a task that were labelled, with their regions; problems are recorded."""
    try:
        result = annotation.get("result") or []
        data = {key: pages for key, value in (task.get("data") or {}).items() if (pages := _list_pages(key, value))}
        names = list(dict.fromkeys(str(one["to_name"]) for one in result if one.get("to_name")))
        where = f"task {task.get('id')}: 'data'"
        if not data:
            problems.add("no image", f"{where} names no image: {task.get('data')!r:.80}.")
            return
        shown = {name: tags.get(name, name) for name in names or list(tags) or used or ["image"]}
        # Many data have the name of their image once more.
        is_one = len({_list_names(pages[0])[-1].rpartition("/")[2] for pages in data.values()}) == 1
        if len(shown) == 1 and is_one and not set(shown.values()) & set(data):
            shown = dict.fromkeys(shown, "image" if "image" in data else next(iter(data)))
        shown |= {name: key for name, key in tags.items() if key in data}
        unknown = [name for name, key in shown.items() if key not in data]
        if unknown:
            problems.add(
                "several images",
                f"{where} has the images {', '.join(data)}, and it is not known which of them {', '.join(unknown)} "
                f"shows: save the labelling config as {CONFIG_NAME} beside the export.",
            )
            return
        first = next(iter(shown.values()))
        for region in result:
            page, n_pages = int(region.get("item_index") or 0), len(data[shown.get(str(region.get("to_name")), first)])
            if page >= n_pages:
                count = count_in_words(n_pages, "page")
                problems.add("page", f"{where} has {count}; a region is on page {page}, counted from 0.")
        ids = {str(one.get("id")): str(one.get("to_name")) for one in result if one.get("to_name")}
        for name, key in shown.items():
            for index, address in enumerate(data[key]):
                yield _View(address, [one for one in result if _is_on(one, name, index, ids, len(shown) == 1)])
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        problems.add("layout", _describe_layout(task, error))


def _is_on(entry: dict[str, Any], name: str, index: int, ids: dict[str, str], is_only: bool) -> bool:
    """Whether an entry is on a page of an image; relations are on that of what they relate."""
    to_name = str(entry.get("to_name") or ids.get(str(entry.get("from_id"))) or "")
    if entry.get("type") == "relation":
        return is_only or to_name == name
    return (is_only or to_name == name) and int(entry.get("item_index") or 0) == index


def _check_size(
    task: dict[str, Any], result: list[dict[str, Any]], image: LabelledImage, problems: Problems
) -> list[str]:
    """Record an image that was labelled on its side; return what to say of one of another shape.

    Browsers show images as their EXIF rotation says, so the size in an export is the size as shown. Points are
    percentages, so another scale does not matter.
    """
    height, width = image.size
    for entry in result:
        old_height, old_width = entry.get("original_height"), entry.get("original_width")
        if not (isinstance(old_height, int) and isinstance(old_width, int) and old_height > 0 and old_width > 0):
            continue
        tolerance = max(height, width, old_height, old_width)  # of sides that were rounded
        if abs(old_height * width - old_width * height) <= tolerance:
            return []
        if abs(old_height * height - old_width * width) <= tolerance:
            problems.add(
                "on its side",
                f"task {task.get('id')}: the labels are for {old_height}x{old_width} (height x width), {image.path} is "
                f"shown with {height}x{width}. If the points fit the image on its side, remove the EXIF rotation from "
                "the file; if they fit it upright, swap original_width and original_height.",
            )
            return []
        return [f"{image.path}, {old_height}x{old_width} (height x width) then and {height}x{width} now"]
    return []


def _list_pages(key: str, value: Any) -> list[str]:
    """List the addresses of images that an entry of `data` has; one called `image` may have names of any kind."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str) and one for one in values):
        return []
    is_image = key == "image" or all(IMAGE_NAME.search(name) for one in values for name in _list_names(one)[:1])
    return values if is_image else []


def _list_names(address: str) -> list[str]:
    """List the names that the file at an address may have, the likeliest first.

    Label Studio encodes addresses; people who write tasks by hand leave `#`, `%` and `+` as they are.
    """
    parsed = urlparse(address)
    query = parse_qs(parsed.query)
    if "fileuri" in query:  # of a cloud storage, signed when the image is shown
        uri = query["fileuri"][0].replace(" ", "+").translate(str.maketrans("-_", "+/"))
        try:
            address = base64.b64decode(uri + "=" * (-len(uri) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            address = uri
        parsed, query = urlparse(address), {}
    local = query.get("d")
    has_scheme = "://" in address
    raw = address.partition("?d=")[2] if local else address.partition("://")[2] if has_scheme else address
    decoded = local[0] if local else unquote(parsed.path if has_scheme else address)
    names: list[str] = []
    for name in (decoded, raw):
        short = UPLOAD_FOLDER.sub("", name)
        folder, _, last = short.rpartition("/")
        names += [name.lstrip("/") if has_scheme else name, short]
        names.append(f"{folder}/{UPLOAD_PREFIX.sub('', last)}".lstrip("/"))
    return list(dict.fromkeys(names))


def _read_objects(
    result: list[dict[str, Any]], task: dict[str, Any], problems: Problems, others: Counter[str]
) -> list[_Object]:
    rectangles: dict[str, _Region] = {}
    points: list[_Region] = []
    for entry in result:
        kind, value = entry.get("type"), entry.get("value") or {}
        if kind in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle"):
            region = _read_region(entry, value, task, problems, others)
            if region is not None and region.extent is None:
                points.append(region)
            elif region is not None:
                is_new = region.key and region.key not in rectangles
                rectangles[region.key if is_new else f"{region.key} #{len(rectangles)}"] = region
        elif kind not in ("relation", "choices", "labels", "textarea"):
            others[str(kind)] += 1
    for entry in result:
        _apply_to_regions(entry, points, rectangles)
    others.update(WITHOUT_LABEL for point in points if not point.labels)
    for one in rectangles.values():
        if len(one.labels) > 1:
            named = ", ".join(one.labels)
            problems.add(
                "labels", f"task {task.get('id')}, region {one.key}: is a rectangle labelled {named}; one is expected."
            )
    return _gather(points, rectangles)


def _read_region(
    entry: dict[str, Any], value: dict[str, Any], task: dict[str, Any], problems: Problems, others: Counter[str]
) -> _Region | None:
    labels: Any = next((value[key] for key in ("keypointlabels", "rectanglelabels", "labels") if value.get(key)), [])
    x, y = value.get("x"), value.get("y")
    where = f"task {task.get('id')}, region {entry.get('id')}"
    if x is None and y is None:  # a prompt of an automatic labeller
        others[WITHOUT_PLACE] += 1
        return None
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        problems.add("place", f"{where}: x is {x!r} and y is {y!r}; percentages of the image's size are expected.")
        return None
    if entry.get("image_rotation"):
        problems.add("rotated", f"{where}: the image was rotated in Label Studio; rotate the file and label it again.")
        return None
    is_box = str(entry.get("type")).startswith("rectangle")
    texts = (entry.get("meta") or {}).get("text") or []
    is_occluded = any(OCCLUDED_WORDS.search(str(text)) for text in (texts if isinstance(texts, list) else [texts]))
    return _Region(
        _read_key(entry, "id"),
        _list_labels(labels),
        float(x),
        float(y),
        (float(value.get("width") or 0), float(value.get("height") or 0)) if is_box else None,
        OCCLUDED if is_occluded else VISIBLE,
        _read_key(entry, "parentID"),
    )


def _read_key(entry: dict[str, Any], name: str) -> str:
    return "" if entry.get(name) is None else str(entry[name])


def _list_labels(labels: Any) -> list[str]:
    """List the labels of a region, of which a point may have several: it is then one of each type."""
    listed = labels if isinstance(labels, list) else [labels]
    return list(dict.fromkeys(str(one) for one in listed if one not in (None, "")))


def _apply_to_regions(entry: dict[str, Any], points: list[_Region], rectangles: dict[str, _Region]) -> None:
    """Apply relations, choices and labels, which are separate entries, to their regions."""
    kind, value = entry.get("type"), entry.get("value") or {}
    if kind == "relation":
        ends = _read_key(entry, "from_id"), _read_key(entry, "to_id")
        for point in points:
            for key, rectangle in (ends, ends[::-1]):
                if key and point.key == key and rectangle in rectangles:
                    point.parent = rectangle
    key = _read_key(entry, "id")
    for region in (one for one in (*points, *rectangles.values()) if key and one.key == key):
        if kind == "labels" and value.get("labels"):
            region.labels = _list_labels(value["labels"])
        if kind == "choices" and any(map(OCCLUDED_WORDS.search, map(str, value.get("choices") or []))):
            region.visibility = OCCLUDED


def _gather(points: list[_Region], rectangles: dict[str, _Region]) -> list[_Object]:
    categories = {key: one.labels[0] if one.labels else LOOSE for key, one in rectangles.items()}
    objects = {(key, 0): _Object(categories[key], one) for key, one in rectangles.items()}
    n_seen: Counter[tuple[str, str]] = Counter()
    for point, label in [(one, label) for one in points for label in one.labels]:
        parent = point.parent if point.parent in rectangles else _find_rectangle(point, rectangles)
        key = (parent, n_seen[parent, label])
        n_seen[parent, label] += 1
        objects.setdefault(key, _Object(categories.get(parent, LOOSE))).points[label] = point
    return list(objects.values())


def _find_rectangle(point: _Region, rectangles: dict[str, _Region]) -> str:
    """Return the name of the only rectangle around a point, or an empty one."""
    around = [
        key
        for key, one in rectangles.items()
        if one.extent and 0 <= point.x - one.x <= one.extent[0] and 0 <= point.y - one.y <= one.extent[1]
    ]
    return around[0] if len(around) == 1 else ""


def _collect_categories(images: list[list[_Object]], source: Path, keypoints: list[str]) -> list[Category]:
    order = keypoints or _read_order(source.parent / CONFIG_NAME)
    names: dict[str, list[str]] = {}
    for one in (one for objects in images for one in objects):
        known = names.setdefault(one.category, [])
        known += [label for label in one.points if label not in known]
    unknown = sorted({label for labels in names.values() for label in labels} - set(order))
    if keypoints and unknown:
        raise DataError(
            f"{source}: also has the keypoints {', '.join(unknown)}; keypoints names {', '.join(keypoints)}."
        )
    if sum(bool(labels) for labels in names.values()) == 1:
        # What has not been drawn yet is still a keypoint of the only category.
        names = {name: list(dict.fromkeys([*order, *labels])) for name, labels in names.items() if labels}
    place = {label: index for index, label in enumerate([*order, *unknown])}
    return [
        Category(name, sorted(labels, key=lambda label: place[label]) if order else labels)
        for name, labels in names.items()
        if labels
    ]


def _read_config(path: Path) -> ElementTree.Element | None:
    """Read a labelling config, if there is one."""
    if not path.is_file():
        return None
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not valid XML ({error}); expected a Label Studio labelling config.") from error


def _read_order(path: Path) -> list[str]:
    """Read the order of the keypoints from a labelling config."""
    root = _read_config(path)
    if root is None:
        return []
    return [label.get("value", "") for tag in root.iter("KeyPointLabels") for label in tag.iter("Label")]


def _make_instances(objects: list[_Object], size: tuple[int, int], categories: list[Category]) -> list[Instance]:
    indices = {category.name: index for index, category in enumerate(categories)}
    height, width = size
    instances = []
    for one in objects:
        if one.category not in indices:  # rectangles without points
            continue
        index = indices[one.category]
        keypoints = categories[index].keypoints
        instance = make_instance(index, len(keypoints))
        for label, point in one.points.items():
            instance.points[keypoints.index(label)] = point.x * width / 100, point.y * height / 100
            instance.visibility[keypoints.index(label)] = point.visibility
        if one.rectangle is not None and one.rectangle.extent is not None:
            box, (box_width, box_height) = one.rectangle, one.rectangle.extent
            sides = (box.x * width, box.y * height, box_width * width, box_height * height)
            instance.box = (sides[0] / 100, sides[1] / 100, sides[2] / 100, sides[3] / 100)
        instances.append(instance)
    return instances
