"""Resize uint8 images exactly as torch does on a CPU, in operations that can be exported.

The Resize of onnxruntime rounds its weights differently: one value in a hundred is off by one level, which moves points
by up to a tenth of a pixel in an image five times as large as the network's input.
"""

from typing import Any

import torch
from torch import Tensor

# torch rounds its weights to 16-bit integers, with as many binary places as the largest of them allows
# (`_compute_index_ranges_int16_weights` in its UpSampleKernel.cpp).
LARGEST_WEIGHT = 2**15
MOST_PLACES = 22
LARGEST_LEVEL = 255


def resize_plainly(images: Tensor, size: tuple[Any, Any]) -> Tensor:
    """Resize with bilinear interpolation and antialiasing.

    Args:
        images: (B, 3, H, W) uint8.
        size: (height, width) of the result in pixels; may be dynamic during export.

    Returns:
        (B, 3, *size) float32 with integer values.
    """
    height, width = images.shape[-2:]
    across, places = _weigh(width, size[1])
    x = _round(images.float() @ across.T, places)
    down, places = _weigh(height, size[0])
    return _round(down @ x, places)


def _weigh(length: Any, new_length: Any) -> tuple[Tensor, Tensor]:
    """Return the (new_length, length) weights of old cells in new ones, as integers, and their binary places."""
    scale = torch.scalar_tensor(length, dtype=torch.float64) / torch.scalar_tensor(new_length, dtype=torch.float64)
    support = scale.clamp(min=1.0)
    centre = scale * (torch.arange(new_length, dtype=torch.float64)[:, None] + 0.5)
    cell = torch.arange(length, dtype=torch.float64)
    weights = (1 - ((cell + 0.5 - centre) / support).abs()).clamp(min=0.0)
    weights = weights / weights.sum(1, keepdim=True)
    powers = 2.0 ** torch.arange(1, MOST_PLACES + 1, dtype=torch.float64)
    places = ((0.5 + weights.max() * powers).floor() < LARGEST_WEIGHT).sum()
    whole = (weights * 2.0 ** places.double() + 0.5).floor()
    return whole.float(), places


def _round(sums: Tensor, places: Tensor) -> Tensor:
    return (sums / 2.0 ** places.float() + 0.5).floor().clamp(0, LARGEST_LEVEL)
