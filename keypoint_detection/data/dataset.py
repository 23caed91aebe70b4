"""One picture and its points, and how several become a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from keypoint_detection.data.augmentation import augment, fit_to_size
from keypoint_detection.data.coco import CocoKeypoints
from keypoint_detection.data.sampling import Draw
from keypoint_detection.geometry import apply_affine, compose_affine, invert_affine
from keypoint_detection.images import ResizeMode, read_image, resize
from keypoint_detection.types import VISIBLE, Batch

__all__ = ["KeypointsDataset", "Sample", "collate"]


class Sample(NamedTuple):
    """One picture with the points of every channel, one row a point (P rows).

    Attributes:
        image: (3, H, W) uint8 RGB.
        points: (P, 2) float32 input pixels.
        channels: (P,) int64, the channel of each point; a point that is in two channels has two rows.
        visibility: (P,) int64, 1 or 2.
        instances: (P,) int64, the index of the point's annotation in the image.
        box_sizes: (P,) float32 image pixels or NaN.
        areas: (P,) float32 square image pixels or NaN.
        image_id: the id in the COCO file.
        input_to_image: (2, 3) float32.
        image_size: (height, width) of the original picture.
        n_channels: the number of channels, those without points included.
    """

    image: Tensor
    points: Tensor
    channels: Tensor
    visibility: Tensor
    instances: Tensor
    box_sizes: Tensor
    areas: Tensor
    image_id: int
    input_to_image: Tensor
    image_size: tuple[int, int]
    n_channels: int


class KeypointsDataset(Dataset[Sample]):
    """Read the pictures of a keypoint file and give them with the points of each channel.

    Args:
        table: the file's content.
        channels: channel name to the keypoint types it collects.
        indices: which images of the table to use, in this order; all of them when left out.
        image_size: (height, width) that every picture is brought to; left out, pictures keep their size.
        resize_mode: how they are brought to it.
        transform: the augmentation, a torchvision v2 transform; none when left out.
        flip_pairs: the types that change places in a mirrored picture; None: mirroring is an error.
        visible_only: leave out occluded points.
    """

    def __init__(
        self,
        table: CocoKeypoints,
        channels: Mapping[str, Sequence[str]],
        indices: NDArray[np.int64] | None = None,
        image_size: tuple[int, int] | None = None,
        resize_mode: ResizeMode = "letterbox",
        transform: Callable[..., Any] | None = None,
        flip_pairs: Sequence[tuple[str, str]] | None = None,
        visible_only: bool = False,
    ) -> None:
        self.table = table
        self.indices = np.arange(len(table.image_ids)) if indices is None else indices
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.transform = transform
        self.visible_only = visible_only
        self.n_channels = len(channels)
        names = list(table.keypoint_types)
        # A boolean table (types, channels) lets a type stand in several channels.
        self.type_in_channel = np.array([[name in types for types in channels.values()] for name in names], dtype=bool)
        self.mirrored_types = _mirrored_types(names, flip_pairs)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.indices)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """Read one image; raises OSError naming the file when it cannot be read.

        Args:
            draw: which image. With a `Draw` its augmentation depends on nothing but its seed.
        """
        position, seed = draw if isinstance(draw, Draw) else (draw, None)
        table, index = self.table, int(self.indices[position])
        image = read_image(table.image_paths[index].decode())
        image_size = (int(image.shape[-2]), int(image.shape[-1]))
        rows = np.arange(table.offsets[index], table.offsets[index + 1])
        if self.visible_only:
            rows = rows[table.visibility[rows] == VISIBLE]

        input_size = self.image_size or image_size
        image, input_to_image = resize(image, input_size, self.resize_mode)
        points = torch.from_numpy(table.points[rows])
        is_inside = _is_inside(points, image_size)
        points = apply_affine(points[None], invert_affine(input_to_image)[None])[0]
        types = table.types[rows]
        if self.transform is not None:
            with _random_numbers(seed):
                augmented = augment(image, points, self.transform)
            is_inside &= _is_inside(augmented.points, (int(augmented.image.shape[-2]), int(augmented.image.shape[-1])))
            augmented = fit_to_size(augmented, input_size, self.resize_mode)
            image, points = augmented.image, augmented.points
            input_to_image = compose_affine(augmented.to_source, input_to_image)
            if augmented.is_mirrored:
                types = self._mirror(types)

        slots, channel_indices = np.nonzero(self.type_in_channel[types] & is_inside.numpy()[:, None])
        rows = rows[slots]
        return Sample(
            image=image,
            points=points[torch.from_numpy(slots)],
            channels=torch.from_numpy(channel_indices),
            visibility=torch.from_numpy(table.visibility[rows]),
            instances=torch.from_numpy(table.instances[rows]),
            box_sizes=torch.from_numpy(table.box_sizes[rows]),
            areas=torch.from_numpy(table.areas[rows]),
            image_id=int(table.image_ids[index]),
            input_to_image=input_to_image,
            image_size=image_size,
            n_channels=self.n_channels,
        )

    def _mirror(self, types: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.mirrored_types is None:
            raise ValueError(
                "data.augmentation mirrored a picture, but it is not known which keypoint types change places then. "
                "Give data.flip_pairs, e.g. [[left_ear, right_ear]], or [] when no type has a twin."
            )
        mirrored: NDArray[np.int64] = self.mirrored_types[types]
        return mirrored


@contextmanager
def _random_numbers(seed: int | None) -> Iterator[None]:
    """Let what torchvision draws from the global generator come from a seed, and leave that generator as it was."""
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


def _mirrored_types(names: list[str], flip_pairs: Sequence[tuple[str, str]] | None) -> NDArray[np.int64] | None:
    """The type that each type becomes in a mirror, as indices; None where that is not known."""
    if flip_pairs is None:
        return None
    mirrored = np.arange(len(names))
    for first, second in flip_pairs:
        mirrored[names.index(first)], mirrored[names.index(second)] = names.index(second), names.index(first)
    return mirrored


def _is_inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether points (N, 2) lie in a picture of (height, width), its border included."""
    limits = torch.tensor([size[1], size[0]])
    return ((points >= 0) & (points <= limits)).all(dim=-1)


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad the points of every channel to the same number of slots and stack the images.

    Raises:
        ValueError: the images differ in size; the message says what to set.
    """
    shapes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(
            f"pictures of different sizes cannot form a batch: {', '.join(map(str, sorted(shapes)))} (height, width). "
            "Set data.image_size, e.g. [256, 256]."
        )
    B, C = len(samples), samples[0].n_channels
    counts = torch.stack([torch.bincount(sample.channels, minlength=C) for sample in samples])  # (B, C)
    K = int(counts.max()) if counts.numel() else 0

    rows = torch.cat([torch.full((len(sample.points),), i) for i, sample in enumerate(samples)])
    channels = torch.cat([sample.channels for sample in samples])
    slots = _slot_numbers(rows * C + channels)

    def scatter(values: list[Tensor], fill: float) -> Tensor:
        flat = torch.cat(values)
        padded = torch.full((B, C, K, *flat.shape[1:]), fill, dtype=flat.dtype)
        padded[rows, channels, slots] = flat
        return padded

    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        points=scatter([sample.points for sample in samples], 0.0),
        visibility=scatter([sample.visibility for sample in samples], 0),
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        input_to_image=torch.stack([sample.input_to_image for sample in samples]),
        image_sizes=torch.tensor([sample.image_size for sample in samples]),
        instances=scatter([sample.instances for sample in samples], -1),
        box_sizes=scatter([sample.box_sizes for sample in samples], float("nan")),
        areas=scatter([sample.areas for sample in samples], float("nan")),
    )


def _slot_numbers(groups: Tensor) -> Tensor:
    """Number the members of each group (N,) from 0, in their order."""
    order = torch.argsort(groups, stable=True)
    ordered = groups[order]
    starts = torch.searchsorted(ordered, ordered)  # where the group of each row begins
    numbers = torch.empty_like(groups)
    numbers[order] = torch.arange(len(groups)) - starts
    return numbers
