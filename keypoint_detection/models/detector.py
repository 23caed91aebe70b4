"""The LightningModule: composes backbone, head, loss, codec and metrics."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from keypoint_detection.geometry import apply_affine
from keypoint_detection.heatmaps import HeatmapCodec
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.models.backbones import Backbone, Unet
from keypoint_detection.models.initial_weights import load_initial_weights
from keypoint_detection.models.losses import LossName, heatmap_loss, target_entropy
from keypoint_detection.models.schedules import warmup_cosine
from keypoint_detection.types import Batch, Detections

__all__ = ["KeypointDetector", "Predictions"]

logger = logging.getLogger(__name__)

# sigmoid(-4) is 0.02: almost all of a heatmap is background. The first batch of a training says how much exactly.
HEAD_BIAS = -4.0
HEAD_KERNEL_SIZE = 3

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class Predictions(NamedTuple):
    """What the detector says of one batch, for callbacks to draw and to write.

    Attributes:
        logits: (B, C, h, w).
        detections_input: points in input pixels.
        detections_image: the same points in pixels of the original pictures.
        truths_image: (B, C, K, 2) the ground truth in pixels of the original pictures; padded as in the batch.
    """

    logits: Tensor
    detections_input: Detections
    detections_image: Detections
    truths_image: Tensor


class KeypointDetector(LightningModule):
    """Detect keypoints as the maxima of one heatmap a channel.

    Args:
        channels: channel name to the keypoint types it collects, e.g. {corner: [corner0, corner1], flap: [flap0]}; a
            list of types means one channel each. Left out, every type of the training file has a channel of its own.
        backbone: the network from picture to features.
        lr: highest learning rate.
        optimizer: optimiser class and its parameters; the learning rate is `lr`.
        lr_scheduler: `cosine` rises for a twentieth of the training and then falls to a hundredth; `constant`; or a
            scheduler class of torch, stepped once an epoch.
        loss: `bce` binary cross-entropy, `mse` squared error of the probabilities, or `focal` (Li et al. 2020), between
            predicted and Gaussian heatmaps.
        heatmap_sigma: standard deviation of the Gaussians in input pixels. Smaller is sharper and harder to learn.
        max_keypoints: most detections of a channel in one picture.
        score_threshold: detections that score less are dropped; low, so that AP sees the whole curve.
        min_distance_px: least distance of two detections of a channel, in input pixels.
        ap_thresholds_px: distances in pixels of the original picture within which a detection counts as right.
        ap_every_n_epochs: validate AP and pixel errors every so many epochs; the first and the last always.
        oks_sigmas: measure OKS-AP too, with one sigma a channel or those of the 17 COCO person keypoints (`coco17`). It
            is defined for one keypoint type a channel, at most one annotated instance a picture, and annotations with
            areas.
        init_from: checkpoint of a trained detector to start a new training from, a path or
            wandb://entity/project/name:alias. Its backbone must be the same; all else may differ. A head of another
            number of channels starts new.

    Raises:
        ValueError: channels without types, or with empty or repeated names; thresholds that are not rising.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        channels: dict[str, list[str]] | list[str] | None = None,
        backbone: Callable[[], Backbone] = Unet,
        lr: PositiveFloat = 1e-3,
        optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer] = torch.optim.AdamW,
        lr_scheduler: Literal["cosine", "constant"] | Callable[[Optimizer], LRScheduler] = "cosine",
        loss: LossName = "bce",
        heatmap_sigma: PositiveFloat = 2.0,
        max_keypoints: PositiveInt = 20,
        score_threshold: ClosedUnitInterval = 0.01,
        min_distance_px: NonNegativeFloat = 2.0,
        ap_thresholds_px: tuple[PositiveFloat, ...] = (2.0, 4.0, 8.0),
        ap_every_n_epochs: PositiveInt = 1,
        oks_sigmas: Literal["coco17"] | list[PositiveFloat] | None = None,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.channels = _check_channels(channels)
        self.backbone = backbone()
        self._save_hyperparameters(optimizer, lr_scheduler)
        self.lr, self.optimizer, self.lr_scheduler = float(lr), optimizer, lr_scheduler
        self.loss: LossName = loss
        self.ap_every_n_epochs = ap_every_n_epochs
        self.codec = HeatmapCodec(
            stride=self.backbone.stride,
            sigma_px=float(heatmap_sigma),
            max_keypoints=max_keypoints,
            score_threshold=float(score_threshold),
            min_distance_px=float(min_distance_px),
        )
        self.head = nn.Conv2d(self.backbone.out_channels, len(self.channels), HEAD_KERNEL_SIZE, padding="same")
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, HEAD_BIAS)
        self.register_buffer("pixel_mean", _per_channel(self.backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", _per_channel(self.backbone.pixel_std), persistent=False)
        # Convolutions over interleaved channels take half the time of the default layout, on CPUs and GPUs alike.
        self.to(memory_format=torch.channels_last)

        if oks_sigmas is not None:
            _require_one_type_a_channel(self.channels)
        names, thresholds = list(self.channels), [float(threshold) for threshold in ap_thresholds_px]
        self.val_metrics = KeypointMetrics(names, thresholds, oks_sigmas=oks_sigmas)
        self.test_metrics = KeypointMetrics(names, thresholds, oks_sigmas=oks_sigmas)
        # The latest measurement, for callbacks; None where the latest validation took in the loss only.
        self.report: EvaluationReport | None = None
        self.init_from = init_from

    def _save_hyperparameters(self, optimizer: object, lr_scheduler: object) -> None:
        """Keep what a checkpoint needs to build this model again, as plain values."""
        self.save_hyperparameters(logger=False)
        if "_instantiator" in self.hparams:
            return  # made by the command line: plain already
        self._log_hyperparams = True
        self.hparams["backbone"] = _specification(type(self.backbone), self.backbone.init_args)
        self.hparams["_instantiator"] = INSTANTIATOR
        for name, factory in (("optimizer", optimizer), ("lr_scheduler", lr_scheduler)):
            specification = _factory_specification(factory)
            if specification is None:
                logger.warning("%s cannot be named in a checkpoint; one loaded from it has the default.", name)
                self.remove_ignored_hparams([name])
            else:
                self.hparams[name] = specification
        self.hparams.update({name: _plain(value) for name, value in self.hparams.items()})

    # --- the network -------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the heatmaps.

        Args:
            images: (B, 3, H, W) uint8 RGB of any size.

        Returns:
            (B, C, h, w) logits, h = ceil(H / stride); `sigmoid` makes them heatmaps.
        """
        height, width = images.shape[-2:]
        x = (images.to(self.pixel_mean.dtype).div(255) - self.pixel_mean) / self.pixel_std
        multiple = self.backbone.size_multiple
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        logits = self.head(self.backbone(x.contiguous(memory_format=torch.channels_last)))
        stride = self.backbone.stride
        cropped: Tensor = logits[..., : -(-height // stride), : -(-width // stride)]
        return cropped

    def detect(self, logits: Tensor) -> Detections:
        """Decode logits (B, C, h, w) to points in input pixels."""
        return self.codec.decode(torch.sigmoid(logits.float()))

    # --- training ----------------------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """Take the weights that `init_from` names; training does so once, and not when it resumes.

        Raises:
            ValueError: the checkpoint cannot be read, or its backbone is another one.
        """
        if self.init_from is not None:
            specification = {"channels": self.channels, "backbone": self.hparams["backbone"]}
            load_initial_weights(self.init_from, self.backbone, self.head, specification)
            self.init_from = None

    def on_fit_start(self) -> None:
        """Start from the weights of `init_from`, unless a checkpoint has just been restored."""
        if self.trainer.ckpt_path is None:
            self.initialise()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Start a new head from the share of the heatmaps that the keypoints of the first batch fill."""
        assert self.head.bias is not None
        if self.trainer.global_step == 0 and batch_idx == 0 and bool((self.head.bias == HEAD_BIAS).all()):
            share = self._targets(batch).mean(dim=(0, 2, 3))  # (C,)
            share = self.trainer.strategy.reduce(share, reduce_op="mean")
            with torch.no_grad():
                self.head.bias.copy_(_prior_logits(share.cpu()))  # not every device has float64

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of one batch, the mean over images, channels and cells."""
        targets = self._targets(batch)
        per_map = heatmap_loss(self.loss, self(batch.images), targets)
        loss = per_map.mean()
        batch_size = len(batch.images)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True, batch_size=batch_size)
        epoch_values = {f"train/loss/{name}": value for name, value in zip(self.channels, per_map.mean(0), strict=True)}
        if self.loss == "bce":
            epoch_values["train/loss_floor"] = target_entropy(targets).mean()
        self.log_dict(
            {name: value.detach() for name, value in epoch_values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=batch_size,
            sync_dist=True,
        )
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and the schedule that the configuration names."""
        optimizer = self.optimizer(self.parameters(), self.lr)
        if self.lr_scheduler == "constant":
            return optimizer
        if self.lr_scheduler == "cosine":
            n_steps = self.trainer.estimated_stepping_batches
            schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, n_steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        assert callable(self.lr_scheduler)
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = getattr(scheduler, "monitor", "val/loss")
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def _targets(self, batch: Batch) -> Tensor:
        height, width = batch.images.shape[-2:]
        return self.codec.encode(batch.points, batch.visibility, (height, width), torch.float32)

    # --- measuring ---------------------------------------------------------------------------------------------------

    def validation_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int
    ) -> Predictions | None:
        """Detect in one batch and take the result into the metrics; in between, take in the loss only."""
        logits = self(batch.images)
        if not self._measures_this_epoch():
            B, C = batch.visibility.shape[:2]
            nothing = Detections(logits.new_zeros(B, C, 0, 2), logits.new_zeros(B, C, 0))
            self.val_metrics.update(nothing, batch, self._losses(logits, batch))
            return None
        return self._measure(logits, batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Predictions:  # type: ignore[override]
        """Detect in one batch and take the result into the metrics."""
        return self._measure(self(batch.images), batch, self.test_metrics)

    def _measures_this_epoch(self) -> bool:
        """Whether detections are measured now: in the first epoch, every so many, the last, and outside of fit."""
        trainer = self.trainer
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return True
        epoch = trainer.current_epoch + 1
        return epoch == 1 or epoch % self.ap_every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop

    def _measure(self, logits: Tensor, batch: Batch, metrics: KeypointMetrics) -> Predictions:
        detections = self.detect(logits)
        predictions = Predictions(
            logits=logits,
            detections_input=detections,
            detections_image=Detections(apply_affine(detections.points, batch.input_to_image), detections.scores),
            truths_image=apply_affine(batch.points, batch.input_to_image),
        )
        metrics.update(predictions.detections_image, batch, self._losses(logits, batch))
        return predictions

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of every map, (B, C)."""
        return heatmap_loss(self.loss, logits, self._targets(batch))

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics of the validation part and log them."""
        if self._measures_this_epoch():
            self._finish(self.val_metrics, "val")
            return
        scalars = self.val_metrics.compute().as_scalars()
        self.val_metrics.reset()
        self.report = None
        self.log_dict({f"val/{name}": value for name, value in scalars.items() if name.split("/")[0] == "loss"})

    def on_test_epoch_end(self) -> None:
        """Compute the metrics of the test file and log them."""
        self._finish(self.test_metrics, "test")

    def _finish(self, metrics: KeypointMetrics, part: str) -> None:
        self.report = metrics.compute()
        metrics.reset()
        scalars = {f"{part}/{name}": value for name, value in self.report.as_scalars().items()}
        self.log(f"{part}/mAP", scalars.pop(f"{part}/mAP"), prog_bar=True)
        self.log_dict(scalars)


def _check_channels(channels: Mapping[str, list[str]] | list[str] | None) -> dict[str, list[str]]:
    """Bring the channels to their full form: every name with the list of its types."""
    advice = "Give e.g. {corner: [corner0, corner1]} or a list of keypoint types."
    if not channels:
        raise ValueError(f"model.channels is {channels!r}; at least one channel is expected. {advice}")
    if not isinstance(channels, Mapping):
        repeated = sorted({name for name in channels if channels.count(name) > 1})
        if repeated:
            raise ValueError(f"model.channels names {', '.join(map(repr, repeated))} more than once. {advice}")
        return {name: [name] for name in channels}
    for name, types in channels.items():
        if not name or not types:
            raise ValueError(
                f"model.channels: channel {name!r} collects {types!r}; at least one type is expected. {advice}"
            )
    return {name: list(types) for name, types in channels.items()}


def _require_one_type_a_channel(channels: Mapping[str, list[str]]) -> None:
    shared = [name for name, types in channels.items() if len(types) > 1]
    if shared:
        raise ValueError(
            f"model.oks_sigmas: OKS-AP is defined for one keypoint type a channel, but channel '{shared[0]}' collects "
            f"{len(channels[shared[0]])}. Give each type a channel, or leave oks_sigmas out."
        )


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def _specification(cls: type, init_args: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(init_args)}


def _factory_specification(factory: object) -> str | dict[str, Any] | None:
    """Name a factory as a config file would: a plain choice, a class, or a class with arguments; None if impossible."""
    if isinstance(factory, str):
        return factory
    if isinstance(factory, functools.partial):
        # jsonargparse hands out a partial of a function of its own, with the class as its last argument.
        cls = ([factory.func, *factory.args])[-1]
        return _specification(cls, factory.keywords) if isinstance(cls, type) else None
    return _specification(factory, {}) if isinstance(factory, type) else None


def _prior_logits(share: Tensor) -> Tensor:
    """Give the logits that fit heatmaps best before anything is known of the picture, after Lin et al. 2017.

    Without this a training spends its first hundreds of steps on nothing but making the heatmaps darker: from -4, one
    point in a heatmap of 192x256 is 3.5 away (https://arxiv.org/abs/1708.02002, section 3.3, has the same remedy).

    Args:
        share: (C,) the means of the channels' heatmaps. A channel without a point takes the mean of all channels, and
            where all are empty HEAD_BIAS stays.

    >>> _prior_logits(torch.tensor([0.5, 0.0, 0.5])).round(decimals=4)
    tensor([ 0.0000, -0.6931,  0.0000])
    """
    share = share.double()
    logits = torch.logit(share.where(share > 0, share.mean()))
    return logits.where(logits.isfinite(), HEAD_BIAS).float()


def _plain(value: Any) -> Any:
    """Turn the parser's restricted numbers, which no checkpoint may hold, into ordinary ones."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
