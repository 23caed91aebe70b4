import numpy as np
from PIL import Image

from keypoint_detection.boxes.textures import (
    TILE_M,
    cover,
    look_up,
    paste_decal,
    sample_decal,
    sample_ground,
    sample_noises,
)


def test_noise_has_unit_variance_and_wraps_without_a_seam():
    noises = sample_noises(np.random.default_rng(0), 256)
    assert len(noises) == 2
    for noise in noises:
        assert noise.shape == (256, 256)
        assert abs(noise.mean()) < 1e-3
        assert abs(noise.std() - 1) < 1e-3
        inside = np.abs(np.diff(noise, axis=0)).mean()
        assert np.abs(noise[0] - noise[-1]).mean() < 1.5 * inside  # the seam is no rougher than anywhere else


def test_look_up_repeats_after_a_tile_and_accepts_negative_positions():
    noise = np.arange(16.0).reshape(4, 4)
    x = np.array([0.1, 0.1 + TILE_M, 0.1 - 2 * TILE_M]) * 1.0
    assert look_up(noise, x, np.zeros(3))[:2].tolist() == [0.0, 0.0]
    assert np.isfinite(look_up(noise, x - 9, x - 9)).all()


def test_cover_of_a_thin_line_is_its_share_of_the_pixel():
    distance, pixel = np.array([0.0, 0.4, 0.6]), np.array([1.0])
    # A line 0.2 wide fills a fifth of the pixel it lies in, and half of that where its middle is on the rim.
    np.testing.assert_allclose(cover(distance, 0.1, pixel), [0.2, 0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(cover(np.array([0.5]), 0.1, pixel), [0.1])


def test_every_ground_stays_a_sensible_factor():
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 1000)).astype(np.float32)
    noises = sample_noises(np.random.default_rng(1), 256)
    kinds = set()
    for seed in range(40):
        ground = sample_ground(np.random.default_rng(seed))
        kinds.add(ground.kind)
        shade = ground.shade(x, y, np.full(1000, 0.004, np.float32), noises)
        assert shade.shape == (1000,)
        assert 0.85 < shade.mean() < 1.1
    assert kinds == {"wood", "tiles", "plain"}


def test_decals_are_labels_or_prints():
    decals = [np.asarray(sample_decal(np.random.default_rng(seed))) for seed in range(12)]
    assert {decal.shape for decal in decals} == {(48, 64, 4)}
    is_label = [bool((decal[..., 3] == 255).all()) for decal in decals]
    assert len(set(is_label)) == 2  # labels are opaque, prints let the cardboard through


def test_decal_is_pasted_over_its_part_of_the_wall_in_linear_light():
    red = Image.new("RGBA", (64, 48), (128, 0, 0, 255))
    s, t = np.array([0.1, 0.6, 0.95], np.float32), np.array([0.5, 0.5, 0.5], np.float32)
    for width_px in (0.5, 7.3, 500.0):
        surface = np.ones((3, 3), np.float32)
        paste_decal(surface, red, s, t, width_px)
        np.testing.assert_allclose(surface, [[1, 1, 1], [(128 / 255) ** 2, 0, 0], [1, 1, 1]], atol=1e-6)
