"""Stop training that diverges before the weights are damaged, and report it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.training.optional_outputs import optional_output
from keypoint_detection.training.run_folder import find_run_folder
from keypoint_detection.types import Batch

BATCH_FILE = "diverged-batch.npz"
N_NAMED = 4
# If float16 needs a smaller factor than this, no factor would help: it started at 65536.
SMALLEST_LOSS_SCALE = 1e-4


class TrainingDivergedError(RuntimeError):
    """The loss, a gradient or the weights became NaN or infinite."""


class _Processed(NamedTuple):
    """A batch that contributes gradients to the current step."""

    batch: Batch
    number: int


class TrainingHealth(Callback):
    """Stop before a step whose loss or gradients are NaN or infinite: the weights stay unchanged.

    The message says when it happened, with which images, and what to try; the batch is saved as `diverged-batch.npz` in
    the run folder. The loggers get `diverged: 1`, and a `val/mAP` of 0 if none was measured before, and `kpd fit` ends
    with exit code 1. Checkpoints of earlier epochs are kept. In 16-mixed, gradients can be infinite: Lightning skips
    such steps itself.
    """

    def __init__(self) -> None:
        # Batches since the last optimiser step: several if gradients are accumulated.
        self._batches: list[_Processed] = []
        self._losses: list[Tensor] = []
        self._has_validated = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Remember the batch."""
        if isinstance(batch, Batch):
            self._batches.append(_Processed(batch, batch_idx))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Record the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check the losses and the gradients of a step together before it is taken."""
        (losses, batches), self._losses, self._batches = (self._losses, self._batches), [], []
        gradients = {name: one.grad for name, one in pl_module.named_parameters() if one.grad is not None}
        numbers = torch.stack([loss.float() for loss in losses]) if losses else torch.zeros(1)
        # In float16, the scaler takes care of the gradients.
        if gradients and trainer.scaler is None:
            norm = torch.nn.utils.get_total_norm(list(gradients.values()))
            is_finite = (numbers.sum() + norm.to(numbers.device)).isfinite()
        else:
            is_finite = numbers.isfinite().all()
        if not _agree(trainer, is_finite):
            self._diagnose(trainer, batches, losses, {} if trainer.scaler else gradients)

    def _diagnose(
        self, trainer: Trainer, batches: list[_Processed], losses: list[Tensor], gradients: dict[str, Tensor]
    ) -> None:
        """Stop if a number is NaN or infinite, and report which; the norm can be infinite even if no gradient is."""
        spoilt = [name for name, one in gradients.items() if not one.isfinite().all()]
        loss = next((float(one) for one in losses if not one.isfinite()), None)
        has_good_losses = _agree(trainer, torch.tensor(loss is None))
        if _agree(trainer, torch.tensor(loss is None and not spoilt)):
            return
        step = f"step {trainer.global_step + 1}"
        if loss is not None:
            problem = f"the loss of {step} is {loss:g}"
            if len(losses) == len(batches):
                batches = [batch for batch, one in zip(batches, losses, strict=True) if not one.isfinite()]
        else:
            whose = spoilt[0] if spoilt else "another process"
            more = f" (and {len(spoilt) - 1} more)" if len(spoilt) > 1 else ""
            problem = f"in {step}, the gradient of {whose}{more} is NaN or infinite"
        # A process whose own losses are finite has nothing to show if those of another are not.
        is_here = loss is not None or has_good_losses
        self._stop(trainer, problem, _keep(trainer, batches) if is_here else "")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the weights, and whether float16 can still train them."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        is_finite = torch.stack([parameter.detach().isfinite().all() for parameter in pl_module.parameters()]).all()
        if not _agree(trainer, is_finite):
            self._stop(trainer, f"weights are NaN or infinite after step {trainer.global_step}")
        if trainer.scaler is not None and trainer.scaler.get_scale() < SMALLEST_LOSS_SCALE:
            self._stop(trainer, f"the gradients before step {trainer.global_step + 1} are NaN or infinite at any scale")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that there are metrics."""
        self._has_validated |= not trainer.sanity_checking

    def _stop(self, trainer: Trainer, problem: str, kept: str = "") -> None:
        # A sweep expects its metric from every run; 0 means that a run never reached a validation.
        metrics = {"diverged": 1.0} if self._has_validated else {"diverged": 1.0, "val/mAP": 0.0}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
            logger.save()
        rates = sorted({group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups})
        raise TrainingDivergedError(
            f"training diverged in epoch {trainer.current_epoch + 1}: {problem}, at a learning rate of "
            f"{', '.join(f'{rate:.3g}' for rate in rates)}. Try a smaller --model.lr, --trainer.gradient_clip_val=1, "
            f"or --trainer.precision=32-true. Checkpoints of earlier epochs are kept.{kept}"
        )


def _keep(trainer: Trainer, batches: Sequence[_Processed]) -> str:
    """Write batches to the run folder, and describe which images they hold and how to inspect them."""
    sentences = ""
    for position, (batch, number) in enumerate(batches, 1):
        names = _find_names(trainer, batch.image_ids.tolist())
        listed = ", ".join(names[:N_NAMED]) + (f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else "")
        sentences += f"\nBatch {number + 1} of the epoch: {listed}."
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            continue
        path = _choose_path(find_run_folder(trainer), trainer.global_rank, position)
        named = {"images": batch.images, **batch.truths._asdict(), **batch._asdict()}
        arrays: dict[str, Any] = {name: one.cpu().numpy() for name, one in named.items() if isinstance(one, Tensor)}
        with optional_output(trainer, "copies of the batch"):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, file_names=np.array(names), **arrays)
            sentences += f" To inspect it: numpy.load({str(path)!r}) has {', '.join(arrays)}."
    return sentences


def _choose_path(folder: Path, rank: int, position: int) -> Path:
    """Name the file of a batch: without numbers for the first on the first process."""
    name = Path(BATCH_FILE)
    parts = [name.stem, *([f"rank{rank}"] if rank else []), *([str(position)] if position > 1 else [])]
    return folder / f"{'-'.join(parts)}{name.suffix}"


def _find_names(trainer: Trainer, image_ids: list[int]) -> list[str]:
    data = getattr(trainer, "datamodule", None)
    names = data.image_names("train", image_ids) if isinstance(data, KeypointsDataModule) else {}
    return [names.get(image_id, f"image {image_id}") for image_id in image_ids]


def _agree(trainer: Trainer, is_finite: Tensor) -> bool:
    """Whether all processes see finite numbers; they must stop together, or the others would wait forever."""
    if trainer.world_size == 1:
        return bool(is_finite)
    return trainer.strategy.reduce_boolean_decision(bool(is_finite), all=True)
