"""Read images upright, and bring them to the size of the network's input with the exact affine map back."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["LETTERBOX_GREY", "ImageError", "ImageSizes", "ResizeMode", "read_image", "read_sizes", "resize", "to_rgb"]

ResizeMode = Literal["letterbox", "stretch"]

# A mid grey, so that the bars of a letterbox are not a strong edge after normalisation.
LETTERBOX_GREY = 114

# Pillow reads 16-bit greyscale as one of these; 65535 / 255 brings the values to 8 bits.
MODES_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
GREY_LEVELS_16_PER_8_BIT = 257


EXIF_ORIENTATION = 0x0112
# The orientations that put an image on its side: height and width change places when it is shown.
EXIF_SIDEWAYS = (5, 6, 7, 8)
# What Pillow raises for files that it cannot read: SyntaxError for broken PNG chunks, ValueError for bad headers.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class ImageError(OSError):
    """A file cannot be read as an image; the message names it."""


class ImageSizes(NamedTuple):
    """The size of an image, (height, width) in pixels.

    Attributes:
        shown: upright, according to its EXIF orientation: what `read_image` gives.
        stored: as its pixels lie in the file.
    """

    shown: tuple[int, int]
    stored: tuple[int, int]


def read_sizes(path: str) -> ImageSizes:
    """Read the size of an image from its header.

    Raises:
        ImageError: the file is missing or not an image; what is broken further inside is found by `read_image`.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            is_sideways = file.getexif().get(EXIF_ORIENTATION) in EXIF_SIDEWAYS
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return ImageSizes((width, height) if is_sideways else (height, width), (height, width))


def _unreadable(path: str, error: BaseException) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: there is no such file.")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f"{path}: is larger than Pillow reads ({str(error).split(',')[0]}). Save it smaller.")
    reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
    return ImageError(f"{path}: cannot be read as an image ({reason}). Is the file complete?")


def read_image(path: str) -> Tensor:
    """Read an image of any mode as (3, H, W) uint8 RGB, upright according to its EXIF orientation.

    Sixteen-bit greyscale is scaled to 8 bits; an alpha channel is dropped.

    Raises:
        ImageError: the file is missing or not a readable image.
    """
    try:
        with Image.open(path) as file:
            pixels = to_rgb(file)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Bring an image of any mode to (H, W, 3) uint8 RGB, upright; see `read_image`."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in MODES_16_BIT:
        upright = Image.fromarray((np.asarray(upright) // GREY_LEVELS_16_PER_8_BIT).clip(0, 255).astype(np.uint8))
    return np.array(upright.convert("RGB"))


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
