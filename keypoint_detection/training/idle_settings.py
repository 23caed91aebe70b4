"""Refuse or warn of settings that would have no effect, or leave nothing to learn."""

import logging

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

from keypoint_detection.detector import KeypointDetector

logger = logging.getLogger(__name__)

# With a sigma of half a cell, a Gaussian centred between cells still reaches a third of its height.
SMALLEST_SIGMA_CELLS = 0.5


def check_idle_settings(trainer: Trainer, model: KeypointDetector) -> None:
    """Refuse settings that training would accept but ignore.

    Raises:
        MisconfigurationException: a setting of the encoder for a backbone that has none, gradient clipping that would
            not clip, or averaging over epochs when the length is given in steps.
    """
    _require_encoder(model)
    if 0 < trainer.max_steps <= model.freeze_encoder_steps:
        logger.warning(
            "model.freeze_encoder_steps is %d, but training ends after %d steps: the encoder is never trained.",
            *(model.freeze_encoder_steps, trainer.max_steps),
        )
    _require_clipping(trainer)
    _require_epochs_to_average(trainer)
    codec = model.codec
    smallest = SMALLEST_SIGMA_CELLS * codec.stride
    if codec.sigma_px < smallest:
        logger.warning(
            "model.heatmap_sigma is %g px, but a cell of the heatmap is %d px wide: points between the centres of "
            "cells leave hardly anything to learn. At least %g px is expected.",
            *(codec.sigma_px, codec.stride, smallest),
        )


def _require_encoder(model: KeypointDetector) -> None:
    backbone = model.network.backbone
    if backbone.pretrained_part() is not None:
        return
    settings = (
        ("freeze_encoder_steps", model.freeze_encoder_steps, 0),
        ("encoder_lr_factor", model.encoder_lr_factor, 1),
    )
    for name, value, neutral in settings:
        if value != neutral:
            raise MisconfigurationException(
                f"model.{name} is {value:g}, but the backbone {type(backbone).__name__} has no encoder that could "
                f"start with trained weights. Set it to {neutral}, or choose a backbone that has one, e.g. TimmUnet."
            )


def _require_epochs_to_average(trainer: Trainer) -> None:
    """Refuse averaging that would never finish, and warn that the best checkpoint is not averaged."""
    if not any(isinstance(one, StochasticWeightAveraging) for one in trainer.callbacks):  # type: ignore[attr-defined]
        return
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        raise MisconfigurationException(
            "StochasticWeightAveraging counts epochs, but the length of training is given in steps: give "
            "--trainer.max_epochs and --trainer.max_steps=-1, or use lightning.pytorch.callbacks.EMAWeightAveraging, "
            "which counts steps."
        )
    logger.warning(
        "StochasticWeightAveraging averages the weights at the end of training: last.ckpt has the averages, but "
        "best.ckpt has the weights of a single validation. With EMAWeightAveraging, all checkpoints are averaged."
    )


def _require_clipping(trainer: Trainer) -> None:
    """Refuse gradient clipping that Lightning would silently leave out."""
    value, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
    if value is not None and value < 0:
        raise MisconfigurationException(f"trainer.gradient_clip_val is {value:g}; a number above 0 is expected.")
    if algorithm is not None and not value:
        raise MisconfigurationException(
            f"trainer.gradient_clip_algorithm is {algorithm.value}, but nothing is clipped: "
            "set trainer.gradient_clip_val."
        )
