"""The order and the random numbers of a training's images, which depend only on seed, epoch and process."""

from collections.abc import Iterator, Sized
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler


class Draw(NamedTuple):
    """One image of a training epoch.

    Attributes:
        position: which image of the data set.
        seed: seed of its augmentation.
    """

    position: int
    seed: int


class EpochSampler(DistributedSampler[Draw]):
    """Shuffle the images of an epoch, and give each one its own seed for augmentation.

    An epoch is the same whether the training reached it without interruption or was resumed there, even in the middle
    of it, and however many processes read the images.

    Args:
        data: any collection as long as the data set.
        n_processes: processes that share the epoch; the images are repeated until they divide evenly.
        process: the index of this one.
        seed: seed of the order and of the augmentation.
        epoch: the first epoch to draw; Lightning sets the later ones.
        n_skipped: how many images of that first epoch this process has already processed.
        shuffle: draw the images in a different order in every epoch.
    """

    def __init__(
        self, data: Sized, n_processes: int, process: int, seed: int, epoch: int, n_skipped: int, shuffle: bool
    ) -> None:
        super().__init__(data, num_replicas=n_processes, rank=process, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.epoch = self._first_epoch = epoch
        self._n_skipped = n_skipped

    def __iter__(self) -> Iterator[Draw]:
        """Draw the current epoch."""
        n_skipped = self._n_skipped if self.epoch == self._first_epoch else 0
        positions = [int(position) for position in super().__iter__()]  # type: ignore[call-overload]
        for position in positions[n_skipped:]:
            # NumPy's seed sequences are independent for every combination of the numbers.
            sequence = np.random.SeedSequence([self.seed, self.epoch, position])
            yield Draw(position, int(sequence.generate_state(1)[0]))
