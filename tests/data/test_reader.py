import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images_of_discs import centre_of_mass
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.data.default_augmentation import DefaultAugmentation
from keypoint_detection.data.reader import ImageReader
from keypoint_detection.geometry import apply_affine
from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.resizing import read_image

ORIENTATION = 0x0112


def blob(height, width, x, y, sigma):
    """A bright Gaussian on the grey of the bars, centred at continuous (x, y)."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    values = LETTERBOX_GREY + 140 * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2)
    return np.repeat(values[..., None], 3, axis=2).round().astype(np.uint8)


def save(path, pixels, orientation=1, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return str(path)


def shown_point(x, y, width, height, orientation):
    """Where a point of the stored pixels is shown, by the words of the EXIF standard (row 0 is at the ...)."""
    return {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]


def test_the_orientations_are_those_of_pillow(tmp_path):
    for orientation in range(1, 9):
        path = save(tmp_path / "a.png", blob(60, 90, 20, 45, 4), orientation)
        x, y = shown_point(20, 45, 90, 60, orientation)
        assert centre_of_mass(read_image(path)) == pytest.approx((x, y), abs=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("blobs")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    orientation=st.integers(1, 8),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    suffix=st.sampled_from(["jpg", "png"]),
    image_size=st.sampled_from([(64, 64), (100, 130), None]),
    mode=st.sampled_from(["letterbox", "stretch"]),
    stored_size=st.sampled_from([(301, 403), (150, 215), (601, 799)]),
)
def test_points_lie_on_what_they_mark(folder, seed, orientation, place, suffix, image_size, mode, stored_size):
    height, width = stored_size
    if image_size is None and height > 400:
        return
    x, y = place[0] * width, place[1] * height
    scale = 1 if image_size is None else max(height, width) / max(image_size)
    path = save(folder / f"a.{suffix}", blob(height, width, x, y, 2 * scale), orientation)
    point = np.array([shown_point(x, y, width, height, orientation)], dtype=np.float32)
    augmentation = DefaultAugmentation(
        flip=True, degrees=180, translate=0.05, min_scale=0.8, max_scale=1.25, brightness=0, contrast=0,
        colour_probability=0, blur_probability=0,
    )  # fmt: skip
    shown = ImageReader(image_size, mode, augmentation, None).read(path, point, point, seed)
    found_x, found_y = shown.points[0].tolist()
    window = 16
    left, top = int(found_x) - window, int(found_y) - window
    part = shown.image[:, max(0, top) : top + 2 * window + 1, max(0, left) : left + 2 * window + 1]
    if left >= 0 and top >= 0 and part.shape[1:] == (2 * window + 1, 2 * window + 1):
        centre = centre_of_mass(part)
        assert (centre[0] + left, centre[1] + top) == pytest.approx((found_x, found_y), abs=0.06)
    back = apply_affine(shown.points[None], shown.input_to_image[None])[0, 0]
    assert back.tolist() == pytest.approx(point[0].tolist(), abs=2e-3 * scale)


def test_one_step_is_about_as_sharp_as_resizing_and_then_turning(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (75, 100, 3), dtype=np.uint8))
    path = save(tmp_path / "a.jpg", np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)), quality=95)
    turned = DefaultAugmentation(
        degrees=15, translate=0, min_scale=1, max_scale=1, brightness=0, contrast=0, colour_probability=0,
        blur_probability=0,
    )  # fmt: skip

    def sharpness(augmentation):
        reader, energies = ImageReader((96, 128), "letterbox", augmentation, None), []
        for seed in range(20):
            middle = reader.read(path, *2 * [np.zeros((0, 2), np.float32)], seed).image[:, 28:68, 38:90].float()
            energies.append(float(middle.diff(dim=1).square().mean() + middle.diff(dim=2).square().mean()))
        return np.mean(energies)

    resized_and_turned = sharpness(v2.RandomAffine(15, interpolation=v2.InterpolationMode.BILINEAR))
    assert sharpness(turned) > 0.8 * resized_and_turned > 0  # detail of single pixels, the hardest case
