import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images_of_discs import centre_of_mass, disc_image
from torchvision import tv_tensors
from torchvision.transforms import v2

from keypoint_detection.codec.heatmaps import decode, encode
from keypoint_detection.data.augmentation import (
    ContinuousKeyPoints,
    augment,
    default_augmentation,
    fit_to_size,
    try_augmentation,
)
from keypoint_detection.geometry import apply_affine, invert_affine
from keypoint_detection.resizing import resize
from keypoint_detection.types import DataError


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
        return  # it left the image: nothing to find
    heatmaps = encode(augmented.points[None, None], torch.full((1, 1, 1), 2), (128, 160), stride, 2.0 * stride)
    found = decode(heatmaps, stride, max_keypoints=5, score_threshold=0.01, min_distance_px=3)
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


GEOMETRIC = {
    "CenterCrop": [
        v2.CenterCrop((60, 90)),
        v2.CenterCrop((131, 90)),
        v2.CenterCrop((95, 161)),
        v2.CenterCrop((97, 129)),
    ],
    "ElasticTransform": [],  # bends what it moves: tested below by where pixels come from
    "Pad": [v2.Pad([3, 7, 11, 5])],
    "RandomAffine": [v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), (5, 5, 5, 5), v2.InterpolationMode.BILINEAR)],
    "RandomCrop": [v2.RandomCrop((80, 100)), v2.RandomCrop((110, 150), pad_if_needed=True)],
    "RandomHorizontalFlip": [v2.RandomHorizontalFlip(1.0)],
    "RandomPerspective": [v2.RandomPerspective(0.3, 1.0)],
    "RandomResize": [v2.RandomResize(70, 140)],
    "RandomResizedCrop": [v2.RandomResizedCrop((64, 64), scale=(0.8, 0.95))],
    "RandomRotation": [v2.RandomRotation(40, v2.InterpolationMode.BILINEAR, expand=expand) for expand in (False, True)],
    "RandomShortestSize": [v2.RandomShortestSize([60, 80])],
    "RandomVerticalFlip": [v2.RandomVerticalFlip(1.0)],
    "RandomZoomOut": [v2.RandomZoomOut(p=1.0)],
    "Resize": [v2.Resize((50, 77))],
    "ScaleJitter": [v2.ScaleJitter((96, 128), (0.7, 1.2))],
}
# Several images of one, boxes that are not there, or policies that torchvision does not offer for keypoints.
NOT_FOR_KEYPOINTS = {
    "FiveCrop",
    "TenCrop",
    "RandomIoUCrop",
    "AugMix",
    "AutoAugment",
    "RandAugment",
    "TrivialAugmentWide",
}
# Colours, noise, containers and conversions leave points where they are.
IMMOBILE = {
    "AutoAugmentPolicy", "ClampBoundingBoxes", "ClampKeyPoints", "ColorJitter", "Compose",
    "ConvertBoundingBoxFormat", "ConvertImageDtype", "CutMix", "GaussianBlur", "GaussianNoise", "Grayscale",
    "Identity", "InterpolationMode", "JPEG", "Lambda", "LinearTransformation", "MixUp", "Normalize", "PILToTensor",
    "RGB", "RandomAdjustSharpness", "RandomApply", "RandomAutocontrast", "RandomChannelPermutation", "RandomChoice",
    "RandomEqualize", "RandomErasing", "RandomGrayscale", "RandomInvert", "RandomOrder", "RandomPhotometricDistort",
    "RandomPosterize", "RandomSolarize", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode", "ToDtype",
    "ToImage", "ToPILImage", "ToPureTensor", "ToTensor", "Transform", "UniformTemporalSubsample",
}  # fmt: skip


def test_every_transform_of_torchvision_has_its_place_here():
    """A new one that moves points must not come in unseen."""
    found = {name for name in dir(v2) if isinstance(getattr(v2, name), type)}
    assert found - (set(GEOMETRIC) | NOT_FOR_KEYPOINTS | IMMOBILE) == set()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "transform", [one for several in GEOMETRIC.values() for one in several], ids=lambda one: type(one).__name__
)
def test_every_geometric_transform_moves_points_with_pixels(transform, seed):
    torch.manual_seed(seed)
    image, point = disc_image(60.3, 50.8, radius=3), torch.tensor([[60.3, 50.8]])
    augmented = augment(image, point, transform)
    assert augmented.points[0].tolist() == pytest.approx(centre_of_mass(augmented.image), abs=0.25)


@pytest.mark.parametrize(("alpha", "seed"), [(30.0, 0), (60.0, 1), (100.0, 2)])
def test_an_elastic_transform_moves_points_with_pixels(alpha, seed):
    torch.manual_seed(seed)
    height, width = 96, 128
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    # An image of its own coordinates tells of every pixel where it came from.
    image = tv_tensors.Image(torch.stack([columns, rows]))
    points = torch.rand(50, 2) * torch.tensor([80, 50]) + 24
    warped, moved = v2.ElasticTransform(alpha=alpha, sigma=5.0)(
        image, ContinuousKeyPoints(points, canvas_size=(height, width))
    )
    grid = 2 * moved.as_subclass(torch.Tensor) / torch.tensor([width, height]) - 1
    origin = torch.nn.functional.grid_sample(
        warped[None].as_subclass(torch.Tensor), grid[None, None], align_corners=False
    )
    assert (moved - points).abs().max() > 1
    torch.testing.assert_close(origin[0, :, 0].T, points, rtol=0, atol=0.06)


class Failing(v2.Transform):
    """A transform that fails in its own way, without a message."""

    def forward(self, *inputs):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("transform", "pairs", "text"),
    [
        (v2.RandomHorizontalFlip(0.001), None, "RandomHorizontalFlip, but it is unknown which keypoint types"),
        (v2.Compose([v2.RandomApply([v2.RandomVerticalFlip()], p=0.01)]), None, "RandomVerticalFlip"),
        (v2.RandomChoice([v2.Identity(), v2.RandomHorizontalFlip()]), None, "RandomHorizontalFlip"),
        (v2.RandomCrop((60, 60)), [], r"fails on an image of 48x64 .*Required crop size"),
        (v2.RandomRotation(10, interpolation="BILINEAR"), [], "fails on an image"),
        (v2.ToDtype(torch.float32), [], "8-bit RGB is expected"),
        (v2.Transform(), [], "fails on an image of 48x64 .*: NotImplementedError"),
        (Failing(), [], "fails on an image of 48x64 .*: ZeroDivisionError. The transforms"),
    ],
)
def test_an_augmentation_that_would_fail_is_refused_before_the_training(transform, pairs, text):
    with pytest.raises(DataError, match=text):
        try_augmentation(transform, (48, 64), pairs)


def test_trying_an_augmentation_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    try_augmentation(v2.Compose(default_augmentation(may_flip=True)), (48, 64), [])
    assert torch.equal(torch.get_rng_state(), state)
