"""Augment images and their points together, with the exact inverse affine map.

Augmentation is any list of torchvision v2 transforms. Points are continuous coordinates (see `heatmaps`), which
torchvision handles exactly except in flips, expanding rotations, centre crops that pad and elastic transforms:
`ContinuousKeyPoints` corrects those.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from keypoint_detection.data.default_augmentation import DefaultAugmentation
from keypoint_detection.geometry import apply_affine, compose_affine, invert_affine
from keypoint_detection.images import LETTERBOX_GREY, ResizeMode
from keypoint_detection.printing import first_line
from keypoint_detection.resizing import resize
from keypoint_detection.types import DataError

# After this many steps the solution of an elastic transform has converged, at every strength that leaves an image
# recognisable.
N_ITERATIONS = 50
# How often an augmentation is tried before training, enough for most of its random choices to occur.
N_TRIALS = 10
# The transforms that mirror images.
FLIPS = (v2.RandomHorizontalFlip, v2.RandomVerticalFlip)


class ContinuousKeyPoints(tv_tensors.KeyPoints):  # type: ignore[misc, unused-ignore]
    """Points (N, 2) in continuous coordinates.

    A flip maps x to W - x, whereas torchvision's own maps it to W - 1 - x; and an expanding rotation follows the image,
    whereas torchvision's own is up to a pixel off.

    Attributes:
        n_references: how many of the first points are not labels and only show what a transform does.
    """

    n_references: int = 0


def _register_flip(functional: Callable[..., Any], axis: int) -> None:
    def flip(points: ContinuousKeyPoints) -> Any:
        height, width = points.canvas_size
        flipped = points.as_subclass(Tensor).clone()
        flipped[..., axis] = (width, height)[axis] - flipped[..., axis]
        return tv_tensors.wrap(flipped, like=points)

    F.register_kernel(functional, ContinuousKeyPoints)(flip)


_register_flip(F.horizontal_flip, axis=0)
_register_flip(F.vertical_flip, axis=1)


@F.register_kernel(F.rotate, ContinuousKeyPoints)  # type: ignore[untyped-decorator, unused-ignore]
def _rotate(
    points: ContinuousKeyPoints,
    angle: float,
    interpolation: Any = None,
    expand: bool = False,
    center: list[float] | None = None,
    fill: Any = None,
) -> Any:
    """Rotate as images are rotated: about the centre, which an expanded canvas of whole pixels has in common."""
    flat, (height, width) = points.as_subclass(Tensor), points.canvas_size
    rotated, canvas_size = F.rotate_keypoints(flat, (height, width), angle, center=None if expand else center)
    if expand:
        # The resulting image size; the one that torchvision computes for points can differ by a pixel.
        blank = torch.empty(1, height, width, dtype=torch.uint8)
        canvas_size = tuple(F.rotate_image(blank, angle, expand=True).shape[-2:])
        rotated = rotated + torch.tensor([canvas_size[1] - width, canvas_size[0] - height]) / 2
    return tv_tensors.wrap(rotated, like=points, canvas_size=canvas_size)


@F.register_kernel(F.center_crop, ContinuousKeyPoints)  # type: ignore[untyped-decorator, unused-ignore]
def _center_crop(points: ContinuousKeyPoints, output_size: list[int]) -> Any:
    """Move points as pixels are moved: images smaller than the crop get the odd pixel at their far end."""
    size = tuple(output_size) * 2 if len(output_size) == 1 else tuple(output_size)
    # Offsets from the left and top; a crop removes the excess, rounded as in torchvision.
    moves = [
        (new - old) // 2 if new > old else -round((old - new) / 2)
        for new, old in zip(size, points.canvas_size, strict=True)
    ]
    moved = points.as_subclass(Tensor) + torch.tensor(moves[::-1])
    return tv_tensors.wrap(moved, like=points, canvas_size=size)


@F.register_kernel(F.elastic, ContinuousKeyPoints)  # type: ignore[untyped-decorator, unused-ignore]
def _elastic(points: ContinuousKeyPoints, displacement: Tensor, interpolation: Any = None, fill: Any = None) -> Any:
    """Find where an elastic transform moves points: to the position whose pixel it samples at the point.

    Images are sampled at x + d(x), so a point p appears at the x that solves x + d(x) = p, found by fixed-point
    iteration, which converges because the displacement changes slowly.
    """
    flat, (height, width) = points.as_subclass(Tensor), points.canvas_size
    size = torch.tensor([width, height])
    field = displacement.permute(0, 3, 1, 2).float()  # (1, 2, H, W), in halves of the image
    x = flat.clone()
    for _ in range(N_ITERATIONS if len(flat) else 0):
        grid = (2 * x / size - 1)[None, None]  # (1, 1, N, 2)
        moved = torch.nn.functional.grid_sample(field, grid, padding_mode="border", align_corners=False)
        x = flat - moved[0, :, 0].T * size / 2
    return tv_tensors.wrap(x, like=points)


class Augmented(NamedTuple):
    """The result of an augmentation.

    Attributes:
        image: (3, H, W) uint8.
        points: (N, 2) float32 pixels of the augmented image, in the given order; some may be outside it.
        is_mirrored: whether the image is mirrored, with left and right swapped.
        to_source: (2, 3) affine map from the augmented image to the given one; if the augmentation is not affine
            (perspective, elastic), the map that agrees with it at three points around the centre.
    """

    image: Tensor
    points: Tensor
    is_mirrored: bool
    to_source: Tensor


def augment(image: Tensor, points: Tensor, transform: Callable[..., Any], n_unlabelled: int = 0) -> Augmented:
    """Apply a torchvision v2 transform to an image and its points.

    Args:
        image: (3, H, W) uint8.
        points: (N, 2) float32, continuous pixels.
        transform: called with a `tv_tensors.Image` and `ContinuousKeyPoints`.
        n_unlabelled: how many of the first points only move along: the transform need not keep them in view.

    Raises:
        ValueError: the transform changed the number of points or the type of the image.
    """
    height, width = image.shape[-2:]
    # Three additional points show what the transform did: whether it mirrored, and its inverse map.
    reference = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75]]) * torch.tensor([width, height])
    carried = ContinuousKeyPoints(torch.cat([reference, points]), canvas_size=(height, width))
    carried.n_references = len(reference) + n_unlabelled
    image_out, moved_points = transform(tv_tensors.Image(image), carried)
    image_out, moved_points = image_out.as_subclass(Tensor), moved_points.as_subclass(Tensor)
    if moved_points.shape != carried.shape:
        raise ValueError(
            f"an augmentation changed the number of points from {len(carried)} to {len(moved_points)}; leave out "
            "transforms that remove points (SanitizeKeyPoints): points that leave the image are dropped anyway."
        )
    if image_out.dtype != torch.uint8 or image_out.ndim != image.ndim or len(image_out) != len(image):
        raise ValueError(
            f"an augmentation returned an image of {image_out.dtype} and shape {tuple(image_out.shape)}; 8-bit RGB is "
            "expected. Leave out ToDtype, Normalize and Grayscale(1): the model normalises its own input."
        )
    moved = moved_points[: len(reference)]
    to_source = _affine_through(moved, reference)
    is_mirrored = bool(torch.linalg.det(to_source[:, :2]) < 0)
    return Augmented(image_out, moved_points[len(reference) :], is_mirrored, to_source)


def _affine_through(sources: Tensor, targets: Tensor) -> Tensor:
    """Return the (2, 3) affine map that takes three points (3, 2) to three others (3, 2)."""
    homogeneous = torch.cat([sources.double(), torch.ones(3, 1, dtype=torch.float64)], dim=1)
    matrix: Tensor = torch.linalg.solve(homogeneous, targets.double()).T.float()
    return matrix


def try_augmentation(
    transform: Callable[..., Any], size: Sequence[int], flip_pairs: Sequence[tuple[str, str]] | None
) -> None:
    """Try an augmentation on a grey image before training; otherwise its worker processes would fail later.

    Args:
        transform: the augmentation.
        size: (height, width) of the image in pixels.
        flip_pairs: the types that swap when an image is mirrored; None if unknown.

    Raises:
        DataError: it mirrors images but it is unknown which types swap; or it fails.
    """
    flips = sorted({type(one).__name__ for one in _walk(transform) if isinstance(one, FLIPS) or _is_flipping(one)})
    if flips and flip_pairs is None:
        raise DataError(
            f"data.augmentation has {' and '.join(flips)}, but it is unknown which keypoint types swap in a mirrored "
            "image. Give data.flip_pairs, e.g. [[left_ear, right_ear]], or [] if no type has a mirrored counterpart."
        )
    try:
        image = torch.full((3, *size), LETTERBOX_GREY, dtype=torch.uint8)
    except RuntimeError as error:
        raise DataError(f"data.image_size: an image of {size[0]}x{size[1]} does not fit into memory.") from error
    with torch.random.fork_rng(devices=[]):
        for _ in range(N_TRIALS):
            try:
                augment(image, torch.zeros(0, 2), transform)
            except Exception as error:  # the transforms can be the user's own, with any arguments
                raise DataError(
                    f"data.augmentation fails on an image of {size[0]}x{size[1]} (height x width): "
                    f"{first_line(error)}. The transforms are: "
                    f"{', '.join(type(one).__name__ for one in _walk(transform) if not isinstance(one, v2.Compose))}."
                ) from error


def _is_flipping(transform: Any) -> bool:
    return isinstance(transform, DefaultAugmentation) and transform.flip


def _walk(transform: Any) -> Iterator[Any]:
    """Yield a transform and all those that it contains."""
    yield transform
    for one in getattr(transform, "transforms", ()):
        yield from _walk(one)


def fit_to_size(augmented: Augmented, size: tuple[int, int], mode: ResizeMode) -> Augmented:
    """Resize an augmented image whose transform changed its size (a crop, an expanding rotation)."""
    if tuple(augmented.image.shape[-2:]) == size:
        return augmented
    image, to_augmented = resize(augmented.image, size, mode)
    points = apply_affine(augmented.points[None], invert_affine(to_augmented)[None])[0]
    return Augmented(image, points, augmented.is_mirrored, compose_affine(to_augmented, augmented.to_source))


def default_augmentation(may_flip: bool) -> list[v2.Transform]:
    """List the augmentations that suit most keypoint data.

    Args:
        may_flip: mirror half of the images; only correct if it is known which types swap.
    """
    return [DefaultAugmentation(flip=may_flip)]
