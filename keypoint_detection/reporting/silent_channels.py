"""Warn of channels that are not learned."""

import logging

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from keypoint_detection.reporting.measuring import find_report
from keypoint_detection.types import Batch

logger = logging.getLogger(__name__)

# Training can be slow to take off, so warn only after this many validations in a row, and steps.
N_VALIDATIONS = 10
N_STEPS = 300
# A heatmap that varies by less in all images shows nothing; initially, it is about 0.01 everywhere.
SMALLEST_RANGE = 0.02
# Without validations, heatmaps are checked at an interval at which both numbers are reached together.
N_BATCHES = N_STEPS // N_VALIDATIONS


class SilentChannels(Callback):
    """Warn once of channels whose heatmaps stay flat, or without any detection, for many validations.

    Without validations, the heatmaps of training images are used.
    """

    def __init__(self) -> None:
        # By channel: the maximum range of a heatmap in this validation, and the silent validations in a row.
        self._range: Tensor | None = None
        self._n_silent: dict[str, int] = {}
        self._has_warned = False
        self._n_batches = 0
        self._hook: RemovableHandle | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Without validations, record the outputs of training at intervals."""
        if not trainer.enable_validation:
            self._hook = pl_module.register_forward_hook(self._record_some)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop recording."""
        if self._hook is not None:
            self._hook.remove()

    def _record_some(self, module: object, images: object, logits: Tensor) -> None:
        self._n_batches += 1
        if self._n_batches % N_BATCHES == 0 and not self._has_warned:
            self._record(logits)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Without validations, count silent channels and warn."""
        if self._hook is None or self._range is None:
            return
        ranges, self._range = self._range.tolist(), None
        is_labelled = (batch.visibility > 0).flatten(2).any(2).any(0).tolist()
        channels: list[str] = getattr(pl_module, "channels", [])
        silent = {
            name: value < SMALLEST_RANGE
            for name, value, known in zip(channels, ranges, is_labelled, strict=True)
            if known
        }
        self._count(trainer, pl_module, silent, "training images show nothing in")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record how much the heatmaps vary, without waiting for the device."""
        logits = getattr(outputs, "logits", None)
        if trainer.state.fn != "fit" or self._has_warned or logits is None or not len(logits):
            return
        self._record(logits)

    def _record(self, logits: Tensor) -> None:
        cells = logits.detach().flatten(2)
        ranges = (cells.amax(2).sigmoid() - cells.amin(2).sigmoid()).amax(0).float()  # (C,)
        self._range = ranges if self._range is None else torch.maximum(self._range, ranges)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count, and warn."""
        ranges, self._range = self._range, None
        report = find_report(pl_module)
        if ranges is None or report is None or trainer.sanity_checking or self._has_warned:
            return
        silent = {
            channel.name: channel.n_truths > 0 and (channel.n_detections == 0 or value < SMALLEST_RANGE)
            for channel, value in zip(report.channels, ranges.tolist(), strict=True)
        }
        self._count(trainer, pl_module, silent, f"the last {N_VALIDATIONS} validations found nothing in")

    def _count(self, trainer: Trainer, pl_module: LightningModule, are_silent: dict[str, bool], seen: str) -> None:
        for name, is_silent in are_silent.items():
            self._n_silent[name] = self._n_silent.get(name, 0) + 1 if is_silent else 0
        silent = [name for name, count in self._n_silent.items() if count >= N_VALIDATIONS]
        if silent and trainer.global_step >= N_STEPS:
            self._has_warned = True
            _warn(silent, trainer.global_step, seen, str(getattr(pl_module, "loss", "")))


@rank_zero_only
def _warn(channels: list[str], n_steps: int, seen: str, loss: str) -> None:
    others = "" if loss == "bce" else " --model.loss=bce, which escapes from empty heatmaps;"
    logger.warning(
        "After %d steps, %s %s %s: the heatmaps are empty. Check the labels (`kpd check`) and the overlays in the "
        "run folder. Then try%s a --model.lr ten times larger or smaller; a larger --model.heatmap_sigma, which is "
        "easier to learn; a longer training.",
        *(n_steps, seen, "the channels" if len(channels) > 1 else "the channel", ", ".join(channels), others),
    )
