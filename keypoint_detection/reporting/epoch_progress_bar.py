"""The progress bar of training, whose length can be given in steps."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from keypoint_detection.lightning_internals import DescribesEpochs


class EpochProgressBar(DescribesEpochs, RichProgressBar):
    """Count epochs from 1, as everywhere else in a run, up to the last one, even if the length is given in steps."""

    def describe_epoch(self, epoch: int) -> str:
        """Write the number of the epoch and, if it is known, of the last one."""
        n_epochs = _count_epochs(self.trainer)
        total = "" if math.isinf(n_epochs) else f"/{n_epochs}"
        # As wide as the word for validation, or the bar would jump between the two.
        return f"Epoch {epoch + 1}{total}".ljust(len(self.validation_description))


def _count_epochs(trainer: Trainer) -> float:
    """Count the epochs of the whole training; infinite if only a time limit, or nothing, ends it."""
    limits = [math.inf]
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(trainer.max_epochs)
    if trainer.max_steps >= 0 and not math.isinf(trainer.num_training_batches):
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps_per_epoch))
    return min(limits)
