"""The LightningModule: composes backbone, head, loss, codec and metrics."""

import functools
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from keypoint_detection.channels import choose_mirrored_channels, complete_channels
from keypoint_detection.checkpoints.content import FORMAT, FORMAT_KEY, ModelSettings, check_settings
from keypoint_detection.checkpoints.files import CALIBRATION_KEY, SMOOTHED_KEY, VALIDATION_KEY, LoadsCheckedCheckpoints
from keypoint_detection.checkpoints.initial_weights import load_initial_weights
from keypoint_detection.checkpoints.misfits import explain_misfit
from keypoint_detection.checkpoints.specifications import make_plain
from keypoint_detection.checkpoints.trust import import_named
from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.codec.points import decode_maps, find_points
from keypoint_detection.codec.votes import MARGINS_KEY, RADIUS_KEY, VoteCodec
from keypoint_detection.confidence import Calibration
from keypoint_detection.lightning_internals import (
    has_settings_of_config,
    is_validation_scheduled,
    log_hyperparameters,
    rebuild_from_settings,
    share_of_time,
)
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.metrics.matching import check_thresholds
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.models.backbones import Backbone, TimmUnet
from keypoint_detection.models.losses import LossName, heatmap_loss, target_entropy, vote_loss
from keypoint_detection.models.network import HeatmapNetwork, prior_logits
from keypoint_detection.models.optimizers import make_optimizer
from keypoint_detection.models.schedules import check_length, expect_steps, warmup_cosine
from keypoint_detection.parsing.internals import drop_arguments_of_old_classes, import_through
from keypoint_detection.types import MAX_KEYPOINTS, MIN_DISTANCE_PX, Batch, Detections, ImageBatch, Maps

# Lightning parses the settings stored in a checkpoint as it does a command line.
drop_arguments_of_old_classes()
import_through(import_named)

logger = logging.getLogger(__name__)

# The precisions in which only the network uses fewer bits.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
# Share of the latest validation in the smoothed mAP: with 6 to 20 images, single validations differ by more than the
# checkpoints do.
LATEST_SHARE = 0.4
# Share of a heatmap that Gaussians may fill on average.
LARGEST_SHARE = 0.5
# A schedule of this frequency is not stepped by Lightning.
NEVER = sys.maxsize


class Predictions(NamedTuple):
    """The detector's predictions for one batch, for callbacks to draw and write.

    Attributes:
        logits: (B, C, h, w).
        detections_input: points in input pixels.
    """

    logits: Tensor
    detections_input: Detections


