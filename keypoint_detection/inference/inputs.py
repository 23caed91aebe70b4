"""Bring images of every form that Python programs hold them in to one: (3, H, W) uint8 RGB."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from keypoint_detection.images import read_image, to_rgb

__all__ = ["ImageLike", "to_image"]

ImageLike: TypeAlias = NDArray[Any] | Image.Image | Tensor | str | Path

N_COLOURS = 3


def to_image(source: ImageLike) -> Tensor:
    """Bring an image to (3, H, W) uint8 RGB.

    Args:
        source: a NumPy array (H, W, 3) RGB or (H, W) grey, a tensor (3, H, W), a PIL image, or the path of a file.
            Arrays and tensors are uint8, or floating-point from 0 to 1. Files and PIL images are turned upright
            according to their EXIF orientation.

    Raises:
        ImageError: the file cannot be read.
        TypeError: the image is of another type.
        ValueError: its shape or its values are not those of an image; the message says how to convert it.
    """
    if isinstance(source, str | Path):
        return read_image(str(source))
    if isinstance(source, Image.Image):
        pixels: NDArray[Any] = to_rgb(source)
    elif isinstance(source, Tensor):
        _check_tensor_shape(source)
        return _to_uint8(source.detach())
    elif isinstance(source, np.ndarray):
        _check_array_shape(source)
        pixels = np.asarray(source[..., None].repeat(N_COLOURS, axis=2) if source.ndim == 2 else source)
    else:
        raise TypeError(
            f"image: expected a NumPy array, a PIL image, a tensor or a path, found {type(source).__name__}."
        )
    # A copy: torch takes neither reversed strides (`bgr[..., ::-1]`) nor memory that cannot be written to.
    return _to_uint8(torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")))


def _check_array_shape(array: NDArray[np.generic]) -> None:
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


def _check_tensor_shape(tensor: Tensor) -> None:
    shape = tuple(tensor.shape)
    if 0 not in shape and tensor.ndim == 3 and shape[0] == N_COLOURS:
        return
    advice = ""
    if tensor.ndim == 3 and shape[2] == N_COLOURS:
        advice = " The colours come last: give image.permute(2, 0, 1)."
    elif tensor.ndim == 2:
        advice = " Grey images have three equal colours: give image.expand(3, -1, -1)."
    elif tensor.ndim == 4:
        advice = " Several images are given as a list: list(images)."
    raise ValueError(f"image: expected a tensor (3, H, W), found the shape {shape}.{advice}")


def _to_uint8(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image.contiguous()
    if not image.is_floating_point():
        raise ValueError(f"image: expected uint8 from 0 to 255, or floats from 0 to 1, found {_name(image.dtype)}.")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0 and high <= 1):  # NaN is refused too
        raise ValueError(
            f"image: floats from 0 to 1 are expected, found values from {low:g} to {high:g}. Give the image before it "
            "was normalised; where the values go up to 255, convert them to uint8."
        )
    return image.mul(255).round().to(torch.uint8).contiguous()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
