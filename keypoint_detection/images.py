"""Read images upright, and bring them to the size of the network's input with the exact affine map back."""

from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["LETTERBOX_GREY", "ResizeMode", "read_image", "resize"]

ResizeMode = Literal["letterbox", "stretch"]

# A mid grey, so that the bars of a letterbox are no strong edge after normalisation.
LETTERBOX_GREY = 114

# Pillow reads 16-bit greyscale as one of these; 65535 / 255 brings the values to 8 bits.
MODES_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
GREY_LEVELS_16_PER_8_BIT = 257


def read_image(path: str) -> Tensor:
    """Read a picture of any mode as (3, H, W) uint8 RGB, upright according to its EXIF orientation.

    Sixteen-bit greyscale is scaled to 8 bits; an alpha channel is dropped.

    Raises:
        OSError: the file is missing or no readable picture; the message names it.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode in MODES_16_BIT:
                upright = Image.fromarray(
                    (np.asarray(upright) // GREY_LEVELS_16_PER_8_BIT).clip(0, 255).astype(np.uint8)
                )
            pixels = np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow raises SyntaxError for broken PNG chunks and ValueError for impossible headers.
        raise OSError(f"{path}: cannot be read as a picture ({error}). Is the file complete?") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def resize(image: Tensor, size: tuple[int, int], mode: ResizeMode) -> tuple[Tensor, Tensor]:
    """Bring a picture to an exact size.

    Args:
        image: (3, H, W) uint8.
        size: (height, width) of the result in pixels.
        mode: `letterbox` keeps the aspect ratio and adds grey bars, `stretch` does not.

    Returns:
        The (3, *size) uint8 picture and the (2, 3) affine map from its pixels to those of `image`.
    """
    height, width = image.shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    inner = size if mode == "stretch" else (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    if inner != (height, width):
        image = F.resize(image, list(inner), antialias=True)
    if inner != size:
        padding = [left, top, size[1] - inner[1] - left, size[0] - inner[0] - top]
        image = F.pad(image, padding, fill=[LETTERBOX_GREY])
    scale_x, scale_y = width / inner[1], height / inner[0]
    to_source = torch.tensor([[scale_x, 0.0, -left * scale_x], [0.0, scale_y, -top * scale_y]])
    return image, to_source
