import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from keypoint_detection.data.warping import blur, recolour, warp
from keypoint_detection.images import LETTERBOX_GREY


def noise(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def test_the_identity_gives_every_pixel_back():
    pixels = noise(20, 30)
    warped = warp(pixels, np.eye(3), (20, 30)) + LETTERBOX_GREY
    torch.testing.assert_close(warped, pixels.permute(2, 0, 1).float(), rtol=0, atol=2e-3)


def test_what_lies_outside_is_as_grey_as_bars():
    shifted = np.array([[1, 0, -10], [0, 1, 0], [0, 0, 1.0]])
    warped = warp(noise(20, 30), shifted, (20, 30))
    assert warped[:, :, :10].abs().max() < 1e-3
    assert (warped[:, :, 10:].abs() > 1).float().mean() > 0.9


@pytest.mark.parametrize("by", [1.25, 2.5, 7.3])
@pytest.mark.parametrize("degrees", [0, 30])
def test_shrinking_makes_no_pattern_that_is_not_there(by, degrees):
    """Fields of two pixels become an even grey where they are smaller than a pixel of the result."""
    rows, columns = torch.meshgrid(torch.arange(400) // 2, torch.arange(400) // 2, indexing="ij")
    pixels = (((rows + columns) % 2) * 255).to(torch.uint8)[:, :, None].expand(-1, -1, 3)
    cosine, sine = by * np.cos(np.radians(degrees)), by * np.sin(np.radians(degrees))
    to_pixels = np.array([[cosine, -sine, 200], [sine, cosine, 200], [0, 0, 1]])
    warped = warp(pixels, to_pixels, (20, 20))
    fields_px = 2 / by
    # Fields that are larger than a pixel are seen, and shall be.
    assert warped.std() < (8 if fields_px < 1 else 110)


def test_a_shrunken_image_is_that_of_an_antialiased_resize():
    pixels = noise(120, 160)
    warped = warp(pixels, np.diag([4.0, 4.0, 1.0]), (30, 40)) + LETTERBOX_GREY
    expected = F.resize(pixels.permute(2, 0, 1), [30, 40], antialias=True)
    torch.testing.assert_close(warped, expected.float(), rtol=0, atol=2e-3)


def test_brightness_and_contrast_are_those_of_torchvision():
    image = noise(20, 30).permute(2, 0, 1).float() / 2 + 64  # nothing is clipped
    expected = F.adjust_contrast(F.adjust_brightness(image / 255, 0.8), 0.7) * 255
    found = recolour(image - LETTERBOX_GREY, np.eye(3) * 0.8, 0.7)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_a_matrix_of_colours_keeps_greys_and_acts_on_the_rest():
    exchange_red_and_green = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    image = noise(20, 30).permute(2, 0, 1).float()
    found = recolour(image - LETTERBOX_GREY, exchange_red_and_green, 1.0)
    torch.testing.assert_close(found, image[[1, 0, 2]], rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma_px", [0.3, 1.0, 1.5])
def test_the_blur_is_that_of_torchvision(sigma_px):
    image = noise(20, 30).permute(2, 0, 1).float()
    expected = F.gaussian_blur(image, [5, 5], [sigma_px, sigma_px])
    torch.testing.assert_close(blur(image, sigma_px), expected, rtol=0, atol=1e-3)


def test_an_image_that_is_smaller_than_the_blur_is_left_alone():
    image = noise(2, 1).permute(2, 0, 1).float()
    assert torch.equal(blur(image, 1.0), image)
