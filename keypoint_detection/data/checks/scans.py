"""Read all images of a data set once, as fast as the cores allow."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from keypoint_detection.images import ImageError, ImageScan, scan_image

# Enough to distinguish two frames of a video from two copies of one; 1 kB per image.
THUMBNAIL_SIDE_PX = 32
# More than the cores, because reading waits for the disk.
N_THREADS_PER_CORE = 2
# Pillow holds Python's lock while decoding, so only processes can share the work. They take half a second to start; in
# that time one core reads hundreds of JPEG files at an eighth of their size, but few files of other kinds.
N_WORTH_PROCESSES = 100
FAST_SUFFIXES = (".jpg", ".jpeg")
N_FAST_WORTH_PROCESSES = 2000
# Number of images handed to a process at a time.
CHUNK = 8


def scan_images(paths: Sequence[str]) -> Iterator[ImageScan | ImageError]:
    """Scan images in parallel and yield the results in order; an error for those that cannot be read."""
    n_fast = sum(path.lower().endswith(FAST_SUFFIXES) for path in paths)
    is_much = len(paths) - n_fast >= N_WORTH_PROCESSES or n_fast >= N_FAST_WORTH_PROCESSES
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool: Executor
    if is_much and n_cores > 1:
        # No forking: the process may have threads. Ctrl-C, which goes to all processes, is left to the main one.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(n_cores, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    else:
        pool = ThreadPoolExecutor(N_THREADS_PER_CORE * n_cores)
    try:
        yield from pool.map(_try_to_scan, paths, chunksize=CHUNK)
    finally:
        # After Ctrl-C, do not wait for the remaining images.
        pool.shutdown(cancel_futures=True)


def _try_to_scan(path: str) -> ImageScan | ImageError:
    try:
        return scan_image(path, THUMBNAIL_SIDE_PX)
    except ImageError as error:
        return error
