"""The worker processes that read images: their number, start and end, and how they hand over batches."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import get_worker_info

from keypoint_detection.types import Batch, ImageBatch

# More workers than this seldom help, and each needs another copy of the interpreter.
MAX_AUTOMATIC_WORKERS = 8


class ToSharedMemory:
    """Make a batch directly in memory shared with the main process, if this is a worker process.

    torch would move it there in a thread of the queue, whose error (shared memory is full) goes unnoticed: the main
    process would wait for the batch forever.

    Args:
        collate: makes the batch; None if the data set has made it.
    """

    def __init__(self, collate: Callable[[Any], Batch | ImageBatch] | None = None) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Batch | ImageBatch:
        """Make the batch of some samples."""
        batch: Batch | ImageBatch = self.collate(samples) if self.collate else samples
        if get_worker_info() is not None:
            apply_to_collection(batch, Tensor, Tensor.share_memory_)
        return batch


def start_worker(worker_id: int) -> None:
    """Seed a worker process as Lightning would, and leave signals to the main process, which stops it in time.

    Ctrl-C and a cluster's signals go to all processes. A second SIGTERM is obeyed, so that a hanging process can be
    ended. Python sends one when it exits, so `_end_workers` runs before.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
    pl_worker_init_function(worker_id)


def _end_workers() -> None:
    """Kill the worker processes left by an exception; Python would ask them to end and then wait for them."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for each of them
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


# Called before the exit handler of multiprocessing, which torch has imported.
atexit.register(_end_workers)


def default_workers() -> int:
    """Return how many processes read images by default: one fewer than there are cores."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_AUTOMATIC_WORKERS, n_cores - 1)
