import numpy as np

from keypoint_detection.boxes.rendering import (
    SUPERSAMPLING,
    TEXELS,
    TILE_M,
    Light,
    draw_lamplight,
    draw_print,
    make_noise,
    rasterise,
    read_texture,
    render,
)
from keypoint_detection.boxes.scene import Camera, Face, Scene, label_keypoints, sample_scene

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
        owners = rasterise(Scene(look_down((60 + shift, 40 - shift)), (80, 120), [face], [])).owners
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
        image = render(Scene(camera, (80, 96), faces, []), np.random.default_rng(k)).image
        light = image.astype(float).mean(axis=2) ** 2  # from display levels to linear light
        corner = camera.project(faces[1].corners[3:])[0][0]  # the upper left one in the image
        left, upper = find_edge(light[30:50].mean(axis=0), 28), find_edge(light[:, 36:60].mean(axis=1), 25)
        errors.append(np.array([left, upper]) - corner)
    assert len(errors) == 20
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1
    assert np.abs(errors).max() < 0.45  # a quarter pixel for two samples a pixel; the rest is texture and noise


def test_nearer_things_cover_farther_ones():
    faces = [sheet(-0.2, -0.2, 0.4, 0.4, WHITE, 0.5), sheet(-0.1, -0.1, 0.2, 0.2, BLACK, 0.2)]
    faces.append(sheet(0.05, -0.05, 0.1, 0.1, BLACK, 0.8))
    owners, s, t = rasterise(Scene(look_down((60.0, 40.0)), (80, 120), faces, []))
    assert set(np.unique(owners)) == {-1, 0, 2}  # face 1 lies under face 0, face 2 above both
    assert owners[80, 120] == 0
    np.testing.assert_allclose([s[80, 120], t[80, 120]], 0.5, atol=0.01)  # the middle of face 0
    # At 1.2 m the middle of face 2 is seen at 60 + 0.1 * 200 / 1.2 = 76.67 pixels.
    assert owners[80, 153] == 2
    assert owners[2, 2] == -1


def test_face_that_is_seen_edge_on_is_not_drawn():
    upright = Face("carton", np.array([0, -0.2, 0.0]), np.array([0, 0.4, 0]), np.array([0, 0, 0.4]), WHITE)
    owners = rasterise(Scene(look_down((60.0, 40.0)), (80, 120), [upright], [])).owners
    assert (owners == -1).all()


def test_silhouette_ends_at_the_outermost_keypoints():
    n_checked = 0
    for k in range(30):
        rng = np.random.default_rng([3, k])
        scene = sample_scene(rng, 96, 128)
        if not scene.boxes:
            continue
        points, flags = label_keypoints(scene, scene.boxes[0])
        is_box = render(scene, rng).boxes == 0
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
    assert rendering.boxes.shape == (600, 400)


def test_noise_has_unit_variance_and_wraps_without_a_seam():
    for stretch in (1, 12):
        noise = make_noise(stretch)[..., 0]
        assert noise.shape == (TEXELS, TEXELS)
        assert abs(noise.mean()) < 1e-3
        assert abs(noise.std() - 1) < 1e-3
        inside = np.abs(np.diff(noise, axis=0)).mean()
        assert np.abs(noise[0] - noise[-1]).mean() < 1.5 * inside  # the seam is no rougher than anywhere else


def test_texture_repeats_and_is_read_at_negative_positions():
    texture = np.arange(TEXELS**2).reshape(TEXELS, TEXELS, 1)
    x = np.array([0.1, 0.1 + TILE_M, 0.1 - 2 * TILE_M])
    column = int(0.1 / TILE_M * TEXELS)
    assert read_texture(texture, x, np.zeros(3))[:2].tolist() == [[column], [column]]
    assert abs(read_texture(texture, x, np.zeros(3))[2, 0] - column) <= 1


def test_prints_are_labels_or_arrows():
    prints = [draw_print(np.random.default_rng(seed)) for seed in range(12)]
    assert {image.shape for image in prints} == {(96, 128, 4)}
    is_label = [bool((image[..., :3] > 0.85).all(axis=-1).any()) for image in prints]
    assert len(set(is_label)) == 2  # labels have white paper, arrows let the cardboard through
    assert all(0 < image[..., 3].mean() < 0.5 for image in prints)


def test_lamp_lights_the_ground_but_not_the_shadow_of_a_box():
    scene = Scene(look_down((60.0, 40.0)), (80, 120), [sheet(-0.1, -0.1, 0.2, 0.2, WHITE, 0.1)], [])
    light = Light(np.array([0.6, 0.0, 0.8]), np.ones(3), np.ones(3))
    received = draw_lamplight(scene, light, np.random.default_rng(0))
    assert received.shape == (160, 240)
    # A lamp at a slope of 4/3 moves the shadow of what is 0.1 m high by 0.075 m, 7.5 pixels, away from it.
    np.testing.assert_allclose(centroid(received < 0.4), (52.5, 40), atol=0.6)
    assert abs((received < 0.4).sum() / SUPERSAMPLING**2 - 400) < 60
    assert received.max() == np.float32(0.8)
