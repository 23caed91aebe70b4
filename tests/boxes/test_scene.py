import numpy as np
import pytest

from keypoint_detection.boxes.scene import (
    KEYPOINT_NAMES,
    Camera,
    Face,
    OpenBox,
    Scene,
    label_keypoints,
    sample_flap_angles,
    sample_scene,
)

GREY = np.full(3, 0.5)


def look_down(height_m: float, focal_px: float, centre: tuple[float, float]) -> Camera:
    """A camera straight above the origin: x to the right, world y up in the image."""
    rotation = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    return Camera(np.array([0, 0, height_m]), rotation, focal_px, np.array(centre))


def scenes_with_box(n: int) -> list[Scene]:
    scenes = [sample_scene(np.random.default_rng([7, k]), 160, 224) for k in range(n)]
    return [scene for scene in scenes if scene.boxes]


def crosses_triangles(start: np.ndarray, step: np.ndarray, triangles: np.ndarray) -> bool:
    """Möller and Trumbore (1997): does the segment start + k * step, k in (0, 1), cross one of (N, 3, 3) triangles?"""
    first, edge1, edge2 = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    p = np.cross(step, edge2)
    det = (edge1 * p).sum(axis=1)
    det[np.abs(det) < 1e-15] = np.nan  # parallel: every comparison below is then False
    offset = start - first
    q = np.cross(offset, edge1)
    u, v, k = (offset * p).sum(axis=1) / det, q @ step / det, (edge2 * q).sum(axis=1) / det
    return bool(((u >= 0) & (v >= 0) & (u + v <= 1) & (k > 0) & (k < 1 - 1e-6)).any())


def test_camera_projects_as_computed_by_hand():
    camera = look_down(2.0, 100.0, (60.0, 40.0))
    points, depths = camera.project(np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 1.0]]))
    np.testing.assert_allclose(depths, [2, 2, 1])
    np.testing.assert_allclose(points, [[60, 40], [85, 40], [60, -10]], atol=1e-12)


def test_opening_is_numbered_counter_clockwise_from_its_positive_corner():
    scenes = scenes_with_box(20)
    assert len(scenes) >= 15
    for scene in scenes:
        opening = scene.boxes[0].keypoints[:4]
        np.testing.assert_array_equal(np.sign(opening[:, :2]), [[1, 1], [-1, 1], [-1, -1], [1, -1]])
        assert np.ptp(opening[:, 2]) == 0
        assert opening[0, 2] > 0


def test_flap_corners_stand_beside_their_box_corners():
    for scene in scenes_with_box(20):
        box, flaps = scene.boxes[0].keypoints[:4], scene.boxes[0].keypoints[4:].reshape(4, 2, 3)
        for i in range(4):
            left, right = np.linalg.norm(flaps[i] - box[[i, (i + 1) % 4]], axis=1)
            assert left == pytest.approx(right)  # a flap is symmetric
            assert left < np.linalg.norm(flaps[i, 1] - box[i])  # and not crossed over
        assert (flaps[..., 2] > 0).all()  # no flap reaches into the ground


def test_neighbouring_flaps_never_both_lean_inwards():
    angles = np.array([sample_flap_angles(np.random.default_rng(k), np.pi) for k in range(2000)])
    leans_in = angles < 0
    assert leans_in.sum() > 50
    assert not (leans_in & np.roll(leans_in, 1, axis=1)).any()


def test_names_match_the_keypoints():
    assert len(KEYPOINT_NAMES) == 12
    assert (KEYPOINT_NAMES[3], KEYPOINT_NAMES[4], KEYPOINT_NAMES[11]) == ("box_corner3", "flap_corner0", "flap_corner7")


def test_points_behind_a_face_are_occluded_and_outside_ones_are_not_labelled():
    lid = Face("carton", np.array([0, 0, 1.0]), np.array([0.5, 0, 0]), np.array([0, 0.5, 0]), GREY)
    other = Face("carton", np.array([-0.4, -0.1, 1.0]), np.array([0.2, 0, 0]), np.array([0, 0.2, 0]), GREY)
    keypoints = np.array([[0.3, 0.3, 0.5], [0.3, 0.3, 1.5], [-0.3, 0, 0.5], [-0.3, 0, 1.2], [3, 0, 0], [-0.3, -0.3, 0]])
    scene = Scene(
        look_down(2.0, 100.0, (100.0, 100.0)),
        (200, 200),
        [lid, other],
        [OpenBox([], keypoints, np.zeros(3), np.eye(3)[:2])],
    )
    points, flags = label_keypoints(scene, scene.boxes[0])
    assert flags.tolist() == [1, 2, 1, 2, 0, 2]
    np.testing.assert_allclose(points[0], [120, 80])  # 0.3 m at 1.5 m depth, y upwards


def test_occlusion_agrees_with_ray_casting():
    n_flags = {1: 0, 2: 0}
    for scene in scenes_with_box(80):
        _, flags = label_keypoints(scene, scene.boxes[0])
        triangles = np.array([face.corners[list(part)] for face in scene.faces for part in ((0, 1, 2), (0, 2, 3))])
        for keypoint, flag in zip(scene.boxes[0].keypoints, flags, strict=True):
            if flag == 0:
                continue
            start, step = scene.camera.position, keypoint - scene.camera.position
            is_hidden = crosses_triangles(start, step, triangles)
            assert flag == (1 if is_hidden else 2)
            n_flags[int(flag)] += 1
    assert n_flags[1] > 20
    assert n_flags[2] > 300


def test_most_keypoints_are_inside_the_image_and_visible():
    flags = np.concatenate([label_keypoints(scene, scene.boxes[0])[1] for scene in scenes_with_box(60)])
    assert (flags > 0).mean() > 0.9
    assert (flags == 2).mean() > 0.75


def test_several_boxes_stand_apart_and_hide_each_other_exactly():
    n_boxes, n_flags = [], {1: 0, 2: 0}
    for number in range(40):
        scene = sample_scene(np.random.default_rng([3, number]), 128, 128, max_boxes=4)
        n_boxes.append(len(scene.boxes))
        triangles = np.array([face.corners[list(part)] for face in scene.faces for part in ((0, 1, 2), (0, 2, 3))])
        for index, box in enumerate(scene.boxes):
            assert [face.box for face in scene.faces].count(index) == 9
            reach = np.linalg.norm((box.keypoints - box.centre)[:, :2], axis=1).max()
            others = [other.keypoints[:, :2] for other in scene.boxes if other is not box]
            cartons = [face.corners[:, :2] for face in scene.faces if face.part == "carton" and index]
            for corners in (*others, *cartons):
                assert np.linalg.norm(corners - box.centre[:2], axis=1).min() > reach
            _, flags = label_keypoints(scene, box)
            for keypoint, flag in zip(box.keypoints, flags, strict=True):
                if flag:
                    is_hidden = crosses_triangles(scene.camera.position, keypoint - scene.camera.position, triangles)
                    assert flag == (1 if is_hidden else 2)
                    n_flags[int(flag)] += 1
    assert set(n_boxes) >= {1, 2, 3, 4}
    assert n_flags[1] > 30
    assert n_flags[2] > 500


def test_some_images_have_no_box():
    scenes = [sample_scene(np.random.default_rng(k), 96, 128) for k in range(150)]
    assert 1 <= sum(not scene.boxes for scene in scenes) <= 15
