"""Read an image as the network sees it, with its points."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from keypoint_detection.data.augmentation import augment, fit_to_size
from keypoint_detection.data.default_augmentation import DefaultAugmentation, View, draw_seed, render
from keypoint_detection.data.image_cache import ImageCache, read_resized
from keypoint_detection.data.warping import find_shrinking
from keypoint_detection.geometry import apply_affine, compose_affine, invert_affine
from keypoint_detection.images import ImageError, ResizeMode, read_patiently, read_stored
from keypoint_detection.resizing import place

T = TypeVar("T")


class ShownImage(NamedTuple):
    """An image as the network sees it, and its points (P rows).

    Attributes:
        image: (3, H, W) uint8 RGB.
        points: (P, 2) float32 input pixels.
        centres: (P, 2) float32 input pixels, of the objects of the points.
        is_inside: (P,) whether each point is inside both the original image and the part that is shown.
        is_mirrored: whether it is shown as in a mirror.
        input_to_image: (2, 3) float32.
        image_size: (height, width) of the original image.
    """

    image: Tensor
    points: Tensor
    centres: Tensor
    is_inside: NDArray[np.bool_]
    is_mirrored: bool
    input_to_image: Tensor
    image_size: tuple[int, int]


class ImageReader:
    """Read images, resize them to the network's input, and augment them.

    Without augmentation, images are resized exactly as in a `Predictor` and an exported detector, to the bit. The
    default augmentation on its own needs no intermediate image: it is a single step with reading.

    Args:
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how images are resized.
        transform: the augmentation, a torchvision v2 transform; None for none.
        cache: keeps images as they are before augmentation; None: every image is read from its file each time.
    """

    def __init__(
        self,
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        transform: Callable[..., Any] | None,
        cache: ImageCache | None,
    ) -> None:
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.transform = transform
        self._cache = cache
        self._default = _find_default(transform)
        # Images that could not be read, for which it is not worth waiting again.
        self._given_up: set[str] = set()

    def read(
        self, path: str, points_image: NDArray[np.float32], centres_image: NDArray[np.float32], seed: int | None
    ) -> ShownImage:
        """Read one image.

        Args:
            path: the file.
            points_image: (P, 2) the points in image pixels.
            centres_image: (P, 2) the centres of their objects in image pixels, which move along with the image.
            seed: seed of the augmentation; None: torch's global generator.

        Raises:
            ImageError: the file cannot be read, even after trying again for some seconds.
        """
        if self._default is None:
            return self._read_exactly(path, points_image, centres_image, seed)
        drawn = self._default.draw(draw_seed() if seed is None else seed)
        return self._read_view(path, points_image, centres_image, self._default, drawn)

    def _read_file(self, path: str, read: Callable[[], T]) -> T:
        """Read a file, patiently the first time; no random number depends on how often it is tried."""
        if path in self._given_up:
            return read()
        try:
            return read_patiently(read)
        except ImageError:
            self._given_up.add(path)
            raise

    def _read_view(
        self,
        path: str,
        points_image: NDArray[np.float32],
        centres_image: NDArray[np.float32],
        default: DefaultAugmentation,
        drawn: View,
    ) -> ShownImage:
        def aim(image_size: tuple[int, int]) -> tuple[View, NDArray[np.float64]]:
            """Return the view of an image, and the map from the input to the image."""
            input_size = self.image_size or image_size
            to_shown: NDArray[np.float64] = place(image_size, input_size, self.resize_mode).to_source
            inside = points_image[_is_inside(points_image, image_size)]
            view = default.keep_inside(drawn, _move(inside, np.linalg.inv(to_shown)), input_size)
            return view, to_shown @ view.to_canvas(input_size)

        if self._cache is None:
            stored = self._read_file(
                path,
                lambda: read_stored(path, lambda image_size: 1 / min(find_shrinking(aim(image_size)[1]))),
            )
            image_size, pixels = stored.size, torch.from_numpy(stored.pixels)
            view, input_to_image = aim(image_size)
            to_pixels = stored.shown_to_pixels @ input_to_image
        else:
            cache = self._cache
            cached = self._read_file(path, lambda: cache.read(path))
            image_size, pixels = cached.image_size, cached.image.permute(1, 2, 0)
            view, input_to_image = aim(image_size)
            to_pixels = view.to_canvas(self.image_size or image_size)
        input_size = self.image_size or image_size
        image = render(pixels, to_pixels, input_size, view)
        to_input = np.linalg.inv(input_to_image)
        points = _move(points_image, to_input).astype(np.float32)
        return ShownImage(
            image=image,
            points=torch.from_numpy(points),
            centres=torch.from_numpy(_move(centres_image, to_input)).float(),
            is_inside=_is_inside(points_image, image_size) & _is_inside(points, input_size),
            is_mirrored=view.is_mirrored,
            input_to_image=torch.from_numpy(input_to_image[:2]).float(),
            image_size=image_size,
        )

    def _read_exactly(
        self, path: str, points_image: NDArray[np.float32], centres_image: NDArray[np.float32], seed: int | None
    ) -> ShownImage:
        cache = self._cache
        image, image_size = self._read_file(
            path,
            lambda: read_resized(path, self.image_size, self.resize_mode) if cache is None else cache.read(path),
        )
        input_size = self.image_size or image_size
        input_to_image = torch.from_numpy(place(image_size, input_size, self.resize_mode).to_source[:2]).float()
        n_points = len(points_image)
        places = torch.from_numpy(np.concatenate([centres_image, points_image]))
        places = apply_affine(places[None], invert_affine(input_to_image)[None])[0]
        is_inside = _is_inside(points_image, image_size)
        if self.transform is None:
            centres, points = places[:n_points], places[n_points:]
            return ShownImage(image, points, centres, is_inside, False, input_to_image, image_size)
        with _random_numbers(seed):
            augmented = augment(image, places, self.transform, n_unlabelled=n_points)
        is_inside &= _is_inside(augmented.points[n_points:].numpy(), _size_of(augmented.image))
        augmented = fit_to_size(augmented, input_size, self.resize_mode)
        centres, points = augmented.points[:n_points], augmented.points[n_points:]
        return ShownImage(
            image=augmented.image,
            points=points,
            centres=centres,
            is_inside=is_inside,
            is_mirrored=augmented.is_mirrored,
            input_to_image=compose_affine(augmented.to_source, input_to_image),
            image_size=image_size,
        )


def _find_default(transform: Callable[..., Any] | None) -> DefaultAugmentation | None:
    """Return the default augmentation if it is the only one."""
    transforms = list(transform.transforms) if isinstance(transform, v2.Compose) else [transform]
    return transforms[0] if len(transforms) == 1 and isinstance(transforms[0], DefaultAugmentation) else None


def _move(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (N, 2) by an affine map (3, 3)."""
    moved: NDArray[np.float64] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def _is_inside(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether points (N, 2) are inside an image of (height, width), including its border."""
    inside: NDArray[np.bool_] = np.all((points >= 0) & (points <= (size[1], size[0])), axis=1)
    return inside


def _size_of(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


@contextmanager
def _random_numbers(seed: int | None) -> Iterator[None]:
    """Make torchvision's draws from the global generator depend on a seed, and restore that generator afterwards."""
    if seed is None:
        yield
        return
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
