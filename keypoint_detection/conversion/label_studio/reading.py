"""Read JSON exports of Label Studio."""

from collections import Counter
from pathlib import Path
from typing import Any

from keypoint_detection.conversion.image_finder import ImageFinder
from keypoint_detection.conversion.label_set import Category, Instance, LabelledImage, LabelSet, Reading, make_instance
from keypoint_detection.conversion.label_studio.images import (
    CONFIG_NAME,
    describe_layout,
    list_names,
    list_views,
    read_config,
    read_tags,
)
from keypoint_detection.conversion.label_studio.regions import WITHOUT_LABEL, WITHOUT_PLACE, DrawnObject, read_objects
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_json
from keypoint_detection.types import DataError


def is_label_studio(content: Any) -> bool:
    """Whether this is the content of an export."""
    return isinstance(content, list) and bool(content) and all(isinstance(one, dict) for one in content)


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a JSON export of Label Studio; if a task has several annotations, use the ground truth or the first.

    Raises:
        DataError: it is not such an export, is broken, or its images are missing.
    """
    tasks = _load(source)
    key = "annotations" if any(task.get("annotations") for task in tasks) else "predictions"
    problems = Problems()
    others: Counter[str] = Counter()
    chosen, notes_on_choice = _choose_annotations(tasks, key, problems)
    tags = read_tags(source.parent / CONFIG_NAME)
    results = [one.get("result") or [] for _, one in chosen]
    entries = [one for result in results if isinstance(result, list) for one in result if isinstance(one, dict)]
    used = list(dict.fromkeys(str(one["to_name"]) for one in entries if one.get("to_name")))
    views = [(task, view) for task, one in chosen for view in list_views(task, one, tags, used, problems)]
    names = [list_names(view.address) for _, view in views]
    roots = [source.parent, *source.absolute().parents]
    finder = ImageFinder(roots, names, reading.bound_images(source), reading, problems)
    found: list[tuple[LabelledImage, list[DrawnObject]]] = []
    reshaped: list[str] = []
    for task, view in views:
        try:
            image = finder.find(list_names(view.address))
            objects = read_objects(view.result, task, problems, others)
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            problems.add("layout", describe_layout(task, error))
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
        notes.append(
            f"{images} another shape than when labelled, e.g. {reshaped[0]}. To check, draw the points on some of them."
        )
    categories = _collect_categories([objects for _, objects in found], source, reading.keypoints)
    for image, objects in found:
        image.instances = _make_instances(objects, image.size, categories)
    left_out = {reason: others.pop(reason) for reason in (WITHOUT_PLACE, WITHOUT_LABEL) if reason in others}
    notes += [f"Regions of the kind {kind!r} are left out: {count}." for kind, count in others.items()]
    notes += [f"Left out: {count_in_words(count, 'region')} {reason}." for reason, count in left_out.items()]
    notes += notes_on_choice
    notes += ["The file has no annotations: its predictions are read."] if key == "predictions" else []
    return LabelSet(categories, [image for image, _ in found], notes)


def _load(path: Path) -> list[dict[str, Any]]:
    content = read_json(path, "a JSON export from Label Studio")
    if not is_label_studio(content):
        raise DataError(f"{path}: is not a list of tasks; expected a JSON export from Label Studio.")
    if not any("annotations" in task or "predictions" in task for task in content):
        raise DataError(f"{path}: no task has 'annotations'. Is this JSON-MIN? Export again as JSON.")
    tasks: list[dict[str, Any]] = content
    return tasks


def _choose_annotations(
    tasks: list[dict[str, Any]], key: str, problems: Problems
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[str]]:
    """Choose one annotation for each task that has any; return these tasks with it, and notes."""
    chosen = []
    n_skipped = n_several = 0
    for task in tasks:
        try:
            kept = [one for one in task.get(key) or [] if not one.get("was_cancelled")]
        except (AttributeError, TypeError) as error:
            problems.add("layout", describe_layout(task, error))
            continue
        n_skipped += not kept
        n_several += len(kept) > 1
        if kept:
            filled = [one for one in kept if one.get("result")] or kept
            chosen.append((task, next((one for one in kept if one.get("ground_truth")), filled[0])))
    notes = [f"Left out: {count_in_words(n_skipped, 'task')} not labelled or skipped."] if n_skipped else []
    if n_several:
        several = count_in_words(n_several, "task has", "tasks have")
        notes.append(f"{several} several annotations; the ground truth or the first with labels is read.")
    return chosen, notes


def _check_size(
    task: dict[str, Any], result: list[dict[str, Any]], image: LabelledImage, problems: Problems
) -> list[str]:
    """Record an image that was labelled on its side; return a note about one with a different aspect ratio.

    Browsers apply the EXIF rotation, so the size in an export is the size as shown. Points are percentages, so another
    scale does not matter.
    """
    height, width = image.size
    for entry in result:
        old_height, old_width = entry.get("original_height"), entry.get("original_width")
        if not (isinstance(old_height, int) and isinstance(old_width, int) and old_height > 0 and old_width > 0):
            continue
        tolerance = max(height, width, old_height, old_width)  # the sides may have been rounded
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


def _collect_categories(images: list[list[DrawnObject]], source: Path, keypoints: list[str]) -> list[Category]:
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
        # A label that has not been drawn yet is still a keypoint of the only category.
        names = {name: list(dict.fromkeys([*order, *labels])) for name, labels in names.items() if labels}
    place = {label: index for index, label in enumerate([*order, *unknown])}
    return [
        Category(name, sorted(labels, key=lambda label: place[label]) if order else labels)
        for name, labels in names.items()
        if labels
    ]


def _read_order(path: Path) -> list[str]:
    """Read the order of the keypoints from a labelling config."""
    root = read_config(path)
    if root is None:
        return []
    return [label.get("value", "") for tag in root.iter("KeyPointLabels") for label in tag.iter("Label")]


def _make_instances(objects: list[DrawnObject], size: tuple[int, int], categories: list[Category]) -> list[Instance]:
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
