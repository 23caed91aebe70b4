"""Images as tensors: read, and brought to the size of the network's input with the exact affine map back."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from keypoint_detection.images import LETTERBOX_GREY, ResizeMode, fit_size, read_pixels

__all__ = ["read_image", "resize"]


def read_image(path: str) -> Tensor:
    """Read an image of any mode as (3, H, W) uint8 RGB, upright; see `read_pixels`."""
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1).contiguous()


def resize(image: Tensor, size: tuple[int, int], mode: ResizeMode) -> tuple[Tensor, Tensor]:
    """Bring an image to an exact size.

    Args:
        image: (3, H, W) uint8.
        size: (height, width) of the result in pixels.
        mode: `letterbox` keeps the aspect ratio and adds grey bars, `stretch` does not.

    Returns:
        The (3, *size) uint8 image and the (2, 3) affine map from its pixels to those of `image`.
    """
    height, width = image.shape[-2:]
    inner = size if mode == "stretch" else fit_size((height, width), size)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    if inner != (height, width):
        image = F.resize(image, list(inner), antialias=True)
    if inner != size:
        padding = [left, top, size[1] - inner[1] - left, size[0] - inner[0] - top]
        image = F.pad(image, padding, fill=[LETTERBOX_GREY])
    scale_x, scale_y = width / inner[1], height / inner[0]
    to_source = torch.tensor([[scale_x, 0.0, -left * scale_x], [0.0, scale_y, -top * scale_y]])
    return image, to_source
