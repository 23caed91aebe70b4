"""Read all images of a data set once, as fast as the cores allow."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from keypoint_detection.images import ImageError, ImageScan, scan_image

__all__ = ["THUMBNAIL_SIDE_PX", "scan_images"]

# Enough to tell two frames of a video from two copies of one; 1 kB an image.
THUMBNAIL_SIDE_PX = 32
# Decoding leaves Python's lock; reading waits for the disk.
N_THREADS_PER_CORE = 2


def scan_images(paths: Sequence[str]) -> Iterator[ImageScan | ImageError]:
    """Read images in several threads and give what they told, in their order; an error where one cannot be read."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(N_THREADS_PER_CORE * n_cores)
    try:
        yield from pool.map(_try_to_scan, paths)
    finally:
        # After Ctrl-C nobody waits for the images that are left.
        pool.shutdown(cancel_futures=True)


def _try_to_scan(path: str) -> ImageScan | ImageError:
    try:
        return scan_image(path, THUMBNAIL_SIDE_PX)
    except ImageError as error:
        return error
