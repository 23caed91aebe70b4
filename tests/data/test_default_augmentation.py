import numpy as np
import pytest
import torch
from images_of_discs import centre_of_mass, disc_image
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from keypoint_detection.data.augmentation import augment, default_augmentation
from keypoint_detection.data.default_augmentation import DefaultAugmentation, render
from keypoint_detection.data.reader import ImageReader

N_DRAWS = 4000


def test_a_view_depends_on_its_seed_alone():
    first, again, other = (DefaultAugmentation(flip=True).draw(seed) for seed in (1, 1, 2))
    assert (first.angle, first.scale, first.shift) == (again.angle, again.scale, again.shift)
    assert first.angle != other.angle


def test_the_strength_is_that_of_the_options():
    views = [DefaultAugmentation(flip=True).draw(seed) for seed in range(N_DRAWS)]
    assert len(views) == N_DRAWS
    # A uniform number comes within two in a thousand of its limits.
    for values, low, high in (
        (np.degrees([view.angle for view in views]), -30, 30),
        ([view.scale for view in views], 0.7, 1.4),
        ([view.shift[0] for view in views], -0.1, 0.1),
        ([view.shift[1] for view in views], -0.1, 0.1),
        ([view.colour[0].sum() for view in views], 0.7, 1.3),
        ([view.contrast for view in views], 0.7, 1.3),
        ([view.blur_px for view in views if view.blur_px], 0.1, 1.5),
    ):
        assert min(values) >= low - 1e-9
        assert max(values) <= high + 1e-9
        assert np.ptp(values) > 0.99 * (high - low)
    assert np.mean([view.is_mirrored for view in views]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([view.blur_px > 0 for view in views]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([abs(view.colour[0, 1]) > 1e-9 for view in views]) == pytest.approx(0.2, abs=0.03)


def test_the_map_of_a_view_is_that_of_torchvision():
    view = DefaultAugmentation().draw(3)
    image = disc_image(60.3, 50.8, radius=4)
    plain = view._replace(colour=np.eye(3), contrast=1.0, blur_px=0.0)
    seen = render(image.permute(1, 2, 0), plain.to_canvas((96, 128)), (96, 128), plain)
    shift = [view.shift[0] * 128, view.shift[1] * 96]
    expected = F.affine(
        image, np.degrees(view.angle), shift, view.scale, [0, 0], v2.InterpolationMode.BILINEAR, fill=[114]
    )
    assert centre_of_mass(seen) == pytest.approx(centre_of_mass(expected), abs=0.1)


@pytest.mark.parametrize("seed", range(10))
def test_points_move_with_pixels_as_for_any_transform(seed):
    torch.manual_seed(seed)
    image, point = disc_image(60.3, 50.8, radius=3), torch.tensor([[60.3, 50.8]])
    augmented = augment(image, point, v2.Compose([*default_augmentation(may_flip=True), v2.Pad(3)]))
    assert augmented.image.shape == (3, 102, 134)
    bright = augmented.image.float() - augmented.image.float().amax() / 2
    assert centre_of_mass(bright.clamp(min=0)) == pytest.approx(augmented.points[0].tolist(), abs=0.3)


def still(scale=1.0, shift=(0.0, 0.0)):
    return DefaultAugmentation().draw(0)._replace(angle=0.0, scale=scale, shift=shift, is_mirrored=False)


@pytest.mark.parametrize(
    ("scale", "xs", "shifts"),
    [
        # The shifts that become of -0.1, 0 and 0.1, in a view 100 px wide.
        (1, [50, 60], (-0.1, 0, 0.1)),
        (1, [90, 97], (-0.17, -0.07, 0.03)),  # at most 3 px to the right
        (1, [2, 97], (-0.02, 0.005, 0.03)),
        (2, [10, 15], (0.3, 0.4, 0.5)),  # enlarged to -30 and -20: at least 30 px to the right
        (2, [85, 90], (-0.5, -0.4, -0.3)),
        (2, [0, 100], (-0.1, 0, 0.1)),  # enlarged to -50 and 150: no shift shows both
        (2, [], (-0.1, 0, 0.1)),
    ],
)
def test_a_shift_leaves_points_inside(scale, xs, shifts):
    points = np.array([(x, 50) for x in xs]).reshape(-1, 2)
    for drawn, expected in zip((-0.1, 0, 0.1), shifts, strict=True):
        view = DefaultAugmentation().keep_inside(still(scale, (drawn, 0.0)), points, (100, 100))
        assert view.shift == pytest.approx((expected, 0), abs=1e-9)


def test_a_view_without_shifts_moves_no_further_than_it_must():
    augmentation = DefaultAugmentation(translate=0)
    for x, expected in ((50, 0), (10, 0.3), (90, -0.3)):
        view = augmentation.keep_inside(still(scale=2), np.array([(x, 50)]), (100, 100))
        assert view.shift == pytest.approx((expected, 0), abs=1e-9)


@pytest.mark.parametrize("more", [[], [v2.Identity()]], ids=["alone", "before another"])
def test_an_object_anywhere_in_the_image_stays_in_view(more, tmp_path):
    Image.new("RGB", (128, 96)).save(tmp_path / "a.png")
    reader = ImageReader((96, 128), "letterbox", v2.Compose([DefaultAugmentation(), *more]), None)
    rng, n_points, n_inside = np.random.default_rng(0), 0, 0
    for seed in range(300):
        points = (rng.uniform([0, 0], [104, 72], (1, 2)) + rng.uniform(0, 24, (4, 2))).astype(np.float32)
        labelled = np.concatenate([points, [[500, 500]]]).astype(np.float32)
        # Centres far away, which need not be in view.
        shown = reader.read(str(tmp_path / "a.png"), labelled, labelled - np.float32(200), seed)
        n_points, n_inside = n_points + 4, n_inside + int(shown.is_inside.sum())
    assert n_points == 1200
    assert n_inside > 0.99 * n_points


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"min_scale is 2, which is above max_scale, 1\.4"):
        DefaultAugmentation(min_scale=2.0)
