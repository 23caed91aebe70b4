"""Turn logits into points in image pixels: the one implementation, for training, prediction and the `Predictor`."""

import torch
from torch import Tensor

from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.codec.votes import VoteCodec
from keypoint_detection.confidence import Calibration, calibrate
from keypoint_detection.geometry import map_detections
from keypoint_detection.types import Detections, Maps


def find_points(
    maps: Maps,
    codec: HeatmapCodec,
    vote_codec: VoteCodec | None,
    calibration: Calibration | None,
    input_to_image: Tensor,
) -> Detections:
    """Decode a network's output to points in pixels of the original images, in continuous coordinates.

    Args:
        maps: of any floating-point type; with flip averaging, the average over an image and its mirror image.
        codec: that of the detector.
        vote_codec: groups the points; None if the network has no votes.
        calibration: turns scores and peaks into probabilities and covariances; None leaves both out.
        input_to_image: (B, 2, 3) affine maps from input pixels to those of the images.
    """
    found = calibrate(decode_maps(maps, codec, vote_codec), calibration)
    return map_detections(found, input_to_image.to(found.points))


def decode_maps(maps: Maps, codec: HeatmapCodec, vote_codec: VoteCodec | None) -> Detections:
    """Decode a network's output to points in input pixels, and group them if it has votes."""
    found = codec.decode(torch.sigmoid(maps.logits.float()))
    return found if maps.votes is None or vote_codec is None else vote_codec.group(found, maps.votes)
