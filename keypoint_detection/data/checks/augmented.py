"""The effect of the augmentation on a data set: which points leave the image, with examples to look at."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.augmentation import try_augmentation
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part, Requirements
from keypoint_detection.data.dataset import KeypointsDataset, collate
from keypoint_detection.data.sampling import Draw
from keypoint_detection.types import Batch, DataError

# Number of images that are augmented to count the points lost.
N_SAMPLES = 64
# If at least this share of points is lost, a network learns too little about what is near the border.
MANY_LOST = 0.3
# If images keep their size, they are reduced to this for counting and display.
LARGEST_SIDE_PX = 512
SEED = 0


class Example(NamedTuple):
    """A training image, before and after augmentation.

    Attributes:
        name: the file.
        before: a batch of this one image, as in validation.
        after: the same image augmented.
    """

    name: str
    before: Batch
    after: Batch


def check_augmentation(
    part: Part, requirements: Requirements, transform: Callable[..., Any], flip_pairs: Sequence[tuple[str, str]] | None
) -> list[Finding]:
    """Find out whether an augmentation works, and how many points it moves out of the image."""
    source = str(part.path)
    plain, augmented = (_make_dataset(part, requirements, one, flip_pairs) for one in (None, transform))
    try:
        try_augmentation(transform, _size(part, requirements), flip_pairs)
        labelled = np.flatnonzero(np.bincount(part.owners[part.in_channels.any(axis=1)], minlength=len(part.sizes)))
        sampled = _sample(labelled[part.sizes[labelled].all(axis=1)], N_SAMPLES)
        counts = np.array(
            [
                [len(data[Draw(int(index), SEED + int(index))].channels) for data in (plain, augmented)]
                for index in sampled
            ]
        ).reshape(-1, 2)
    except DataError as error:
        return [Finding("error", "augmentation", source, 1, str(error))]
    n_points, n_left = counts.sum(axis=0).tolist()
    if n_left == n_points:
        return []
    share = 1 - n_left / n_points
    n_lost = n_points - n_left
    total = f"{count_in_words(n_points, 'point')} in {count_in_words(len(sampled), 'image')}"
    text = f"of {total} ({share:.0%}) {agree(n_lost, 'leaves its', 'leave their')} image in the augmentation"
    if share <= MANY_LOST:
        text += agree(n_lost, " and is dropped.", " and are dropped.")
        return [Finding("note", "augmentation_losses", source, n_lost, text)]
    text += ": much of what is near the border is lost. Shift and enlarge images less in data.augmentation."
    return [Finding("warning", "augmentation_losses", source, n_lost, text)]


def draw_examples(
    part: Part,
    requirements: Requirements,
    transform: Callable[..., Any],
    flip_pairs: Sequence[tuple[str, str]] | None,
    n_images: int,
) -> list[Example]:
    """Draw random images of a part, before and after the augmentation; labelled ones come first."""
    plain, augmented = (_make_dataset(part, requirements, one, flip_pairs) for one in (None, transform))
    is_labelled = np.bincount(part.owners[part.in_channels.any(axis=1)], minlength=len(part.sizes)) > 0
    is_readable = part.sizes.all(axis=1)
    picked = _sample(np.flatnonzero(is_labelled & is_readable), n_images)
    picked = np.concatenate([picked, _sample(np.flatnonzero(~is_labelled & is_readable), n_images - len(picked))])
    return [
        Example(
            part.table.image_paths[index].decode(),
            collate([plain[Draw(int(index), SEED)]]),
            collate([augmented[Draw(int(index), SEED + int(index))]]),
        )
        for index in picked
    ]


def _make_dataset(
    part: Part,
    requirements: Requirements,
    transform: Callable[..., Any] | None,
    flip_pairs: Sequence[tuple[str, str]] | None,
) -> KeypointsDataset:
    return KeypointsDataset(
        part.table,
        part.channels,
        image_size=_size(part, requirements),
        resize_mode=requirements.resize_mode,
        transform=transform,
        flip_pairs=flip_pairs,
        visible_only=requirements.visible_only,
        image_sizes=part.sizes,
    )


def _size(part: Part, requirements: Requirements) -> tuple[int, int]:
    """Return the input size; if images keep their own, the most frequent one, reduced if it is large."""
    if requirements.image_size is not None:
        return requirements.image_size
    sizes, counts = np.unique(part.sizes[part.sizes.min(axis=1) > 0], axis=0, return_counts=True)
    height, width = sizes[counts.argmax()].tolist()
    factor = min(1.0, LARGEST_SIDE_PX / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _sample(indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(SEED).permutation(indices)[:n])
