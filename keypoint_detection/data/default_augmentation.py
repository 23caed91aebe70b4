"""The augmentation that suits most keypoint data, done in a single step with reading the image."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from keypoint_detection.data.warping import blur, recolour, warp

# Hue rotates about the axis of greys in the YIQ colour space of NTSC television.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# The weakest blur drawn, which changes nothing.
SMALLEST_BLUR_PX = 0.1
FLIP_PROBABILITY = 0.5


class View(NamedTuple):
    """A randomly drawn view of an image.

    Attributes:
        angle: angle of the rotation in radians.
        scale: magnification of what is seen; 1 keeps its size.
        shift: shift to the right and down, as fractions of the width and the height.
        is_mirrored: whether left and right are swapped first.
        colour: (3, 3) the matrix that changes (red, green, blue); greys stay grey.
        contrast: contrast factor; 1 keeps it.
        blur_px: the standard deviation of a Gaussian blur; 0 for none.
    """

    angle: float
    scale: float
    shift: tuple[float, float]
    is_mirrored: bool
    colour: NDArray[np.float64]
    contrast: float
    blur_px: float

    def to_canvas(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the affine map from the view to its image, (3, 3).

        Args:
            size: (height, width) of both in pixels.
        """
        extent = np.array([size[1], size[0]])
        # The inverse of: mirror, rotate and scale about the centre, shift.
        cosine, sine = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        direction = -1 if self.is_mirrored else 1
        matrix = np.array([[direction * cosine, direction * sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        matrix[:2, 2] = extent / 2 - matrix[:2, :2] @ (extent * (0.5 + np.array(self.shift)))
        return matrix


class DefaultAugmentation(v2.Transform):  # type: ignore[misc, unused-ignore]
    """Rotate, shift, scale, recolour and blur an image at random, all in a single step with reading it.

    Labelled points stay in view, except those that are too far apart to fit into it.

    If it is the first of `data.augmentation`, it can have other strengths, and other transforms can follow it.

    Args:
        flip: mirror half of the images; only correct if `data.flip_pairs` gives the types that swap.
        degrees: maximum rotation in either direction.
        translate: maximum shift, as a share of the width and the height; where points would leave the image, the range
            that shifts are drawn from is moved until they stay.
        min_scale: minimum scale, 1 being the original size.
        max_scale: maximum scale.
        brightness: maximum share by which the image becomes darker or brighter.
        contrast: maximum share by which its contrast decreases or increases.
        saturation: maximum share by which colours become paler or stronger, if they are changed.
        hue: maximum rotation of the hue, as a share of the full circle, if colours are changed.
        colour_probability: probability that saturation and hue are changed.
        max_blur_px: maximum standard deviation of the blur, if any, in pixels.
        blur_probability: probability that an image is blurred.
    """

    def __init__(
        self,
        flip: bool = False,
        degrees: NonNegativeFloat = 30.0,
        translate: ClosedUnitInterval = 0.1,
        min_scale: PositiveFloat = 0.7,
        max_scale: PositiveFloat = 1.4,
        brightness: ClosedUnitInterval = 0.3,
        contrast: ClosedUnitInterval = 0.3,
        saturation: ClosedUnitInterval = 0.3,
        hue: ClosedUnitInterval = 0.03,
        colour_probability: ClosedUnitInterval = 0.2,
        max_blur_px: PositiveFloat = 1.5,
        blur_probability: ClosedUnitInterval = 0.2,
    ) -> None:
        super().__init__()
        self.flip = flip
        self.degrees, self.translate = degrees, translate
        self.min_scale, self.max_scale = min_scale, max_scale
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue, self.colour_probability = saturation, hue, colour_probability
        self.max_blur_px, self.blur_probability = max_blur_px, blur_probability
        if min_scale > max_scale:
            raise ValueError(f"min_scale is {min_scale:g}, which is above max_scale, {max_scale:g}.")

    def draw(self, seed: int) -> View:
        """Draw a view that depends only on the seed."""
        rng = np.random.default_rng(seed)
        brightness = rng.uniform(1 - self.brightness, 1 + self.brightness)
        colour = np.eye(3) * brightness
        if rng.random() < self.colour_probability:
            saturation = rng.uniform(1 - self.saturation, 1 + self.saturation)
            colour = _turn_colours(saturation, rng.uniform(-self.hue, self.hue)) @ colour
        is_blurred = rng.random() < self.blur_probability
        return View(
            angle=math.radians(rng.uniform(-self.degrees, self.degrees)),
            scale=rng.uniform(self.min_scale, self.max_scale),
            shift=(rng.uniform(-self.translate, self.translate), rng.uniform(-self.translate, self.translate)),
            is_mirrored=self.flip and rng.random() < FLIP_PROBABILITY,
            colour=colour,
            contrast=rng.uniform(1 - self.contrast, 1 + self.contrast),
            blur_px=rng.uniform(min(SMALLEST_BLUR_PX, self.max_blur_px), self.max_blur_px) if is_blurred else 0.0,
        )

    def keep_inside(self, view: View, points: NDArray[np.floating], size: tuple[int, int]) -> View:
        """Shift a view so that it shows as many points as possible, depending only on its own shift.

        Args:
            view: as drawn.
            points: (N, 2) points inside the image, in its pixels.
            size: (height, width) of the image and the view in pixels.
        """
        if not len(points):
            return view
        extent = np.array([size[1], size[0]])
        from_canvas = np.linalg.inv(view._replace(shift=(0.0, 0.0)).to_canvas(size))
        shown = (points @ from_canvas[:2, :2].T + from_canvas[:2, 2]) / extent
        shifts = zip(view.shift, -shown.min(axis=0), 1 - shown.max(axis=0), strict=True)
        across, down = (_limit_shift(shift, self.translate, low, high) for shift, low, high in shifts)
        return view._replace(shift=(across, down))

    def forward(self, image: Any, points: Any) -> tuple[Any, Any]:
        """Change an image and its points, like any torchvision transform; see `augment`."""
        size = (int(image.shape[-2]), int(image.shape[-1]))
        labelled = points.as_subclass(Tensor)[getattr(points, "n_references", 0) :].numpy()
        is_inside = ((labelled >= 0) & (labelled <= (size[1], size[0]))).all(axis=1)
        view = self.keep_inside(self.draw(draw_seed()), labelled[is_inside], size)
        to_canvas = view.to_canvas(size)
        pixels = image.as_subclass(Tensor).permute(1, 2, 0)
        from_canvas = torch.from_numpy(np.linalg.inv(to_canvas)).float()
        moved = points.as_subclass(Tensor) @ from_canvas[:2, :2].T + from_canvas[:2, 2]
        return tv_tensors.Image(render(pixels, to_canvas, size, view)), tv_tensors.wrap(moved, like=points)


def _limit_shift(shift: float, most: float, low: float, high: float) -> float:
    """Turn a shift drawn from [-most, most] into one drawn from a range that keeps the points inside.

    The range is moved before it is cut, so points near a border still appear in many places.

    Args:
        shift: as drawn.
        most: maximum shift.
        low: the smallest shift that keeps all points inside.
        high: the largest one; below `low` if the points do not fit.
    """
    low, high = min(low, high), max(low, high)
    low, high = max(low, min(-most, high - 2 * most)), min(high, max(most, low + 2 * most))
    return low + (high - low) * (shift + most) / (2 * most) if most else min(max(0.0, low), high)


def draw_seed() -> int:
    """Draw a seed from torch's global generator, from which torchvision's transforms draw too."""
    return int(torch.randint(2**62, ()))


def _turn_colours(saturation: float, hue: float) -> NDArray[np.float64]:
    """Return the (3, 3) matrix on (red, green, blue) that scales saturation and rotates hue, 1 being a full circle."""
    angle = 2 * math.pi * hue
    cosine, sine = saturation * math.cos(angle), saturation * math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix: NDArray[np.float64] = np.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ
    return matrix


def render(pixels: Tensor, to_pixels: NDArray[np.float64], size: tuple[int, int], view: View) -> Tensor:
    """Render pixels as seen through a view.

    Args:
        pixels: (h, w, 3) uint8.
        to_pixels: (3, 3) the affine map from the view to `pixels`, including everything in between.
        size: (height, width) of the view.
        view: determines the change of colours.

    Returns:
        (3, *size) uint8.
    """
    values = recolour(warp(pixels, to_pixels, size), view.colour, view.contrast)
    if view.blur_px:
        values = blur(values, view.blur_px)
    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)
