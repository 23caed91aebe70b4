import numpy as np

from keypoint_detection.boxes.rendering import SUPERSAMPLING, enlarge, rasterise, render
from keypoint_detection.boxes.scene import Ball, Camera, Face, Scene, label_keypoints, sample_scene

WHITE, BLACK = np.full(3, 0.9), np.full(3, 0.01)


def look_down(centre: tuple[float, float]) -> Camera:
    """A camera 2 m above the origin that sees 100 pixels a metre on the ground."""
    rotation = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    return Camera(np.array([0, 0, 2.0]), rotation, 200.0, np.array(centre))


def sheet(x: float, y: float, width: float, height: float, colour: np.ndarray, z: float = 0.001) -> Face:
    return Face("carton", np.array([x, y, z]), np.array([width, 0, 0]), np.array([0, height, 0]), colour)


def centroid(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return (np.array([columns.mean(), rows.mean()]) + 0.5) / SUPERSAMPLING


def test_samples_lie_where_the_pixel_convention_says():
    # A turned square of 40 pixels: none of its edges runs along the samples, so its centroid is found precisely.
    errors = []
    for k, shift in enumerate(np.arange(0, 1, 0.1)):
        cos, sin = 0.4 * np.cos(0.3 + k), 0.4 * np.sin(0.3 + k)
        along, across = np.array([cos, sin, 0]), np.array([-sin, cos, 0])
        face = Face("carton", -(along + across) / 2 + (0, 0, 1e-6), along, across, WHITE)
        owners = rasterise(Scene(look_down((60 + shift, 40 - shift)), (80, 120), [face], [], None))
        assert owners.shape == (160, 240)
        assert abs((owners == 0).sum() / SUPERSAMPLING**2 - 1600) < 8
        errors.append(centroid(owners == 0) - (60 + shift, 40 - shift))
    assert len(errors) == 10
    assert np.abs(errors).max() < 0.05
    assert np.abs(np.mean(errors, axis=0)).max() < 0.01


def find_edge(profile: np.ndarray, near: int) -> float:
    """Where does a profile step from bright to dark? The share of darkness in a window round the step tells."""
    light, dark = profile[near - 7 : near - 3].mean(), profile[near + 3 : near + 7].mean()
    share = (light - profile[near - 7 : near + 7]) / (light - dark)
    return float(near + 7 - share.sum())


def test_edges_in_the_image_are_where_the_labels_are():
    errors = []
    for k, shift in enumerate(np.arange(0, 1, 0.05)):
        camera = look_down((48 + shift, 40 - shift))
        faces = [sheet(-2, -2, 4, 4, WHITE), sheet(-0.2, -0.15, 0.4, 0.3, BLACK, 0.002)]
        image = render(Scene(camera, (80, 96), faces, [], None), np.random.default_rng(k)).image
        light = image.astype(float).mean(axis=2) ** 2  # from display levels to linear light
        corner = camera.project(faces[1].corners[3:])[0][0]  # the upper left one in the image
        left, upper = find_edge(light[30:50].mean(axis=0), 28), find_edge(light[:, 36:60].mean(axis=1), 25)
        errors.append(np.array([left, upper]) - corner)
    assert len(errors) == 20
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1
    assert np.abs(errors).max() < 0.45  # a quarter pixel for two samples a pixel; the rest is texture and noise


def test_nearer_things_cover_farther_ones():
    faces = [sheet(-0.2, -0.2, 0.4, 0.4, WHITE, 0.5), sheet(-0.1, -0.1, 0.2, 0.2, BLACK, 0.2)]
    ball = Ball(np.array([0.1, 0.0, 0.8]), 0.05, WHITE)
    owners = rasterise(Scene(look_down((60.0, 40.0)), (80, 120), faces, [ball], None))
    assert set(np.unique(owners)) == {-1, 0, 2}  # face 1 lies under face 0, the ball above both
    assert owners[80, 120] == 0
    # At 1.2 m the ball's centre is seen at 60 + 0.1 * 200 / 1.2 = 76.67 pixels.
    assert owners[80, 153] == 2
    assert owners[2, 2] == -1


def test_face_that_is_seen_edge_on_is_not_drawn():
    upright = Face("carton", np.array([0, -0.2, 0.0]), np.array([0, 0.4, 0]), np.array([0, 0, 0.4]), WHITE)
    owners = rasterise(Scene(look_down((60.0, 40.0)), (80, 120), [upright], [], None))
    assert (owners == -1).all()


def test_silhouette_ends_at_the_outermost_keypoints():
    n_checked = 0
    for k in range(30):
        rng = np.random.default_rng([3, k])
        scene = sample_scene(rng, 96, 128)
        if scene.keypoints is None:
            continue
        points, flags = label_keypoints(scene)
        owners = rasterise(scene)
        is_box = np.isin(owners, [i for i, face in enumerate(scene.faces) if face.is_box])
        columns = np.flatnonzero(is_box.any(axis=0)) / SUPERSAMPLING
        for point in points[flags == 2]:
            assert columns[0] - 0.75 <= point[0] <= columns[-1] + 1.25
            n_checked += 1
    assert n_checked > 150


def test_same_generator_gives_the_same_image_and_another_one_another():
    images = []
    for seed in (1, 1, 2):
        rng = np.random.default_rng(seed)
        images.append(render(sample_scene(rng, 64, 96), rng).image)
    assert images[0].shape == (64, 96, 3)
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0].astype(int) - images[2]).mean() > 5


def test_large_and_tall_images_can_be_drawn():
    rng = np.random.default_rng(5)
    rendering = render(sample_scene(rng, 300, 200), rng)
    assert rendering.image.shape == (300, 200, 3)
    assert rendering.is_box.shape == (600, 400)


def test_light_maps_are_interpolated_between_the_middles_of_cells():
    rows, columns = np.mgrid[0:4, 0:4].astype(np.float32)
    fine = enlarge(np.stack([rows, columns, np.ones((4, 4), np.float32)], axis=-1))
    zoom = len(fine) // 4
    middle = np.clip((np.arange(4 * zoom) + 0.5) / zoom - 0.5, 0, 3)  # in cells; flat beyond the outermost middles
    np.testing.assert_allclose(fine[..., 0], np.broadcast_to(middle[:, None], fine.shape[:2]), atol=1e-5)
    np.testing.assert_allclose(fine[..., 1], np.broadcast_to(middle, fine.shape[:2]), atol=1e-5)
    np.testing.assert_allclose(fine[..., 2], 1, atol=1e-5)
