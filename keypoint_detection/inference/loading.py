"""Rebuild a detector from a checkpoint: network, codec, channels, and how the network saw images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from keypoint_detection.channels import choose_mirrored_channels, complete_channels
from keypoint_detection.checkpoints.files import CALIBRATION_KEY, VALIDATION_KEY, CheckpointError, read_checkpoint
from keypoint_detection.checkpoints.misfits import explain_misfit
from keypoint_detection.checkpoints.trust import find_class
from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.codec.votes import VoteCodec
from keypoint_detection.confidence import Calibration
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.images import ResizeMode
from keypoint_detection.inference.thresholds import read_best_f1
from keypoint_detection.models.backbones import Backbone
from keypoint_detection.models.network import HeatmapNetwork

NETWORK_PREFIX = "network."


class InputSettings(NamedTuple):
    """How the network saw the images it was trained on.

    Attributes:
        image_size: (height, width) in pixels that every image was resized to; None if images kept their size.
        resize: how they were resized.
        coordinates: the convention of the labels.
    """

    image_size: tuple[int, int] | None
    resize: ResizeMode
    coordinates: Coordinates


class LoadedDetector(NamedTuple):
    """The parts of a trained detector, on the CPU.

    Attributes:
        network: in evaluation mode, with the checkpoint's weights.
        codec: turns heatmaps into points.
        vote_codec: groups points into objects; None if the detector does not.
        channels: channel name to the keypoint types it collects.
        inputs: how images are prepared for the network.
        best_f1_threshold: the score with the best F1 in the latest validation, over all channels; None if the
            checkpoint has no validation.
        calibration: calibration of scores and peaks; None if the checkpoint has none.
        mirrored_channels: the channel that each channel becomes in a mirrored image; None if unknown.
    """

    network: HeatmapNetwork
    codec: HeatmapCodec
    vote_codec: VoteCodec | None
    channels: dict[str, list[str]]
    inputs: InputSettings
    best_f1_threshold: float | None
    calibration: Calibration | None
    mirrored_channels: list[int] | None


def load_detector(reference: str, *, flip_test: bool | None) -> LoadedDetector:
    """Rebuild a detector without running code in its checkpoint and without downloading weights.

    Args:
        reference: a path, or `wandb://entity/project/name:alias`.
        flip_test: average the heatmaps with those of the mirrored image; None does as in training.

    Raises:
        CheckpointError: the checkpoint cannot be found or read, its backbone is invalid, or its weights do not fit.
        DataError: it is unknown which types swap in a mirrored image.
    """
    checkpoint = read_checkpoint(reference)
    settings = checkpoint["hyper_parameters"]
    channels = complete_channels(settings["channels"])
    network = HeatmapNetwork(_make_backbone(settings["backbone"], reference), len(channels), settings["group"])
    _load_weights(network, checkpoint["state_dict"], reference)
    flip_pairs = _data_settings(checkpoint).get("flip_pairs")
    is_averaging = settings["flip_test"] if flip_test is None else flip_test
    network.mirrored_channels = choose_mirrored_channels(channels, flip_pairs, is_averaging)
    codec = HeatmapCodec(
        stride=network.backbone.stride,
        sigma_px=settings["heatmap_sigma"],
        max_keypoints=settings["max_keypoints"],
        score_threshold=settings["score_threshold"],
        min_distance_px=settings["min_distance_px"],
    )
    vote_codec = VoteCodec.for_channels(channels, codec.stride, codec.sigma_px) if settings["group"] else None
    return LoadedDetector(
        network.eval().requires_grad_(False),
        codec,
        None if vote_codec is None else vote_codec.with_validation(checkpoint.get(VALIDATION_KEY)),
        channels,
        _input_settings(checkpoint),
        read_best_f1(checkpoint.get(VALIDATION_KEY)),
        _calibration(checkpoint),
        choose_mirrored_channels(channels, flip_pairs, None),
    )


def _make_backbone(specification: Mapping[str, Any], reference: str) -> Backbone:
    class_path = specification["class_path"]
    try:
        cls = find_class(class_path)
        if not issubclass(cls, Backbone):
            raise CheckpointError(f"{class_path} is not a subclass of Backbone.")
        return cls(**dict(specification.get("init_args") or {}))
    except Exception as error:  # the class can be the user's own, with any arguments
        name = class_path.rpartition(".")[2]
        raise CheckpointError(f"{reference}: its backbone {name} cannot be created: {error}") from error


def _load_weights(network: HeatmapNetwork, state: Mapping[str, Tensor], reference: str) -> None:
    weights = {
        name.removeprefix(NETWORK_PREFIX): value for name, value in state.items() if name.startswith(NETWORK_PREFIX)
    }
    misfit = explain_misfit(weights, network.state_dict())
    if misfit is not None:
        raise CheckpointError(f"{reference}: {misfit}.")
    network.load_state_dict(weights)


def _input_settings(checkpoint: Mapping[str, Any]) -> InputSettings:
    settings = _data_settings(checkpoint)
    if not settings:
        # Trained on the user's own batches: images went to the network unchanged, in the package's own convention.
        return InputSettings(image_size=None, resize="letterbox", coordinates="continuous")
    size = settings["image_size"]
    return InputSettings(
        image_size=None if size is None else (int(size[0]), int(size[1])),
        resize=settings["resize"],
        coordinates=settings["coordinates"],
    )


def _data_settings(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data settings of the training; empty if it was trained on the user's own batches."""
    return checkpoint.get("datamodule_hyper_parameters") or {}


def _calibration(checkpoint: Mapping[str, Any]) -> Calibration | None:
    state = (checkpoint.get(VALIDATION_KEY) or {}).get(CALIBRATION_KEY)
    return None if state is None else Calibration.from_state(state)
