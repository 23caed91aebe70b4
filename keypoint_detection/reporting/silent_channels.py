"""Warn of channels that a training does not learn."""

import logging

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from keypoint_detection.reporting.measuring import find_report
from keypoint_detection.types import Batch

logger = logging.getLogger(__name__)

# A training may be slow to begin: only after so many validations in a row, and steps, is it worth a warning.
N_VALIDATIONS = 10
N_STEPS = 300
# A heatmap that varies by less, in all images, shows nothing; from the start, it is about 0.01 everywhere.
SMALLEST_RANGE = 0.02


class SilentChannels(Callback):
    """Warn once of channels whose heatmaps stay flat, or without any detection, for many validations."""

    def __init__(self) -> None:
        # By channel: the maximum range of a heatmap in this validation, and the silent validations in a row.
        self._range: Tensor | None = None
        self._n_silent: dict[str, int] = {}
        self._has_warned = False

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
        cells = logits.detach().flatten(2)
        ranges = (cells.amax(2).sigmoid() - cells.amin(2).sigmoid()).amax(0).float()  # (C,)
        self._range = ranges if self._range is None else torch.maximum(self._range, ranges)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count, and warn."""
        ranges, self._range = self._range, None
        report = find_report(pl_module)
        if ranges is None or report is None or trainer.sanity_checking or self._has_warned:
            return
        for channel, value in zip(report.channels, ranges.tolist(), strict=True):
            is_silent = channel.n_truths > 0 and (channel.n_detections == 0 or value < SMALLEST_RANGE)
            self._n_silent[channel.name] = self._n_silent.get(channel.name, 0) + 1 if is_silent else 0
        silent = [name for name, count in self._n_silent.items() if count >= N_VALIDATIONS]
        if silent and trainer.global_step >= N_STEPS:
            self._has_warned = True
            _warn(silent, trainer.global_step, str(getattr(pl_module, "loss", "")))


@rank_zero_only
def _warn(channels: list[str], n_steps: int, loss: str) -> None:
    others = "" if loss == "bce" else " --model.loss=bce, which escapes from empty heatmaps;"
    logger.warning(
        "After %d steps, the last %d validations found nothing in %s %s: the heatmaps are empty. Look at the labels "
        "(`kpd check`) and at the overlays in the run folder. Then try%s a --model.lr ten times larger or smaller; a "
        "larger --model.heatmap_sigma, which is easier to learn; a longer training.",
        *(n_steps, N_VALIDATIONS, "the channels" if len(channels) > 1 else "the channel", ", ".join(channels), others),
    )
