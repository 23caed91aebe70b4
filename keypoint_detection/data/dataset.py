"""One image and its points, and how several become a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from keypoint_detection.channels import KeypointType, choose_mirrored_channels, types_in_channels
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.data.image_cache import ImageCache
from keypoint_detection.data.reader import ImageReader
from keypoint_detection.data.sampling import Draw
from keypoint_detection.images import ImageError, ResizeMode, read_sizes
from keypoint_detection.types import PADDING, VISIBLE, Batch, DataError, GroundTruths

# What becomes of an image that cannot be read: an error, another image in its place, or one less in the batch.
Unreadable = Literal["raise", "replace", "leave out"]
# So many in a row are no bad files, but a disk that is gone.
MAX_REPLACED = 10


class Sample(NamedTuple):
    """One image with the points of every channel, one row per point (P rows).

    Attributes:
        image: (3, H, W) uint8 RGB.
        truths: (P,), the points and centres in input pixels.
        channels: (P,) int64, the channel of each point; a point that is in two channels has two rows.
        image_id: the id in the COCO file.
        input_to_image: (2, 3) float32.
        image_size: (height, width) of the original image.
        n_channels: the number of channels, including those without points.
        failures: the ids of images that could not be read, and why: those that this one replaces, or this one.
        is_missing: whether this image could not be read and is to be left out; it is a blank then.
    """

    image: Tensor
    truths: GroundTruths[Tensor]
    channels: Tensor
    image_id: int
    input_to_image: Tensor
    image_size: tuple[int, int]
    n_channels: int
    failures: tuple[tuple[int, str], ...] = ()
    is_missing: bool = False


class KeypointsDataset(Dataset[Sample]):
    """Read the images of a keypoint file, with the points of each channel.

    Args:
        table: the content of the file.
        channels: channel name to the keypoint types it collects.
        indices: which images of the table to use, in this order; by default, all of them.
        image_size: (height, width) that every image is resized to; None: images keep their size.
        resize_mode: how they are resized.
        transform: the augmentation, a torchvision v2 transform; none if left out.
        flip_pairs: the types that swap in a mirrored image; None: mirroring is an error.
        visible_only: leave out occluded points.
        image_sizes: (N, 2) height and width of the images in pixels; if they are known, points outside do not count.
        cache: keeps resized images; without one, every image is read from its file each time.
        unreadable: what becomes of an image that cannot be read: an error, another image in its place (the next one
            that can be read), or a blank that `collate` leaves out.
    """

    def __init__(
        self,
        table: CocoKeypoints,
        channels: Mapping[str, Sequence[str]],
        indices: NDArray[np.int64] | None = None,
        *,
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        transform: Callable[..., Any] | None = None,
        flip_pairs: Sequence[tuple[str, str]] | None = None,
        visible_only: bool,
        image_sizes: NDArray[np.int64] | None = None,
        cache: ImageCache | None = None,
        unreadable: Unreadable = "raise",
    ) -> None:
        self.table = table
        self.indices = np.arange(len(table.image_ids)) if indices is None else indices
        self.image_sizes = image_sizes
        self.reader = ImageReader(image_size, resize_mode, transform, cache)
        self.unreadable = unreadable
        self.visible_only = visible_only
        self.channel_names = list(channels)
        self.n_channels = len(channels)
        self.type_in_channel = types_in_channels(table.keypoint_types, channels)
        self.mirrored_types = _mirrored_types(table.keypoint_types, flip_pairs)
        mirrored_channels = choose_mirrored_channels(channels, flip_pairs, None)
        if mirrored_channels is not None:
            self._check_mirrored_channels(mirrored_channels)

    def _check_mirrored_channels(self, mirrored_channels: Sequence[int]) -> None:
        """Compare what becomes of the types with what becomes of the channels.

        Args:
            mirrored_channels: for each channel, the one that it becomes when mirrored, by the names of its types.

        Raises:
            DataError: a channel collects types of several categories, and only some of them swap.
        """
        becomes, expected = self.type_in_channel[self.mirrored_types], self.type_in_channel[:, mirrored_channels]
        differs = (becomes != expected).any(axis=0)
        if not differs.any():
            return
        index = int(differs.argmax())
        wanted, found = (
            ", ".join(str(one) for one, is_in in zip(self.table.keypoint_types, column, strict=True) if is_in)
            for column in (expected[:, index], becomes[:, index])
        )
        raise DataError(
            f"data.flip_pairs: when mirrored, channel {self.channel_names[index]!r} becomes {found}, but channel "
            f"{self.channel_names[mirrored_channels[index]]!r} collects {wanted}. Name the types in the pairs without "
            "their category, or give the pairs of every category."
        )

    def used_points(self) -> NDArray[np.bool_]:
        """Tell which points of the table this data set uses, (P, C) by channel."""
        table, points = self.table, self.table.truths.points
        is_used = np.zeros(len(points), dtype=bool)
        for position, index in enumerate(self.indices):
            rows = slice(table.offsets[index], table.offsets[index + 1])
            is_used[rows] = True
            if self.image_sizes is not None:
                height, width = self.image_sizes[position]
                is_used[rows] = ((points[rows] >= 0) & (points[rows] <= (width, height))).all(axis=1)
        if self.visible_only:
            is_used &= table.truths.visibility == VISIBLE
        used: NDArray[np.bool_] = self.type_in_channel[table.types] & is_used[:, None]
        return used

    def first_size(self) -> tuple[int, int]:
        """Return (height, width) of the first image in pixels."""
        return read_sizes(self.table.image_paths[self.indices[0]].decode()).shown

    def __len__(self) -> int:
        """Count the images."""
        return len(self.indices)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """Read one image.

        Args:
            draw: which image. With a `Draw`, its augmentation depends only on the seed of the draw.

        Raises:
            ImageError: it cannot be read, nor replaced or left out; the message names it.
        """
        position, seed = draw if isinstance(draw, Draw) else (draw, None)
        failures: list[tuple[int, str]] = []
        while True:
            try:
                return self._read(position, seed)._replace(failures=tuple(failures))
            except ImageError as error:
                failures.append((int(self.table.image_ids[self.indices[position]]), str(error)))
                if self.unreadable == "raise":
                    raise ImageError(f"{error} --data.on_bad_image=skip goes on without it.") from error
                if self.unreadable == "leave out":
                    return self._blank(position)._replace(failures=tuple(failures), is_missing=True)
                if len(failures) > min(MAX_REPLACED, len(self) - 1):
                    n_images = f"{len(failures)} images in a row"
                    raise ImageError(f"{n_images} cannot be read; the last one: {error} Is the disk there?") from error
            position = (position + 1) % len(self)

    def _blank(self, position: int) -> Sample:
        """Return a blank image without points in place of one that cannot be read."""
        size = self.reader.image_size or (1, 1)
        return Sample(
            image=torch.zeros(3, *size, dtype=torch.uint8),
            truths=self.table.truths.map(lambda values: torch.from_numpy(values[:0])),
            channels=torch.zeros(0, dtype=torch.int64),
            image_id=int(self.table.image_ids[self.indices[position]]),
            input_to_image=torch.eye(2, 3),
            image_size=size,
            n_channels=self.n_channels,
        )

    def _read(self, position: int, seed: int | None) -> Sample:
        table, index = self.table, int(self.indices[position])
        rows = np.arange(table.offsets[index], table.offsets[index + 1])
        if self.visible_only:
            rows = rows[table.truths.visibility[rows] == VISIBLE]
        of_image = table.truths.map(lambda values: values[rows])
        shown = self.reader.read(table.image_paths[index].decode(), of_image.points, of_image.centres, seed)
        types = self._mirror(table.types[rows]) if shown.is_mirrored else table.types[rows]
        slots, channel_indices = np.nonzero(self.type_in_channel[types] & shown.is_inside[:, None])
        truths = of_image.map(lambda values: torch.from_numpy(values[slots]))
        kept = torch.from_numpy(slots)
        return Sample(
            image=shown.image,
            truths=truths._replace(points=shown.points[kept], centres=shown.centres[kept]),
            channels=torch.from_numpy(channel_indices),
            image_id=int(table.image_ids[index]),
            input_to_image=shown.input_to_image,
            image_size=shown.image_size,
            n_channels=self.n_channels,
        )

    def _mirror(self, types: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.mirrored_types is None:
            raise DataError(
                "data.augmentation mirrored an image, but it is unknown which keypoint types then swap. "
                "Give data.flip_pairs, e.g. [[left_ear, right_ear]], or [] if no type has a twin."
            )
        mirrored: NDArray[np.int64] = self.mirrored_types[types]
        return mirrored


def _mirrored_types(
    types: Sequence[KeypointType], flip_pairs: Sequence[tuple[str, str]] | None
) -> NDArray[np.int64] | None:
    """Return the type that each type becomes when mirrored, as indices; None if unknown.

    Raises:
        DataError: a pair names a type that does not exist, or a type is in several pairs.
    """
    if flip_pairs is None:
        return None
    mirrored = np.arange(len(types))
    for pair in flip_pairs:
        for text in pair:
            if not any(one.answers_to(text) for one in types):
                raise DataError(
                    f"data.flip_pairs names {text!r}, which the file does not contain. Its keypoint types are: "
                    f"{', '.join(map(str, types))}."
                )
        for text, twin in (pair, pair[::-1]):
            for index in (index for index, one in enumerate(types) if one.answers_to(text)):
                twins = [other for other, one in enumerate(types) if one.answers_to(twin)]
                # Of twins in several categories, the one in the same category.
                twins = [other for other in twins if types[other].category == types[index].category] or twins
                if mirrored[index] != index or len(twins) != 1 or twins[0] == index:
                    raise DataError(
                        f"data.flip_pairs: {str(types[index])!r} has no single twin. A type must be in one pair, with "
                        "another type: [[left_ear, right_ear], [left_eye, right_eye]]."
                    )
                mirrored[index] = twins[0]
    return mirrored


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad the points of every channel to the same number of slots and stack the images; leave out missing ones.

    Raises:
        ValueError: the images differ in size; the message says what to set.
    """
    failures = tuple(failure for sample in samples for failure in sample.failures)
    found = [sample for sample in samples if not sample.is_missing]
    batch = _stack(found or samples[:1])._replace(failures=failures)
    # A batch of no images has all the right shapes, too.
    return batch if found else apply_to_collection(batch, Tensor, lambda tensor: tensor[:0])


