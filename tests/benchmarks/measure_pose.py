"""How precise are the poses that the page on poses computes, with and without weighting corners by their covariance?

    python tests/benchmarks/measure_pose.py best.ckpt boxes/test.json

The labels are those of `kpd synthesize`, on images that trained and chose nothing. Every box whose four corners are in
the image is looked for: it is found if an object with four corners has its centre nearest to the true one, within half
the distance to the box's furthest corner. Intervals are 95 % bootstraps over boxes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from keypoint_detection import Predictor

sys.path.append(str(Path(__file__).parents[1]))
from pose_page import camera_matrix, load_find_pose, measure_pose_errors

N_RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("labels", type=Path)
    parser.add_argument("--channel", default="corner")
    arguments = parser.parse_args()
    labels = json.loads(arguments.labels.read_text())
    detector, find_pose = Predictor.from_checkpoint(arguments.checkpoint), load_find_pose()
    n_boxes, errors = 0, []
    for image in labels["images"]:
        objects = [
            (one.xy[arguments.channel].astype(float), one.covariances[arguments.channel])
            for one in detector(str(arguments.labels.parent / image["file_name"])).objects
            if len(one.xy[arguments.channel]) == 4
        ]
        for box in labels["annotations"]:
            corners = np.array(box["keypoints"], dtype=float).reshape(-1, 3)[:4]
            if box["image_id"] != image["id"] or not corners[:, 2].all():
                continue
            n_boxes += 1
            centre = corners[:, :2].mean(axis=0)
            reach = np.linalg.norm(corners[:, :2] - centre, axis=1).max() / 2
            distances = [np.linalg.norm(points.mean(axis=0) - centre) for points, _ in objects]
            if not distances or min(distances) > reach:
                continue
            points, covariances = objects[int(np.argmin(distances))]
            size, camera = box["pose"]["size_m"][:2], camera_matrix(image)
            errors.append(
                [
                    measure_pose_errors(*find_pose(points, weights, size, camera), box["pose"])
                    for weights in (None, covariances)
                ]
            )
    found = np.array(errors)  # (boxes, without and with covariances, degrees and metres)
    print(f"{len(found)} of {n_boxes} boxes found with four corners, in {len(labels['images'])} images")
    resamples = found[np.random.default_rng(0).integers(len(found), size=(N_RESAMPLES, len(found)))]
    medians = np.median(resamples, axis=1)
    for row, name in enumerate(("all corners alike", "weighted by covariance")):
        angle, distance = np.median(found[:, row], axis=0)
        (angle_low, angle_high), (low, high) = np.quantile(medians[:, row], [0.025, 0.975], axis=0).T
        print(
            f"{name}: median rotation error {angle:.1f} degrees ({angle_low:.1f}-{angle_high:.1f}), median translation "
            f"error {100 * distance:.1f} cm ({100 * low:.1f}-{100 * high:.1f})"
        )


if __name__ == "__main__":
    main()
