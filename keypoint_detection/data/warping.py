"""Map pixels into the network's input by a single affine map, without aliasing."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.resizing import interpolate

# Up to this factor, a bilinear warp creates no false patterns; beyond it, pixels would be skipped.
LARGEST_SHRINKING_WITHOUT_FILTER = 1.02
# The weights of grey, ITU-R BT.601, as in torchvision.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
# Taps of the blur on each side of a pixel.
BLUR_RADIUS = 2


def find_shrinking(to_pixels: NDArray[np.float64]) -> tuple[float, float]:
    """Compute how many source pixels fall into one pixel of the result, (along its height, along its width).

    Args:
        to_pixels: (3, 3) the affine map from the result to the source.
    """
    return math.hypot(*to_pixels[1, :2]), math.hypot(*to_pixels[0, :2])


def warp(pixels: Tensor, to_pixels: NDArray[np.float64], size: tuple[int, int]) -> Tensor:
    """Sample an image through an affine map, filtered where the map shrinks it.

    Args:
        pixels: (h, w, 3) uint8.
        to_pixels: (3, 3) the affine map from the result to `pixels`, both continuous.
        size: (height, width) of the result.

    Returns:
        (3, *size) float32, *relative to the grey of the bars*, which is 0 and fills everything outside the image.
    """
    source = pixels.permute(2, 0, 1)
    height, width = pixels.shape[:2]
    shrinking = find_shrinking(to_pixels)
    if max(shrinking) > LARGEST_SHRINKING_WITHOUT_FILTER:
        rows, columns = (
            max(1, round(side / max(1.0, by))) for side, by in zip((height, width), shrinking, strict=True)
        )
        source = interpolate(source, (rows, columns))
    # From pixels of the result to [-1, 1] across the source; the same for the reduced source.
    to_unit = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]]) @ to_pixels
    x, y = (torch.arange(side, dtype=torch.float32).add_(0.5) for side in size[::-1])
    grid = torch.empty(1, *size, 2)
    for axis, (a, b, c) in enumerate(to_unit[:2].tolist()):
        torch.add((x * a)[None, :], (y * b + c)[:, None], out=grid[0, :, :, axis])
    values = source.to(torch.float32, memory_format=torch.contiguous_format).sub_(LETTERBOX_GREY)
    warped: Tensor = F.grid_sample(values[None], grid, padding_mode="zeros", align_corners=False)[0]
    return warped


def recolour(values: Tensor, colour: NDArray[np.float64], contrast: float) -> Tensor:
    """Change colours by a matrix, and the contrast about the mean grey.

    Args:
        values: (3, H, W) float32 relative to the grey of the bars, as `warp` returns them; may be overwritten.
        colour: (3, 3) acts on (red, green, blue); it keeps greys grey.
        contrast: 1 keeps it, 0 leaves only the mean grey.

    Returns:
        (3, H, W) float32, 0 black to 255 white; some values may be outside this range.
    """
    mean = float(values.mean(dim=(1, 2)) @ torch.tensor(GREY_WEIGHTS)) + LETTERBOX_GREY
    brightness = float(colour[0].sum())  # the value that the matrix gives grey
    offset = brightness * (contrast * LETTERBOX_GREY + (1 - contrast) * mean)
    if np.allclose(colour, np.eye(3) * brightness):
        values *= brightness * contrast
        values += offset
        return values
    matrix = torch.from_numpy(colour * contrast).float()
    recoloured: Tensor = torch.addmm(torch.full((3, 1), offset), matrix, values.flatten(1))
    return recoloured.view(values.shape)


def blur(values: Tensor, sigma_px: float) -> Tensor:
    """Blur (3, H, W) by a Gaussian of five taps along rows and columns, mirrored at the borders."""
    for axis in (1, 2):
        values = _blur_along(values, axis, sigma_px)
    return values


def _blur_along(values: Tensor, axis: int, sigma_px: float) -> Tensor:
    side = values.shape[axis]
    if side <= BLUR_RADIUS:
        return values
    weights = np.exp(-0.5 * (np.arange(BLUR_RADIUS + 1) / sigma_px) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    padding = [BLUR_RADIUS, BLUR_RADIUS, 0, 0] if axis == 2 else [0, 0, BLUR_RADIUS, BLUR_RADIUS]
    padded = F.pad(values, padding, mode="reflect")
    blurred: Tensor = padded.narrow(axis, BLUR_RADIUS, side) * float(weights[0])
    for distance, weight in enumerate(weights[1:].tolist(), start=1):
        for start in (BLUR_RADIUS - distance, BLUR_RADIUS + distance):
            blurred.add_(padded.narrow(axis, start, side), alpha=weight)
    return blurred
