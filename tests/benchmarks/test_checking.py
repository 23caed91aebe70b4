"""How many images of 640x480 the full check of a data set reads in a second.

Run alone on the machine: `pytest tests/benchmarks/test_checking.py -s`. Images are textured as photographs are: an
image of noise or of one colour takes another time to decode.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.data.checks.audit import DataDescription, audit
from keypoint_detection.data.checks.labels import check_channels, check_distances
from keypoint_detection.data.checks.parts import Requirements, make_part
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.splitting import SplitOptions
from keypoint_detection.images import read_pixels

N_IMAGES, HEIGHT, WIDTH = 600, 480, 640
GOAL_PER_SECOND = 200
N_MANY, N_INSTANCES, N_TYPES = 60_000, 150_000, 17
DEMANDS = Requirements(None, "letterbox", False, 20, 2.0)


def write_photographs(folder: Path, suffix: str) -> Path:
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(N_IMAGES):
        coarse = rng.integers(0, 255, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        pixels = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        name = f"{number}{suffix}"
        Image.fromarray(pixels).save(folder / name, **({"quality": 92} if suffix == ".jpg" else {}))
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "keypoints": [9, 9, 2, 200, 300, 2]})
    categories = [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"]}]
    path = folder / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_a_second(tmp_path, suffix):
    path = write_photographs(tmp_path, suffix)
    split = SplitOptions(None, 0.2, 0, None, None)
    data = DataDescription({"train": path}, None, "continuous", None, None, DEMANDS, split, "error", "error")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = audit(data, lambda scans, n_images: scans)
        seconds.append(time.perf_counter() - start)
    assert len(found.parts[0].sizes) == N_IMAGES
    start = time.perf_counter()
    for number in range(N_IMAGES):
        read_pixels(str(tmp_path / f"{number}{suffix}"))
    plain = time.perf_counter() - start
    print(
        f"\n{suffix}: {N_IMAGES / min(seconds):.0f} images a second (goal {GOAL_PER_SECOND}), "
        f"{plain / min(seconds):.2f} times as fast as reading all pixels in one process"
    )


def test_labels_of_a_large_data_set(tmp_path):
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": "one.png", "height": HEIGHT, "width": WIDTH} for i in range(N_MANY)]
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "one.png")
    points = rng.uniform(0, HEIGHT, (N_INSTANCES, N_TYPES, 3)).round(1)
    points[..., 2] = 2
    annotations = [
        {"id": i, "image_id": i % N_MANY, "category_id": 1, "keypoints": one.reshape(-1).tolist()}
        for i, one in enumerate(points)
    ]
    categories = [{"id": 1, "name": "mouse", "keypoints": [f"p{i}" for i in range(N_TYPES)]}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    start = time.perf_counter()
    table = read_coco(path, coordinates="continuous")
    read = time.perf_counter() - start
    start = time.perf_counter()
    part = make_part("train", table, table.image_sizes, {f"p{i}": [f"p{i}"] for i in range(N_TYPES)}, False)
    check_channels(part)
    check_distances(part, DEMANDS)
    print(f"\nreading {read:.2f} s; what `kpd fit` checks of the labels {time.perf_counter() - start:.2f} s")
