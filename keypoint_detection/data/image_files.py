"""Checks on the headers of a data set's images: are the files images, and were the labels made on them?"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.data.problems import N_EXAMPLES, Problems
from keypoint_detection.images import ImageError, ImageSizes, read_sizes
from keypoint_detection.types import DataError

logger = logging.getLogger(__name__)

# Opening files means waiting for the disk, so threads help even with few cores.
N_THREADS = 16


def check_images(table: CocoKeypoints, indices: NDArray[np.int64], needs_equal_sizes: bool) -> NDArray[np.int64]:
    """Read the headers of images and compare them with the labels.

    Args:
        table: the labels.
        indices: which images of the table to check.
        needs_equal_sizes: also refuse images of different sizes.

    Returns:
        (N, 2) the sizes of these images, (height, width) in pixels, upright according to EXIF.

    Raises:
        DataError: files are not images, or differ in size from those that were labelled; all are listed together.
    """
    paths = [table.image_paths[index].decode() for index in indices]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(_try_to_read, paths))
    problems = compare_sizes(table, indices, found)
    if unreadable := problems.by_kind.get("unreadable"):
        unreadable[-1] += " (--data.on_bad_image=skip leaves out images that cannot be read.)"
    problems.raise_if_any(table.path)
    shown = [sizes.shown for sizes in found if isinstance(sizes, ImageSizes)]
    if needs_equal_sizes:
        _refuse_different_sizes(table, shown, paths)
    return np.array(shown, dtype=np.int64).reshape(-1, 2)


def leave_out_unreadable(table: CocoKeypoints, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the images that can be read; count and list the others in a warning.

    Args:
        table: the labels.
        indices: which images of the table to try.

    Raises:
        DataError: none of them can be read.
    """
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(_try_to_read, (table.image_paths[index].decode() for index in indices)))
    reasons = [str(one) for one in found if isinstance(one, ImageError)]
    examples = "; ".join(reasons[:N_EXAMPLES]) + ("; …" if len(reasons) > N_EXAMPLES else "")
    if reasons and len(reasons) == len(indices):
        raise DataError(f"{table.path}: of {count_in_words(len(indices), 'image')}, none can be read: {examples}")
    if reasons:
        logger.warning(
            "%s: %d of %d images cannot be read and are left out (data.on_bad_image): %s",
            table.path,
            len(reasons),
            len(indices),
            examples,
        )
    return indices[[not isinstance(one, ImageError) for one in found]]


def compare_sizes(
    table: CocoKeypoints, indices: NDArray[np.int64], found: Sequence[ImageSizes | ImageError]
) -> Problems:
    """Collect the images that cannot be read, or that differ in size from those that were labelled.

    Args:
        table: the labels.
        indices: (N,) which images of the table.
        found: (N) the sizes of each image, or the reason why it cannot be read.
    """
    problems = Problems()
    for index, sizes in zip(indices, found, strict=True):
        path, name = table.image_paths[index].decode(), f"image {table.image_ids[index]}"
        labelled = tuple(table.image_sizes[index].tolist())
        if isinstance(sizes, ImageError):
            problems.add("unreadable", f"{name}: {sizes}")
        elif all(labelled) and labelled != sizes.shown:
            problems.add(_kind_of_difference(labelled, sizes), describe_difference(name, path, labelled, sizes))
    return problems


def _try_to_read(path: str) -> ImageSizes | ImageError:
    try:
        return read_sizes(path)
    except ImageError as error:
        return error


def _kind_of_difference(labelled: tuple[int, ...], sizes: ImageSizes) -> str:
    return "rotated" if labelled in (sizes.stored, sizes.shown[::-1]) else "size"


def describe_difference(name: str, path: str, labelled: tuple[int, ...], sizes: ImageSizes) -> str:
    """Explain how the size in the labels, (height, width), differs from that of the image, why, and what to do."""
    height, width = sizes.shown
    text = f"{name}: the labels are for {labelled[0]}x{labelled[1]} (height x width), {path} has {height}x{width}"
    if labelled == sizes.stored:
        return (
            f"{text} as shown: the labels give the size before its EXIF rotation. Label Studio's COCO export corrupts "
            "the points of such images: convert its JSON export instead. Remove the rotation from the file's metadata "
            "only if drawing the points shows that they fit the image on its side."
        )
    if labelled == sizes.shown[::-1]:
        return (
            f"{text}: height and width are swapped. If they were only written in the wrong order, correct them; to "
            "check, draw the points on the image."
        )
    return f"{text}: the labels were made at another size. Use the images that were labelled, or scale the labels."


def _refuse_different_sizes(table: CocoKeypoints, shown: Sequence[tuple[int, int]], paths: Sequence[str]) -> None:
    examples: dict[tuple[int, int], str] = {}
    for size, path in zip(shown, paths, strict=True):
        examples.setdefault(size, path)
    if len(examples) > 1:
        (size_a, path_a), (size_b, path_b) = list(examples.items())[:2]
        raise DataError(
            f"{table.path}: the images have {len(examples)} different sizes, e.g. {size_a[0]}x{size_a[1]} ({path_a}) "
            f"and {size_b[0]}x{size_b[1]} ({path_b}). Set data.image_size (height, width), e.g. "
            "--data.image_size='[256, 256]'."
        )
