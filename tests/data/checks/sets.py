"""Small data sets on disk, right in everything that a test does not break."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keypoint_detection.data.checks.audit import Audit, DataDescription, audit
from keypoint_detection.data.checks.parts import Requirements

DEMANDS = Requirements(None, "letterbox", False, 20, 2.0)


def draw(seed: int, size: tuple[int, int] = (60, 80), spot: tuple[float, float] | None = None) -> np.ndarray:
    """Random blocks of 10 px, as different from one seed to the next as photographs are; a white spot on demand."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-size[0] // 10), -(-size[1] // 10), 3), dtype=np.uint8)
    pixels = blocks.repeat(10, axis=0).repeat(10, axis=1)[: size[0], : size[1]].copy()
    if spot is not None:
        x, y = map(int, spot)
        pixels[max(0, y - 4) : y + 4, max(0, x - 4) : x + 4] = 255
    return pixels


def write_set(
    folder: Path, images: Mapping[str, np.ndarray], points: Mapping[str, list[list[float]]] | None = None
) -> Path:
    """Write images and a COCO file with one annotation (nose, tail) an image; (10, 10) and (40, 30) by default."""
    entries: list[dict[str, Any]] = []
    annotations = []
    for number, (name, pixels) in enumerate(images.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
        height, width = pixels.shape[:2]
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        labels = (points or {}).get(name, [[10, 10], [40, 30]])
        values = [value for x, y in labels for value in (x, y, 2)]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "keypoints": values, "num_keypoints": len(labels)}
        )
    return write_json(folder / "data.json", entries, annotations)


def write_json(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> Path:
    categories = [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"]}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def run_audit(files: Path | Mapping[str, Path], requirements: Requirements = DEMANDS, **changed: Any) -> Audit:
    named = {"": files} if isinstance(files, Path) else files
    data = DataDescription(named, None, "continuous", None, None, requirements, None, "error", "error")
    return audit(data._replace(**changed), lambda scans, n_images: scans)


def kinds(audit: Audit, *levels: str) -> dict[str, int]:
    """How many of each kind were found, on some levels; errors and warnings by default."""
    return {one.kind: one.count for one in audit.findings if one.level in (levels or ("error", "warning"))}
