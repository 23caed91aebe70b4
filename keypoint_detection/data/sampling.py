"""The order and the random numbers of a training's images, which depend on nothing but seed, epoch and process."""

from collections.abc import Iterator, Sized
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

__all__ = ["Draw", "EpochSampler"]


class Draw(NamedTuple):
    """One image of a training epoch.

    Attributes:
        position: which image of the data set.
        seed: of the random numbers that augment it.
    """

    position: int
    seed: int


class EpochSampler(DistributedSampler[Draw]):
    """Shuffle the images of an epoch, and give each one a seed of its own for augmentation.

    An epoch is the same whether the training came to it without a break or was resumed there, also in its middle, and
    however many processes read the images.

    Args:
        data: what has as many images as the data set.
        n_processes: processes that share the epoch; the images are repeated until they divide evenly.
        process: which of them this is.
        seed: of the order and of the augmentation.
        epoch: the first epoch that will be drawn; Lightning sets the later ones.
        n_skipped: how many images of that first epoch this process has had before.
        shuffle: draw the images in another order in every epoch.
    """

    def __init__(
        self, data: Sized, n_processes: int, process: int, seed: int, epoch: int, n_skipped: int, shuffle: bool
    ) -> None:
        super().__init__(data, num_replicas=n_processes, rank=process, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.epoch = self._first_epoch = epoch
        self._n_skipped = n_skipped

    def __iter__(self) -> Iterator[Draw]:
        """Draw the epoch that is set."""
        n_skipped = self._n_skipped if self.epoch == self._first_epoch else 0
        positions = [int(position) for position in super().__iter__()]  # type: ignore[call-overload]
        for position in positions[n_skipped:]:
            # NumPy's seed sequences are independent for every combination of the numbers.
            sequence = np.random.SeedSequence([self.seed, self.epoch, position])
            yield Draw(position, int(sequence.generate_state(1)[0]))
