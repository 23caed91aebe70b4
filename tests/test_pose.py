"""The page on poses: its function finds the true poses of drawn boxes."""

import json

import numpy as np
import pytest
from pose_page import camera_matrix, load_find_pose, measure_pose_errors

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set


@pytest.fixture(scope="module")
def poses(tmp_path_factory):
    """The camera, the four corners and the true pose of drawn boxes whose opening is in the image."""
    folder = tmp_path_factory.mktemp("poses") / "boxes"
    path = draw_data_set(SyntheticBoxes(str(folder), n_train=30, n_val=0, height=96, width=128, max_boxes=3)).train
    labels = json.loads(path.read_text())
    cameras = {image["id"]: camera_matrix(image) for image in labels["images"]}
    found = []
    for box in labels["annotations"]:
        corners = np.array(box["keypoints"], dtype=float).reshape(-1, 3)[:4]
        if corners[:, 2].all():
            found.append((cameras[box["image_id"]], corners[:, :2], box["pose"]))
    return found


def test_labels_hold_the_true_poses(poses):
    assert len(poses) > 30
    for camera, corners, pose in poses:
        size = np.array([*pose["size_m"][:2], 0])
        rectangle = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) * size / 2
        seen = (rectangle @ np.transpose(pose["rotation"]) + pose["translation_m"]) @ camera.T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], corners, atol=0.01)
        assert pose["size_m"][2] > 0.1


def test_corners_in_any_order_give_the_pose(poses):
    find_pose, rng = load_find_pose(), np.random.default_rng(0)
    angles, distances = zip(
        *(
            measure_pose_errors(*find_pose(rng.permutation(corners), None, pose["size_m"][:2], camera), pose)
            for camera, corners, pose in poses
        ),
        strict=True,
    )
    # Labels are rounded to hundredths of a pixel.
    assert np.median(angles) < 0.1
    assert np.quantile(angles, 0.9) < 0.5
    assert np.median(distances) < 0.002


def test_covariances_give_certain_corners_more_weight(poses):
    find_pose, rng = load_find_pose(), np.random.default_rng(1)
    errors = []
    for camera, corners, pose in poses:
        spreads = rng.permutation([0.05, 0.05, 0.05, 0.6])
        moved = corners + rng.normal(size=(4, 2)) * spreads[:, None]
        covariances = np.eye(2) * (spreads**2)[:, None, None]
        errors.append(
            [
                measure_pose_errors(*find_pose(moved, weights, pose["size_m"][:2], camera), pose)
                for weights in (None, covariances)
            ]
        )
    alike, weighted = np.median(np.array(errors), axis=0)
    assert (weighted < 0.7 * alike).all()
