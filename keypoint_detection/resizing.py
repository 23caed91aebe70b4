"""Read images as tensors, and resize them to the network's input with the exact affine map back to the image."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from keypoint_detection.images import LETTERBOX_GREY, ResizeMode, fit_size, read_pixels


def read_image(path: str) -> Tensor:
    """Read an image of any mode as (3, H, W) uint8 RGB, upright; see `read_pixels`."""
    # Not made contiguous: interleaved channels are resized twice as fast, with the same result.
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


class Placement(NamedTuple):
    """Where an image lies in the input: its (height, width) in pixels and the corner nearest to the origin.

    Attributes:
        inner: the size of the resized image.
        top: number of rows above it.
        left: number of columns to its left.
        to_source: (3, 3) the affine map from the input to the image.
    """

    inner: tuple[int, int]
    top: int
    left: int
    to_source: NDArray[np.float64]


def place(source: tuple[int, int], size: tuple[int, int], mode: ResizeMode) -> Placement:
    """Determine where an image lies once it is resized to an exact size; see `resize`.

    Args:
        source: (height, width) of the image.
        size: (height, width) of the result.
        mode: how it is resized.
    """
    height, width = source
    inner = size if mode == "stretch" else fit_size(source, size)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    scale_x, scale_y = width / inner[1], height / inner[0]
    to_source = np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y], [0, 0, 1]])
    return Placement(inner, top, left, to_source)


def interpolate(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image bilinearly, filtered where it shrinks: torchvision's `resize`, whose import takes a second.

    Args:
        image: (3, H, W) uint8.
        size: (height, width) of the result in pixels.
    """
    batch = image[None]
    if batch.is_contiguous(memory_format=torch.channels_last):
        # For a single image, torch recognises interleaved channels only by the stride of the batch.
        batch = batch.as_strided(batch.shape, (image.numel(), *image.stride()))
    return F.interpolate(batch, size=list(size), mode="bilinear", align_corners=False, antialias=True)[0]


def resize(image: Tensor, size: tuple[int, int], mode: ResizeMode) -> tuple[Tensor, Tensor]:
    """Resize an image to an exact size.

    Args:
        image: (3, H, W) uint8.
        size: (height, width) of the result in pixels.
        mode: `letterbox` keeps the aspect ratio and adds grey bars, `stretch` does not.

    Returns:
        The (3, *size) uint8 image and the (2, 3) affine map from its pixels to those of `image`.
    """
    source = (int(image.shape[-2]), int(image.shape[-1]))
    inner, top, left, to_source = place(source, size, mode)
    if inner != source:
        image = interpolate(image, inner)
    if inner != size:
        padded = image.new_full((*image.shape[:-2], *size), LETTERBOX_GREY)
        padded[..., top : top + inner[0], left : left + inner[1]] = image
        image = padded
    return image.contiguous(), torch.from_numpy(to_source[:2]).float()
