"""Stop a training that has diverged, and say so."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

__all__ = ["TrainingDivergedError", "TrainingHealth"]


class TrainingDivergedError(RuntimeError):
    """The loss or the weights became NaN or infinite."""


class TrainingHealth(Callback):
    """Stop at the first loss that is NaN or infinite instead of continuing in vain.

    The loggers get `diverged: 1`, and a `val/mAP` of 0 if none was measured before; the message says when it happened
    and what to try, and `kpd fit` ends with exit code 1. Checkpoints of earlier epochs are kept.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._step = 0
        self._has_validated = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Check the loss of the previous batch, which has arrived from the device, so that nothing waits for it."""
        self._check_loss(trainer)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._loss, self._step = loss.detach(), trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last loss, and the weights after its step."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._check_loss(trainer)
        is_finite = torch.stack([parameter.detach().isfinite().all() for parameter in pl_module.parameters()]).all()
        if not _agree(trainer, is_finite):
            self._stop(trainer, f"weights are NaN or infinite after step {trainer.global_step}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that there are metrics."""
        self._has_validated |= not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last loss if no validation does."""
        self._check_loss(trainer)

    def _check_loss(self, trainer: Trainer) -> None:
        loss, self._loss = self._loss, None
        if loss is not None and not _agree(trainer, loss.isfinite().all()):
            self._stop(trainer, f"the loss of step {self._step} is {loss.item():g}")

    def _stop(self, trainer: Trainer, problem: str) -> None:
        # A sweep expects its metric from every run; a run that never reached a validation has found nothing.
        metrics = {"diverged": 1.0} if self._has_validated else {"diverged": 1.0, "val/mAP": 0.0}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
            logger.save()
        rates = sorted({group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups})
        raise TrainingDivergedError(
            f"training diverged in epoch {trainer.current_epoch + 1}: {problem}, at a learning rate of "
            f"{', '.join(f'{rate:.3g}' for rate in rates)}. Try a smaller --model.lr, --trainer.gradient_clip_val=1, "
            "or --trainer.precision=32-true. Checkpoints of earlier epochs are kept."
        )


def _agree(trainer: Trainer, is_finite: Tensor) -> bool:
    """Whether all processes see finite numbers; they must stop together, or the others would wait forever."""
    if trainer.world_size == 1:
        return bool(is_finite)
    return trainer.strategy.reduce_boolean_decision(bool(is_finite), all=True)
