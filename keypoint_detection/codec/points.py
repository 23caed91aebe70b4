"""Turn logits into points in image pixels: the one implementation, for training, prediction and the `Predictor`."""

import torch
from torch import Tensor

from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.confidence import Calibration, calibrate
from keypoint_detection.geometry import map_detections
from keypoint_detection.types import Detections


def find_points(
    logits: Tensor, codec: HeatmapCodec, calibration: Calibration | None, input_to_image: Tensor
) -> Detections:
    """Decode logits to points in pixels of the original images, in continuous coordinates.

    Args:
        logits: (B, C, h, w) of any floating-point type; with flip averaging, the average over an image and its mirror
            image.
        codec: that of the detector.
        calibration: turns scores and peaks into probabilities and covariances; None leaves both out.
        input_to_image: (B, 2, 3) affine maps from input pixels to those of the images.
    """
    found = calibrate(codec.decode(torch.sigmoid(logits.float())), calibration)
    return map_detections(found, input_to_image.to(found.points))
