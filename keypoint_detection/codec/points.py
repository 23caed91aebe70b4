"""From logits to points in image pixels: the only way, in training, prediction and the `Predictor`."""

import torch
from torch import Tensor

from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.confidence import Calibration, calibrate
from keypoint_detection.geometry import map_detections
from keypoint_detection.types import Detections


def find_points(
    logits: Tensor, codec: HeatmapCodec, calibration: Calibration | None, input_to_image: Tensor
) -> Detections:
    """Decode logits to points in pixels of the images as they were given, in continuous coordinates.

    Args:
        logits: (B, C, h, w) of any floating-point type; of images and their mirror images, their average.
        codec: that of the detector.
        calibration: what scores and peaks are worth; None leaves probabilities and covariances out.
        input_to_image: (B, 2, 3) affine maps from input pixels to those of the images.
    """
    found = calibrate(codec.decode(torch.sigmoid(logits.float())), calibration)
    return map_detections(found, input_to_image.to(found.points))
