"""Write pre-annotations for Label Studio."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from keypoint_detection.conversion.label_set import Category, Instance, LabelledImage, LabelSet
from keypoint_detection.conversion.label_studio.images import CONFIG_NAME
from keypoint_detection.types import NOT_LABELLED, OCCLUDED

LOCAL_FILES = "/data/local-files/"

# Diameter of the displayed points, as a percentage of the image's width.
POINT_PERCENT = 0.5


def write(labels: LabelSet, folder: Path) -> list[str]:
    """Write tasks.json with pre-annotations and a matching labelling config; images/ already exists.

    Returns:
        Notes on what the file does not contain, and on how to import it.
    """
    tasks = []
    for number, image in enumerate(labels.images, start=1):
        assert image.path is not None
        relative = image.path.absolute().relative_to(folder.absolute()).as_posix()
        result: list[dict[str, Any]] = []
        for instance in image.instances:
            result += _describe(instance, image, labels.categories, f"{number}-{len(result)}")
        prediction = {"model_version": "kpd", "result": result}
        address = f"{LOCAL_FILES}?d={quote(relative)}"
        tasks.append({"id": number, "data": {"image": address}, "predictions": [prediction]})
    text = json.dumps(tasks, ensure_ascii=False, allow_nan=False)
    (folder / "tasks.json").write_text(text + "\n", encoding="utf-8")
    root = ElementTree.Element("View")
    ElementTree.SubElement(root, "Image", name="image", value="$image")
    boxes = ElementTree.SubElement(root, "RectangleLabels", name="category", toName="image")
    points = ElementTree.SubElement(root, "KeyPointLabels", name="keypoint", toName="image")
    choices = ElementTree.SubElement(root, "Choices", name="visibility", toName="image", perRegion="true")
    ElementTree.SubElement(choices, "Choice", value="occluded")
    for category in labels.categories:
        ElementTree.SubElement(boxes, "Label", value=category.name)
    for name in dict.fromkeys(name for category in labels.categories for name in category.keypoints):
        ElementTree.SubElement(points, "Label", value=name)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(folder / CONFIG_NAME, encoding="utf-8")
    return [
        f"Set up a Label Studio project with {CONFIG_NAME}, add {folder.absolute() / 'images'} as local storage, with "
        f"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.absolute()}"
        ", and import tasks.json."
    ]


def _describe(instance: Instance, image: LabelledImage, categories: list[Category], key: str) -> list[dict[str, Any]]:
    """Make a rectangle around an instance, and its points with the rectangle as their parent."""
    height, width = image.size
    frame = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    category = categories[instance.category]
    left, top, box_width, box_height = instance.enclose()
    value: dict[str, Any] = {"x": left / width * 100, "y": top / height * 100, "rotation": 0}
    value |= {"width": box_width / width * 100, "height": box_height / height * 100, "rectanglelabels": [category.name]}
    result: list[dict[str, Any]] = [
        {"id": key, "from_name": "category", "type": "rectanglelabels", "value": value, **frame}
    ]
    for index, (x, y) in enumerate(instance.points.tolist()):
        visibility = instance.visibility[index]
        if visibility == NOT_LABELLED:
            continue
        place = {"x": x / width * 100, "y": y / height * 100, "width": POINT_PERCENT}
        entry = {"id": f"{key}-{index}", "parentID": key, **frame}
        labelled = {**place, "keypointlabels": [category.keypoints[index]]}
        result.append({**entry, "from_name": "keypoint", "type": "keypointlabels", "value": labelled})
        if visibility == OCCLUDED:
            chosen = {**place, "choices": ["occluded"]}
            result.append({**entry, "from_name": "visibility", "type": "choices", "value": chosen})
    return result
