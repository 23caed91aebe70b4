"""How many of the right points are in the right object, by how near the objects of an image come to each other?

    kpd test --ckpt_path=best.ckpt --data.test=boxes/test.json --trainer.default_root_dir=measured
    python tests/benchmarks/measure_grouping.py measured/*-test boxes/test.json

The distance is that of the two nearest centres of labelled boxes in an image, in pixels of the image. Intervals are
95 % bootstraps over images.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np

from keypoint_detection.metrics.held_out import HELD_OUT_FILE, read_held_out
from keypoint_detection.metrics.pooling import Run, pool

EDGES_PX = (0, 10, 20, 30, 45, 60, math.inf)
N_RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run of `kpd test`")
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    measurements = pool([Run(arguments.run, read_held_out(arguments.run / HELD_OUT_FILE))]).measurements
    objects = measurements.objects
    if objects is None:
        raise SystemExit(f"{arguments.run}: its detector does not group points; train it with --model.group=true.")
    centres: dict[int, list[list[float]]] = {image_id: [] for image_id in measurements.image_ids.tolist()}
    for one in json.loads(arguments.labels.read_text())["annotations"]:
        left, top, width, height = one["bbox"]
        centres[one["image_id"]].append([left + width / 2, top + height / 2])
    nearest = np.array([closest_pair(np.array(of_image)) for of_image in centres.values()])
    counts = np.stack([objects.n_grouped.numpy(), objects.n_found.numpy()])
    say("all images", counts)
    say("one object", counts[:, np.isinf(nearest)])
    for low, high in itertools.pairwise(EDGES_PX):
        is_in = (nearest >= low) & (nearest < high)
        if is_in.any():
            say(f"nearest centres {low:g} to {high:g} px apart", counts[:, is_in])


def closest_pair(points: np.ndarray) -> float:
    """Return the smallest distance between two of (N, 2) points; infinite if there are none."""
    distances = np.linalg.norm(points[:, None] - points, axis=2) if len(points) > 1 else np.zeros((1, 1))
    return float(distances[~np.eye(len(distances), dtype=bool)].min(initial=math.inf))


def say(name: str, counts: np.ndarray) -> None:
    """Print the share of (2, I) right points that are in the right object, with its interval."""
    n_images = counts.shape[1]
    resamples = np.random.default_rng(0).integers(n_images, size=(N_RESAMPLES, n_images))
    grouped, found = counts[:, resamples].sum(axis=2)
    low, high = np.nanquantile(grouped / np.maximum(found, 1), [0.025, 0.975])
    share = counts[0].sum() / counts[1].sum()
    print(f"{name}: {share:.1%} ({low:.1%}-{high:.1%}) of {counts[1].sum()} points in {n_images} images")


if __name__ == "__main__":
    main()
