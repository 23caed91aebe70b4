"""Time and memory of reading a COCO file of 60 000 images and 150 000 annotations, with and without segmentations.

Run alone: `pytest tests/benchmarks/test_annotations.py -s -n 0`. Every reading has its own process, whose
peak of memory is the system's own count; Python's parser alone, in the same run, says how fast the machine is.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

N_IMAGES, N_ANNOTATIONS, N_KEYPOINTS = 60_000, 150_000, 17
MEASURE = """
import json, sys, time
from pathlib import Path
import keypoint_detection.data.coco_keypoints as coco
start = time.process_time()
if sys.argv[1] == "read_coco":
    coco.read_coco(sys.argv[2], coordinates="continuous")
else:
    json.loads(Path(sys.argv[2]).read_text())
seconds = time.process_time() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 1024)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    (folder / "images").mkdir()
    for index in range(N_IMAGES):
        (folder / "images" / f"{index:012d}.jpg").touch()
    return folder


def write(folder, with_segmentations):
    rng = np.random.default_rng(0)
    triples = rng.uniform(0, 640, (N_ANNOTATIONS, N_KEYPOINTS, 3)).round(2)
    triples[..., 2] = rng.integers(0, 3, (N_ANNOTATIONS, N_KEYPOINTS))
    outlines = rng.uniform(0, 640, (N_ANNOTATIONS, 60)).round(2)
    images = [
        {"id": index, "file_name": f"images/{index:012d}.jpg", "height": 480, "width": 640} for index in range(N_IMAGES)
    ]
    annotations = [
        {
            "id": index,
            "image_id": int(owner),
            "category_id": 1,
            "keypoints": [value for x, y, v in triples[index].tolist() for value in (x, y, int(v))],
            "bbox": [1.5, 2.5, 100.25, 200.5],
            "area": 20000.5,
            **({"segmentation": [outlines[index].tolist()]} if with_segmentations else {}),
        }
        for index, owner in enumerate(rng.integers(0, N_IMAGES, N_ANNOTATIONS))
    ]
    categories = [{"id": 1, "name": "person", "keypoints": [f"k{index}" for index in range(N_KEYPOINTS)]}]
    path = folder / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def measure(what, path):
    command = [sys.executable, "-c", MEASURE, what, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


@pytest.mark.parametrize("with_segmentations", [False, True])
def test_reading_annotations(folder, with_segmentations):
    path = write(folder, with_segmentations)
    times = {what: min(measure(what, path) for _ in range(3)) for what in ("json.loads", "read_coco")}
    print(f"\n{path.stat().st_size / 1e6:.0f} MB {'with' if with_segmentations else 'without'} segmentations")
    for what, (seconds, megabytes) in times.items():
        print(f"{what}: {seconds:.2f} s, peak {megabytes:.0f} MB")
    assert times["read_coco"][1] < 350
