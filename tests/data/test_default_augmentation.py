import numpy as np
import pytest
import torch
from images_of_discs import centre_of_mass, disc_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from keypoint_detection.data.augmentation import augment, default_augmentation
from keypoint_detection.data.default_augmentation import DefaultAugmentation, render

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


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"min_scale is 2, which is above max_scale, 1\.4"):
        DefaultAugmentation(min_scale=2.0)