def _stack(samples: Sequence[Sample]) -> Batch:
    shapes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(
            f"images of different sizes cannot form a batch: {', '.join(map(str, sorted(shapes)))} (height, width). "
            "Set data.image_size, e.g. [256, 256]."
        )
    B, C = len(samples), samples[0].n_channels
    counts = torch.stack([torch.bincount(sample.channels, minlength=C) for sample in samples])  # (B, C)
    K = int(counts.max()) if counts.numel() else 0

    rows = torch.cat([torch.full((len(sample.channels),), i) for i, sample in enumerate(samples)])
    channels = torch.cat([sample.channels for sample in samples])
    slots = _slot_numbers(rows * C + channels)

    def pad(values: tuple[Tensor, ...], fill: float) -> Tensor:
        flat = torch.cat(values)
        padded = torch.full((B, C, K, *flat.shape[1:]), fill, dtype=flat.dtype)
        padded[rows, channels, slots] = flat
        return padded

    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        truths=GroundTruths(*map(pad, zip(*(sample.truths for sample in samples), strict=True), PADDING)),
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        input_to_image=torch.stack([sample.input_to_image for sample in samples]),
        image_sizes=torch.tensor([sample.image_size for sample in samples]),
    )


def _slot_numbers(groups: Tensor) -> Tensor:
    """Number the members of each group (N,) from 0, in order."""
    order = torch.argsort(groups, stable=True)
    ordered = groups[order]
    starts = torch.searchsorted(ordered, ordered)  # where the group of each row begins
    numbers = torch.empty_like(groups)
    numbers[order] = torch.arange(len(groups)) - starts
    return numbers
