"""Convert images from any form used in Python to (H, W, 3) uint8 RGB."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.images import read_pixels, to_rgb

if TYPE_CHECKING:
    from torch import Tensor

ImageLike: TypeAlias = Union[NDArray[Any], Image.Image, "Tensor", str, Path]

N_COLOURS = 3


def to_pixels(source: ImageLike) -> NDArray[np.uint8]:
    """Convert an image to (H, W, 3) uint8 RGB.

    Args:
        source: a NumPy array (H, W, 3) RGB or (H, W) grey, a tensor (3, H, W) or (1, H, W), a PIL image, or the path of
            a file.
            Arrays and tensors are uint8, or floating-point from 0 to 1. Files and PIL images are turned upright
            according to their EXIF orientation.

    Raises:
        ImageError: the file cannot be read.
        TypeError: the image is of another type.
        ValueError: its shape or values are not those of an image; the message says how to convert it.
    """
    if isinstance(source, str | Path):
        return read_pixels(str(source))
    if isinstance(source, Image.Image):
        return to_rgb(source)
    if isinstance(source, np.ndarray):
        _check_array_shape(source)
        return _to_uint8(source[..., None].repeat(N_COLOURS, axis=2) if source.ndim == 2 else source)
    # A caller with a tensor has loaded torch; nothing else here needs it.
    if type(source).__module__.startswith("torch") and hasattr(source, "detach"):
        # NumPy has no bfloat16.
        array = (source.detach().float() if source.is_floating_point() else source.detach()).cpu().numpy()
        _check_tensor_shape(array)
        return _to_uint8(np.broadcast_to(array, (N_COLOURS, *array.shape[1:])).transpose(1, 2, 0))
    raise TypeError(f"image: expected a NumPy array, a PIL image, a tensor or a path, found {type(source).__name__}.")


def _check_array_shape(array: NDArray[Any]) -> None:
    shape = array.shape
    if 0 not in shape and (array.ndim == 2 or (array.ndim == 3 and shape[2] == N_COLOURS)):
        return
    advice = ""
    if array.ndim == 3 and shape[0] == N_COLOURS:
        advice = " The colours come first: give image.transpose(1, 2, 0)."
    elif array.ndim == 3 and shape[2] == 4:
        advice = " Leave the alpha channel out: give image[..., :3]."
    elif array.ndim == 3 and shape[2] == 1:
        advice = " Give image[..., 0]."
    elif array.ndim == 4:
        advice = " Several images are given as a list: list(images)."
    raise ValueError(f"image: expected an array (H, W, 3) or (H, W), found the shape {shape}.{advice}")


def _check_tensor_shape(array: NDArray[Any]) -> None:
    shape = array.shape
    if 0 not in shape and array.ndim == 3 and shape[0] in (1, N_COLOURS):
        return
    advice = ""
    if array.ndim == 3 and shape[2] == N_COLOURS:
        advice = " The colours come last: give image.permute(2, 0, 1)."
    elif array.ndim == 2:
        advice = " Grey images have one colour: give image[None]."
    elif array.ndim == 4:
        advice = " Several images are given as a list: list(images)."
    raise ValueError(f"image: expected a tensor (3, H, W) or (1, H, W), found the shape {shape}.{advice}")


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    # Contiguous: torch does not accept negative strides, such as those of `bgr[..., ::-1]`.
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image: expected uint8 from 0 to 255, or floats from 0 to 1, found {image.dtype}.")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # NaN is refused too
        raise ValueError(
            f"image: floats from 0 to 1 are expected, found values from {low:g} to {high:g}. Give the image before "
            "normalisation; if the values go up to 255, convert them to uint8."
        )
    return np.ascontiguousarray((image * 255).round().astype(np.uint8))
