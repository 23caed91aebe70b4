"""Images and label files for the tests of conversions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.conversion.formats import find_format, read_labels
from keypoint_detection.conversion.label_set import LabelSet, Reading
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Write a grey image below the test's folder."""

    def write(name: str, size: tuple[int, int] = (40, 80)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], (90, 90, 90)).save(path)
        return path

    return write


@pytest.fixture
def read() -> Callable[..., LabelSet]:
    """Read labels of any format, in continuous coordinates."""

    def read_any(
        source: Path,
        keypoints: list[str] | None = None,
        image_root: Path | None = None,
        missing_images: MissingImages = "error",
        outside_images: OutsideImages = "error",
    ) -> LabelSet:
        reading = Reading(image_root, keypoints or [], missing_images, outside_images)
        return read_labels(source, find_format(source), reading, None)

    return read_any


@pytest.fixture
def mice(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """A COCO file with two mice in one image, one in another, and an empty image; a point is occluded, one missing."""
    points = [
        [[10.25, 20.5, 2], [30.125, 5.0, 1]],
        [[60.0, 33.3333, 2], [0, 0, 0]],
        [[11.0, 12.0, 2], [13.0, 14.5, 2]],
    ]
    annotations: list[dict[str, Any]] = [
        {"id": number, "image_id": image, "category_id": 7, "keypoints": np.ravel(triples).tolist()}
        for number, (image, triples) in enumerate(zip([3, 3, 4], points, strict=True))
    ]
    annotations[2]["bbox"] = [5.0, 6.0, 20.0, 30.0]
    names = {3: "images/a/0.png", 4: "images/b/0.png", 5: "images/b/1.png"}
    for name in names.values():
        draw(f"coco/{name}")
    content = {
        "images": [{"id": key, "file_name": name, "height": 40, "width": 80} for key, name in names.items()],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "mouse", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}],
    }
    path = tmp_path / "coco" / "mice.json"
    path.write_text(json.dumps(content))
    return path
