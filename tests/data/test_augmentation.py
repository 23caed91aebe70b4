import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images_of_discs import centre_of_mass, disc_image
from torchvision.transforms import v2

from keypoint_detection.codec.heatmaps import decode, encode
from keypoint_detection.data.augmentation import (
    augment,
    default_augmentation,
    fit_to_size,
)
from keypoint_detection.geometry import apply_affine, invert_affine
from keypoint_detection.images import resize


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1.0),
        v2.RandomVerticalFlip(1.0),
        v2.RandomRotation((30, 30), interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomRotation((30, 30), interpolation=v2.InterpolationMode.BILINEAR, expand=True),
        v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.2), 5, interpolation=v2.InterpolationMode.BILINEAR),
        v2.CenterCrop((60, 90)),
        v2.RandomCrop((80, 100)),
        v2.Pad([3, 7, 11, 5]),
        v2.Resize((50, 77)),
        v2.RandomResizedCrop((64, 64), scale=(0.7, 0.9)),
        v2.RandomPerspective(0.3, 1.0),
    ],
)
def test_points_stay_on_what_they_mark(transform):
    torch.manual_seed(0)
    image, point = disc_image(60.3, 50.8, radius=4), torch.tensor([[60.3, 50.8]])
    augmented = augment(image, point, transform)
    assert augmented.points[0].tolist() == pytest.approx(centre_of_mass(augmented.image), abs=0.2)


@pytest.mark.parametrize(
    ("transform", "is_mirrored"),
    [
        (v2.RandomHorizontalFlip(1.0), True),
        (v2.RandomVerticalFlip(1.0), True),
        (v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)]), False),
        (v2.RandomRotation((170, 170)), False),
        (v2.ColorJitter(0.5), False),
    ],
)
def test_a_mirrored_picture_is_recognised(transform, is_mirrored):
    assert augment(disc_image(5, 5), torch.zeros(0, 2), transform).is_mirrored is is_mirrored


def test_a_flip_is_exact_in_continuous_coordinates():
    augmented = augment(disc_image(5, 5), torch.tensor([[0.5, 1.0], [128.0, 96.0]]), v2.RandomHorizontalFlip(1.0))
    assert augmented.points.tolist() == [[127.5, 1.0], [0.0, 96.0]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    x=st.floats(30, 170),
    y=st.floats(30, 120),
    stride=st.sampled_from([1, 2, 4]),
    mode=st.sampled_from(["letterbox", "stretch"]),
)
def test_a_label_survives_the_whole_way_and_back(seed, x, y, stride, mode):
    """Resize, crop, rotate, flip, encode, decode and back: a property of the whole pixel convention."""
    torch.manual_seed(seed)
    image = torch.zeros(3, 150, 200, dtype=torch.uint8)
    resized, to_source = resize(image, (128, 160), mode)
    point = apply_affine(torch.tensor([[[x, y]]]), invert_affine(to_source)[None])[0]
    transform = v2.Compose(
        [v2.RandomAffine(20, (0.05, 0.05), (0.9, 1.1)), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.Pad(6)]
    )
    augmented = fit_to_size(augment(resized, point, transform), (128, 160), mode)
    if not bool(((augmented.points > 0) & (augmented.points < torch.tensor([160.0, 128.0]))).all()):
        return  # it left the picture: nothing to find
    heatmaps = encode(augmented.points[None, None], torch.full((1, 1, 1), 2), (128, 160), stride, 2.0 * stride)
    found = decode(heatmaps, stride, max_keypoints=5)
    assert (found.scores > 0).sum() == 1
    back = apply_affine(apply_affine(found.points[:, 0, :1], augmented.to_source[None]), to_source[None])[0, 0]
    assert back.tolist() == pytest.approx([x, y], abs=0.05)


def test_a_transform_that_drops_points_is_refused():
    drop = lambda image, points: (image, points[:2])  # noqa: E731
    with pytest.raises(ValueError, match="number of points from 4 to 2"):
        augment(disc_image(5, 5), torch.zeros(1, 2), drop)


def test_a_transform_that_normalises_is_refused():
    with pytest.raises(ValueError, match="8-bit RGB is expected"):
        augment(disc_image(5, 5), torch.zeros(1, 2), v2.ToDtype(torch.float32))


def test_the_default_augmentation_flips_only_when_told_to():
    torch.manual_seed(1)
    image = disc_image(40, 40)

    def mirrored(may_flip):
        transform = v2.Compose(default_augmentation(may_flip))
        return [augment(image, torch.zeros(0, 2), transform).is_mirrored for _ in range(20)]

    assert not any(mirrored(may_flip=False))
    assert {True, False} == set(mirrored(may_flip=True))
