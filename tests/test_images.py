import errno

import numpy as np
import pytest
import torch
from images_of_discs import centre_of_mass, disc_image
from PIL import Image
from torchvision.transforms.v2 import functional as F

from keypoint_detection.geometry import apply_affine
from keypoint_detection.images import ImageError, read_patiently, read_pixels, read_stored, scan_image
from keypoint_detection.resizing import interpolate, read_image, resize


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


@pytest.mark.parametrize("is_interleaved", [True, False])
@pytest.mark.parametrize(
    ("size", "new_size"),
    [((48, 64), (24, 32)), ((33, 17), (64, 64)), ((100, 7), (31, 3)), ((1, 5), (4, 4)), ((512, 300), (511, 301))],
)
def test_images_are_resized_to_the_bit_as_by_torchvision(size, new_size, is_interleaved):
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = pixels.permute(2, 0, 1) if is_interleaved else pixels.permute(2, 0, 1).contiguous()
    assert interpolate(image, new_size).equal(F.resize(image, list(new_size), antialias=True))


def test_letterbox_keeps_the_aspect_ratio_and_adds_grey_bars():
    resized, to_source = resize(torch.full((3, 50, 100), 255, dtype=torch.uint8), (100, 100), "letterbox")
    assert (resized[:, :25] == 114).all()
    assert (resized[:, 75:] == 114).all()
    assert (resized[:, 25:75] == 255).all()
    assert to_source.tolist() == [[1, 0, 0], [0, 1, -25]]


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
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"a\.jpg: cannot be read as an image"):
        read_image(str(tmp_path / "a.jpg"))


def test_an_image_beyond_pillows_limit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.new("L", (20, 10)).save(tmp_path / "big.png")
    with pytest.raises(ImageError, match=r"big.png: larger than Pillow can read .*200 pixels"):
        read_image(str(tmp_path / "big.png"))


def test_values_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tiff")
    for read in (read_pixels, lambda path: read_stored(path, lambda size: 1.0), lambda path: scan_image(path, 8)):
        with pytest.raises(ImageError, match=r"a\.tiff: the values are floating-point numbers"):
            read(str(tmp_path / "a.tiff"))


def test_a_file_of_several_pages_is_refused(tmp_path):
    pages = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 200)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    for read in (read_pixels, lambda path: read_stored(path, lambda size: 1.0), lambda path: scan_image(path, 8)):
        with pytest.raises(ImageError, match="has 2 pages"):
            read(str(tmp_path / "a.tiff"))
    pages[0].save(tmp_path / "b.tiff")
    assert read_pixels(str(tmp_path / "b.tiff")).shape == (8, 8, 3)


class Disk:
    """A disk that fails a number of times before an image can be read."""

    def __init__(self, n_failures, cause):
        self.n_failures, self.cause, self.n_tried = n_failures, cause, 0

    def read(self):
        self.n_tried += 1
        if self.n_tried <= self.n_failures:
            raise ImageError("one.png: no such file.") from self.cause
        return "image"


@pytest.fixture
def waits(monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def test_a_disk_that_fails_for_a_while_is_waited_for_longer_and_longer(waits):
    assert read_patiently(Disk(3, OSError(errno.ESTALE, "stale")).read) == "image"
    assert waits == [0.5, 1.0, 2.0]


def test_a_file_that_stays_away_is_an_error_in_the_end(waits):
    disk = Disk(99, FileNotFoundError(errno.ENOENT, "gone"))
    with pytest.raises(ImageError, match="no such file"):
        read_patiently(disk.read)
    assert disk.n_tried == 5
    assert sum(waits) == 7.5


def test_a_damaged_file_is_tried_once_more(waits):
    disk = Disk(99, OSError("image file is truncated"))
    with pytest.raises(ImageError):
        read_patiently(disk.read)
    assert disk.n_tried == 2
