"""Read off the labels how much objects turn and vary in size, as a recipe for `compare_recipes.py`.

    python tests/benchmarks/ranges_of_labels.py SET.json [SET.json ...]

All objects of a category are superimposed on their mean shape (generalised Procrustes analysis, Gower 1975, without
mirroring; points that are not labelled are left out). What remains of the rotation and the scale of each is their
spread: 95 % of the objects lie within the ranges that are printed. If the shape itself varies, as that of a box seen
from all sides, its rotations mean little; the share of the variance that the mean shape explains tells.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

N_ROUNDS = 50
MIN_POINTS = 2


class Spread(NamedTuple):
    """Ranges that contain 95 % of the objects.

    Attributes:
        degrees: maximum rotation from the mean direction, in either direction.
        scales: minimum and maximum size over the median.
        explained: share of the variance of the superimposed points that the mean shape explains.
        n_objects: number of objects.
    """

    degrees: float
    scales: tuple[float, float]
    explained: float
    n_objects: int


def superimpose(shapes: NDArray[np.complex128], is_labelled: NDArray[np.bool_]) -> Spread:
    """Superimpose shapes (N, K), x + iy, and measure the spread of what was taken out."""
    weights = is_labelled.astype(float)
    shapes = np.where(is_labelled, shapes, 0)
    centred = (shapes - shapes.sum(1, keepdims=True) / weights.sum(1, keepdims=True)) * weights
    mean = centred[weights.sum(1).argmax()]
    for _ in range(N_ROUNDS):
        target = (mean - (weights * mean).sum(1, keepdims=True) / weights.sum(1, keepdims=True)) * weights
        # What each shape is multiplied by to come closest to the mean shape.
        factors = (centred.conj() * target).sum(1) / (abs(centred) ** 2).sum(1)
        shift = ((weights * mean) - target).sum(1) / weights.sum(1)
        aligned = (factors[:, None] * centred + shift[:, None]) * weights
        mean = aligned.sum(0) / np.maximum(weights.sum(0), 1)
        mean = mean / np.sqrt((abs(mean) ** 2).mean())
    residual = (abs(factors[:, None] * centred - target) ** 2).sum()
    angles, sizes = -np.angle(factors), -np.log(abs(factors))
    turned = abs(np.angle(np.exp(1j * (angles - np.angle(np.exp(1j * angles).mean())))))
    low, high = np.exp(np.quantile(sizes - np.median(sizes), [0.025, 0.975]))
    explained = 1 - residual / (abs(target) ** 2).sum()
    return Spread(
        float(np.degrees(np.quantile(turned, 0.95))), (float(low), float(high)), float(explained), len(shapes)
    )


def read_shapes(path: Path) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """Read the objects with at least two labelled points."""
    rows: list[Any] = [
        np.reshape(one["keypoints"], (-1, 3)) for one in json.loads(path.read_text())["annotations"] if one["keypoints"]
    ]
    triples = np.stack(rows).astype(float)
    is_labelled = triples[..., 2] > 0
    kept = is_labelled.sum(1) >= MIN_POINTS
    return (triples[..., 0] + 1j * triples[..., 1])[kept], is_labelled[kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    for path in parser.parse_args().sets:
        spread = superimpose(*read_shapes(path))
        low, high = spread.scales
        print(
            f"{path}: {spread.n_objects} objects, {spread.explained:.0%} of the variance explained, "
            f"within {spread.degrees:.0f} degrees, scales {low:.2f} to {high:.2f}"
        )
        settings = {
            "class_path": "keypoint_detection.data.default_augmentation.DefaultAugmentation",
            "init_args": {
                "degrees": round(spread.degrees),
                "min_scale": round(min(1.0, low), 2),
                "max_scale": round(max(1.0, high), 2),
            },
        }
        print(f"  --recipe 'labels: --data.augmentation=[{json.dumps(settings, separators=(',', ':'))}]'")


if __name__ == "__main__":
    main()
