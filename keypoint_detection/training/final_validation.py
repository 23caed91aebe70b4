"""Make sure that training ends with a validation."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.lightning_internals import drop_minimum_length, is_at_end


class FinalValidation(Callback):
    """Make training always end with a validation, so that its result is known and can become the best checkpoint.

    Without it, training that `max_steps` or `max_time` ends between two validations, or whose number of epochs is not a
    multiple of `check_val_every_n_epoch`, would end without being measured.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Request a validation after this batch if it is the last one."""
        if is_at_end(trainer):
            # Training cannot continue anyway, but an unreachable minimum would prevent the validation.
            drop_minimum_length(trainer)
        elif not trainer.should_stop:
            return
        # Training that stops does validate, but only in epochs in which a validation is due.
        trainer.should_stop = True
        if trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1