class KeypointDetector(LoadsCheckedCheckpoints, LightningModule):  # type: ignore[misc]
    """Detect keypoints as the maxima of one heatmap per channel.

    Args:
        channels: channel name to the keypoint types it collects, e.g. {corner: [corner0, corner1], flap: [flap0]}; a
            list of types means one channel each. By default, every type in the training file gets its own channel.
        backbone: the network from image to features.
        lr: maximum learning rate.
        optimizer: optimiser class and its parameters; the learning rate is `lr`.
        lr_scheduler: `cosine` rises during the first twentieth of the training and then falls to a hundredth, by the
            number of steps or the time limit, whichever ends the training first;
            `constant`; or a torch scheduler class, stepped once per epoch, or after every validation if it waits for
            progress (lightning.pytorch.cli.ReduceLROnPlateau).
        encoder_lr_factor: factor applied to the encoder's learning rate; less than 1 keeps more of what it has already
            learned.
        freeze_encoder_steps: number of steps at the start of training during which the encoder stays unchanged.
        decay_norms_and_biases: apply the optimiser's weight decay to normalisation layers and biases too.
        loss: `bce` binary cross-entropy, `mse` squared error of the probabilities, or `focal` (Li et al. 2020), between
            predicted and Gaussian heatmaps.
        heatmap_sigma: standard deviation of the Gaussians in input pixels. Smaller is sharper and harder to learn.
        group: also learn which points belong to the same object; an object is an annotation of the training file. By
            default, if an image of the training file has several objects, one of them with several points.
        max_keypoints: maximum number of detections per channel in one image. By default, the largest number of points
            of a channel in any image of the training file.
        score_threshold: detections with lower scores are dropped; keep it low, so that AP covers the whole curve. No
            score reaches 1.
        min_distance_px: minimum distance between two detections of a channel, in input pixels.
        ap_thresholds_px: distances in pixels of the original image within which a detection counts as right.
        oks_sigmas: also measure OKS-AP, with one sigma per channel or those of the 17 COCO person keypoints (`coco17`).
            It is defined for one keypoint type per channel, at most one annotated instance per image, and annotations
            with areas.
        flip_test: average the heatmaps with those of the mirrored image when measuring, predicting and exporting: more
            precise, at twice the runtime. By default, this is done if `data.flip_pairs` is given and every channel has
            a mirrored counterpart; `true` makes it an error if it cannot be done.
        init_from: checkpoint of a trained detector to start a new training from, a path or
            wandb://entity/project/name:alias. Weights of its backbone and head are copied where name and shape match;
            the rest start afresh and are listed. A backbone is refused if less than half of it matches.

    Raises:
        ValueError: channels have no types, or empty or repeated names; thresholds do not increase; no score could reach
            `score_threshold`.
    """

    def __init__(
        self,
        channels: dict[str, list[str]] | list[str] | None = None,
        backbone: Callable[[], Backbone] = TimmUnet,
        lr: PositiveFloat = 1e-3,
        optimizer: Callable[[Iterable[dict[str, Any]], float], Optimizer] = functools.partial(
            torch.optim.AdamW, weight_decay=0.05
        ),
        lr_scheduler: Literal["cosine", "constant"] | Callable[[Optimizer], LRScheduler] = "cosine",
        encoder_lr_factor: ClosedUnitInterval = 1.0,
        freeze_encoder_steps: NonNegativeInt = 0,
        decay_norms_and_biases: bool = False,
        loss: LossName = "bce",
        heatmap_sigma: PositiveFloat = 2.0,
        group: bool | None = None,
        max_keypoints: PositiveInt | None = None,
        score_threshold: ClosedUnitInterval = 0.01,
        min_distance_px: NonNegativeFloat = MIN_DISTANCE_PX,
        ap_thresholds_px: tuple[PositiveFloat, ...] = (2.0, 4.0, 8.0),
        oks_sigmas: Literal["coco17"] | list[PositiveFloat] | None = None,
        flip_test: bool | None = None,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.channels = complete_channels(channels)
        self.network = HeatmapNetwork(backbone(), len(self.channels), bool(group))
        self.save_hyperparameters(logger=False)
        if not has_settings_of_config(self):
            log_hyperparameters(self)
            rebuild_from_settings(self)
            factories = {"optimizer": optimizer, "lr_scheduler": lr_scheduler}
            without = make_plain(self.hparams, self.network.backbone, factories)
            self.remove_ignored_hparams(without)
        self.hparams["group"] = bool(group)
        if max_keypoints is None:
            max_keypoints = self.hparams["max_keypoints"] = MAX_KEYPOINTS
        check_settings(self.hparams, ModelSettings, "model")
        self.lr, self.optimizer, self.lr_scheduler = float(lr), optimizer, lr_scheduler
        self.encoder_lr_factor = float(encoder_lr_factor)
        self.freeze_encoder_steps = int(freeze_encoder_steps)
        self.decay_norms_and_biases = decay_norms_and_biases
        self.loss: LossName = loss
        if score_threshold >= 1:
            raise ValueError("model.score_threshold is 1, which no score reaches: nothing would ever be found.")
        self.codec = HeatmapCodec(
            stride=self.network.backbone.stride,
            sigma_px=float(heatmap_sigma),
            max_keypoints=max_keypoints,
            score_threshold=float(score_threshold),
            min_distance_px=float(min_distance_px),
        )
        self._vote_codec = (
            VoteCodec.for_channels(self.channels, self.codec.stride, self.codec.sigma_px) if group else None
        )
        if oks_sigmas is not None:
            _require_one_type_a_channel(self.channels)
        names, thresholds = list(self.channels), check_thresholds("model.ap_thresholds_px", ap_thresholds_px)
        self.val_metrics = KeypointMetrics(names, thresholds, oks_sigmas=oks_sigmas, group=bool(group))
        self.test_metrics = KeypointMetrics(names, thresholds, oks_sigmas=oks_sigmas, group=bool(group))
        # The latest measurement, for callbacks; None before the first.
        self.report: EvaluationReport | None = None
        # The latest validation during training, with its epoch (counted from 1) and step, as plain values.
        self.latest_validation: dict[str, Any] | None = None
        self.init_from = init_from
        self._is_initialised = False
        self.flip_test = flip_test
        # The pairs of the training data, for test data without any.
        self._flip_pairs: Sequence[Sequence[str]] | None = None

    # --- the network -------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the heatmaps.

        Args:
            images: (B, 3, H, W) uint8 RGB of any size.

        Returns:
            (B, C, h, w) logits, h = ceil(H / stride); `sigmoid` makes them heatmaps.
        """
        logits: Tensor = self.network(images).logits
        return logits

    def detect(self, maps: Maps) -> Detections:
        """Decode the network's output to points in input pixels."""
        return decode_maps(maps, self.codec, self.vote_codec)

    # --- training ----------------------------------------------------------------------------------------------------

    def initialise(self) -> None:
        """Load the weights of `init_from`, or the backbone's pretrained ones; once, and not when a run is resumed.

        Raises:
            ValueError: the weights cannot be read, or belong to another backbone.
        """
        if self.init_from is not None:
            specification = {"channels": self.channels, "backbone": self.hparams["backbone"]}
            network = self.network
            load_initial_weights(self.init_from, network.backbone, network.head, network.vote_head, specification)
            self.init_from = None
        elif not self._is_initialised:
            self.network.backbone.load_pretrained()
        self._is_initialised = True

    def setup(self, stage: str) -> None:
        """Refuse incompatible settings, and store the types that swap when an image is mirrored.

        Raises:
            MisconfigurationException: the precision would round the ground truth, or the data has other channels.
        """
        check_precision(str(self.trainer.precision))
        data = getattr(self.trainer, "datamodule", None)
        channels = getattr(data, "channels", None)
        if channels and complete_channels(channels) != self.channels:
            raise MisconfigurationException(
                f"the data module has the channels {channels}, and the model {self.channels}. Set channels on the "
                "model only: the data module takes them from it."
            )
        self.take_flip_pairs(getattr(data, "flip_pairs", None))

    def take_flip_pairs(self, flip_pairs: Sequence[Sequence[str]] | None) -> None:
        """Store the types that swap when an image is mirrored, for `flip_test`.

        Args:
            flip_pairs: the data's pairs; None uses those stored in the checkpoint.

        Raises:
            DataError: `flip_test` is true, but no pairs are known or a channel has no twin.
        """
        if flip_pairs is not None:
            self._flip_pairs = flip_pairs
        self.network.mirrored_channels = choose_mirrored_channels(self.channels, self._flip_pairs, self.flip_test)

    def on_fit_start(self) -> None:
        """Start from the weights of `init_from`, unless a checkpoint has just been restored."""
        if self.trainer.ckpt_path is None:
            self.initialise()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Freeze the encoder, and initialise a new head from the share of the heatmaps that the first batch fills."""
        if (encoder := self._frozen_part()) is not None:
            encoder.eval()  # its normalisation layers keep their statistics
        if self.trainer.global_step == 0 and batch_idx == 0 and self.network.has_new_head:
            share = self._targets(batch).mean(dim=(0, 2, 3))  # (C,)
            share = self.trainer.strategy.reduce(share, reduce_op="mean")
            largest = float(share.max())
            if largest > LARGEST_SHARE:
                logger.warning(
                    "model.heatmap_sigma is %g px: the Gaussians fill %.0f %% of a heatmap of these images, which "
                    "leaves no peak to find. Set a smaller one, or a larger data.image_size.",
                    *(self.codec.sigma_px, 100 * largest),
                )
            bias = self.network.head.bias
            assert bias is not None
            with torch.no_grad():
                bias.copy_(prior_logits(share.cpu()))  # not every device supports float64

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of one batch: the mean over images, channels and cells."""
        targets = self._targets(batch)
        maps: Maps = self.network(batch.images)
        per_map = heatmap_loss(self.loss, maps.logits, targets)
        loss = per_map.mean()
        epoch_values = {f"train/loss/{name}": value for name, value in zip(self.channels, per_map.mean(0), strict=True)}
        if self._vote_codec is not None:
            assert maps.votes is not None
            size = (targets.shape[-2], targets.shape[-1])
            votes = self._vote_codec.encode(batch.points, batch.truths.centres, batch.visibility, size)
            epoch_values["train/vote_loss"] = vote_loss(maps.votes, votes).mean()
            loss = loss + epoch_values["train/vote_loss"]
        batch_size = len(batch.images)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True, batch_size=batch_size)
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

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave a frozen encoder unchanged: a parameter without a gradient is neither updated nor decayed."""
        if (encoder := self._frozen_part()) is not None:
            for parameter in encoder.parameters():
                parameter.grad = None

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Put the encoder's normalisation layers back into training mode once it has been frozen long enough."""
        if self.trainer.global_step == self.freeze_encoder_steps:
            # Not the encoder itself: a backbone may keep it frozen for good.
            self.network.backbone.train()

    def _frozen_part(self) -> nn.Module | None:
        is_frozen = self.trainer.global_step < self.freeze_encoder_steps
        return self.network.backbone.pretrained_part() if is_frozen else None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and the schedule that the configuration names.

        Raises:
            MisconfigurationException: this optimiser or schedule cannot train the network.
        """
        try:
            return self._configure_optimizers()
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    def _configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(
            self.optimizer,
            self.network,
            self.network.backbone.pretrained_part(),
            lr=self.lr,
            slow_lr_factor=self.encoder_lr_factor,
            decays_all=self.decay_norms_and_biases,
        )
        if self.lr_scheduler == "constant":
            return optimizer
        n_steps = self.trainer.estimated_stepping_batches
        if self.lr_scheduler == "cosine":
            if math.isinf(n_steps) and share_of_time(self.trainer) is None:
                logger.warning(
                    "The length of training is not set: the learning rate stays at its maximum instead of falling. "
                    "Set --trainer.max_steps or --trainer.max_time."
                )
            schedule = LambdaLR(
                optimizer, lambda step: warmup_cosine(step, expect_steps(step, n_steps, share_of_time(self.trainer)))
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        assert callable(self.lr_scheduler)
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = getattr(scheduler, "monitor", "val/loss")
            # Lightning would step it after the validation's checkpoint, and a resumed run would miss a step.
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": monitor, "frequency": NEVER},
            }
        # Lightning's interval "epoch" steps only after the epoch's checkpoint: a resumed run would miss a step. If the
        # length of training is given in steps, the loader does not exist yet.
        self.trainer.fit_loop.setup_data()
        n_batches = int(self.trainer.num_training_batches)
        check_length(scheduler, n_steps * self.trainer.accumulate_grad_batches / n_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": n_batches},
        }

    def _targets(self, batch: Batch) -> Tensor:
        height, width = batch.images.shape[-2:]
        return self.codec.encode(batch.points, batch.visibility, (height, width))

    # --- measuring ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> Predictions:  # type: ignore[override]
        """Detect in one batch and take the result into the metrics."""
        return self._measure(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Predictions:  # type: ignore[override]
        """Detect in one batch and take the result into the metrics."""
        return self._measure(batch, self.test_metrics)

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> Detections:
        """Detect in one batch; the points are in pixels of the original images, and calibrated if possible."""
        if not len(batch.images):
            return self._nothing()
        maps = self.network(batch.images)
        return find_points(maps, self.codec, self.vote_codec, self.calibration, batch.input_to_image)

    def _measure(self, batch: Batch, metrics: KeypointMetrics) -> Predictions:
        if len(batch.images):
            maps = self.network(batch.images)
            logits, detections = maps.logits, self.detect(maps)
        else:  # none of them could be read
            logits, detections = torch.zeros(0, len(self.channels), 1, 1), self._nothing()
        metrics.update(detections, batch, self._losses(logits, batch))
        return Predictions(logits=logits, detections_input=detections)

    def _nothing(self) -> Detections:
        """Return the detections in no image at all."""
        shape = (0, len(self.channels), self.codec.max_keypoints)
        return Detections(torch.zeros(*shape, 2), torch.zeros(shape))

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of every heatmap, (B, C)."""
        if not len(logits):
            return logits.new_zeros(0, len(self.channels))
        return heatmap_loss(self.loss, logits, self._targets(batch))

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics of the validation part and log them."""
        self._finish(self.val_metrics, "val")

    def on_test_epoch_end(self) -> None:
        """Compute the metrics of the test file and log them."""
        self._finish(self.test_metrics, "test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the format's version, and the latest validation, so that a checkpoint records how good it is."""
        checkpoint[FORMAT_KEY] = FORMAT
        if self.latest_validation is not None:
            checkpoint[VALIDATION_KEY] = self.latest_validation

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the latest validation, so that saving again keeps it, and the flip pairs.

        Raises:
            MisconfigurationException: the weights do not fit the network.
        """
        misfit = explain_misfit(checkpoint["state_dict"], self.state_dict())
        if misfit is not None:
            raise MisconfigurationException(f"ckpt_path: {misfit}.")
        self.latest_validation = checkpoint.get(VALIDATION_KEY)
        self._flip_pairs = self._flip_pairs or checkpoint.get("datamodule_hyper_parameters", {}).get("flip_pairs")

    @property
    def calibration(self) -> Calibration | None:
        """The calibration from the latest validation during training; None if that could not determine one."""
        state = (self.latest_validation or {}).get(CALIBRATION_KEY)
        return None if state is None else Calibration.from_state(state)

    @property
    def vote_codec(self) -> VoteCodec | None:
        """What groups points, with what the latest validation measured during training; None if they are not."""
        return None if self._vote_codec is None else self._vote_codec.with_validation(self.latest_validation)

    def logged_names(self) -> set[str]:
        """List the metrics that training logs, for callbacks to monitor."""
        names = {f"val/{name}" for name in self.val_metrics.names(with_losses=True)}
        names |= {f"val/{SMOOTHED_KEY}", "train/loss", *(f"train/loss/{name}" for name in self.channels)}
        names |= {"train/vote_loss"} if self._vote_codec is not None else set()
        return names | ({"train/loss_floor"} if self.loss == "bce" else set())

    def _finish(self, metrics: KeypointMetrics, part: str) -> None:
        self.report = metrics.compute()
        metrics.reset()
        is_training = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if is_training:
            self._note_validation(self.report)
        elif self.calibration is not None and self.trainer.state.fn != "fit":
            self.report = self.report.with_calibration(self.calibration)
        scalars = {f"{part}/{name}": value for name, value in self.report.as_scalars().items()}
        self.log(f"{part}/mAP", scalars.pop(f"{part}/mAP"), prog_bar=True)
        self.log_dict(scalars)
        if is_training and is_validation_scheduled(self.trainer):
            self._step_plateaus()

    def _step_plateaus(self) -> None:
        """Pass the result of the validation to schedules that wait for progress."""
        for config in self.trainer.lr_scheduler_configs:
            value = self.trainer.callback_metrics.get(str(config.monitor))
            if isinstance(config.scheduler, ReduceLROnPlateau) and value is not None:
                config.scheduler.step(float(value))

    def _note_validation(self, report: EvaluationReport) -> None:
        """Keep a validation during training for the checkpoints, and average its mAP with the previous ones."""
        assert report.measurements is not None
        mean_ap = report.overall.mean_average_precision
        previous = (self.latest_validation or {}).get(SMOOTHED_KEY, math.nan)
        smoothed = mean_ap if math.isnan(previous) else previous + LATEST_SHARE * (mean_ap - previous)
        # A stop causes one more validation, which an uninterrupted run would not have.
        counted = smoothed if is_validation_scheduled(self.trainer) else previous
        self.log(f"val/{SMOOTHED_KEY}", smoothed if math.isnan(counted) else counted)
        calibration, objects = report.fit_calibration(), report.measurements.objects
        self.latest_validation = {
            "epoch": self.trainer.current_epoch + 1,
            "step": self.trainer.global_step,
            SMOOTHED_KEY: counted,
            "report": report.as_state(),
            "rows": report.measurements.rows,
            CALIBRATION_KEY: None if calibration is None else calibration.as_state(),
            RADIUS_KEY: None if objects is None else objects.radius_input,
            MARGINS_KEY: None if objects is None else objects.fit_margins(),
        }


def check_precision(precision: str) -> None:
    """Refuse a Trainer precision in which Lightning would also convert the points of a batch.

    Raises:
        MisconfigurationException: the precision is neither float32 nor mixed.
    """
    if precision not in PRECISIONS:
        raise MisconfigurationException(
            f"--trainer.precision={precision} would round not only the network but the ground truth too; one of "
            f"{', '.join(PRECISIONS)} is expected. bf16-mixed is as fast and keeps points in float32."
        )


def _require_one_type_a_channel(channels: Mapping[str, list[str]]) -> None:
    shared = [name for name, types in channels.items() if len(types) > 1]
    if shared:
        raise ValueError(
            f"model.oks_sigmas: OKS-AP is defined for one keypoint type per channel; channel '{shared[0]}' collects "
            f"{len(channels[shared[0]])}. Give each type a channel, or leave oks_sigmas out."
        )
