import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.data.transforms import (
    augment,
    default_augmentation,
    fit_to_size,
    read_image,
    resize,
)
from keypoint_detection.geometry import apply_affine, invert_affine
from keypoint_detection.heatmaps import decode, encode


def disc_image(x: float, y: float, size=(96, 128), radius=6.0) -> torch.Tensor:
    """A smooth white blob on black with its centre of mass at continuous (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return torch.from_numpy(blob.astype(np.uint8)).expand(3, -1, -1).contiguous()


def centre_of_mass(image: torch.Tensor) -> list[float]:
    weights = image[0].double()
    weights = (weights - weights.min()).clamp(min=20) - 20  # grey bars and rounding carry no weight
    rows, columns = torch.meshgrid(
        torch.arange(len(weights)) + 0.5, torch.arange(weights.shape[1]) + 0.5, indexing="ij"
    )
    return [float((weights * axis).sum() / weights.sum()) for axis in (columns, rows)]


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (200, 120), (50, 131)])
def test_the_map_back_from_a_resized_picture_finds_the_original_point(mode, size):
    image = disc_image(70.3, 41.7)
    image[image < 20] = 0
    resized, to_source = resize(image, size, mode)
    assert resized.shape == (3, *size)
    if mode == "letterbox":  # the bars are grey: take them out of the measurement
        resized = torch.where(resized == 114, 0, resized)
    point = torch.tensor([centre_of_mass(resized)])
    assert apply_affine(point[None], to_source[None])[0, 0].tolist() == pytest.approx([70.3, 41.7], abs=0.15)


def test_letterbox_keeps_the_aspect_ratio_and_adds_grey_bars():
    resized, to_source = resize(torch.full((3, 50, 100), 255, dtype=torch.uint8), (100, 100), "letterbox")
    assert (resized[:, :25] == 114).all()
    assert (resized[:, 75:] == 114).all()
    assert (resized[:, 25:75] == 255).all()
    assert to_source.tolist() == [[1, 0, 0], [0, 1, -25]]


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


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 200, [200, 200, 200]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30]),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0]),
        ("1", 1, [255, 255, 255]),
    ],
)
def test_every_mode_is_read_as_rgb(tmp_path, mode, value, expected):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (5, 4), value).save(path)
    image = read_image(str(path))
    assert image.shape == (3, 4, 5)
    assert image.dtype == torch.uint8
    assert image[:, 1, 1].tolist() == expected


def test_a_palette_is_looked_up(tmp_path):
    Image.new("RGB", (5, 4), (250, 128, 7)).quantize(4).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"))[:, 0, 0].tolist() == pytest.approx([250, 128, 7], abs=4)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"))[0].tolist() == [[0, 128, 255]]


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show it
    image.save(tmp_path / "a.png", exif=exif)
    upright = read_image(str(tmp_path / "a.png"))
    assert upright.shape == (3, 6, 4)
    assert upright[0, 0, 3] == 255  # top-left went to top-right


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a\.jpg: cannot be read as a picture"):
        read_image(str(tmp_path / "a.jpg"))
