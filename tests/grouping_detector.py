"""A detector that needs no training: it finds bright red blobs, and reads from green and blue where their object is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from spot_detector import blob_image

from keypoint_detection.checkpoints.files import CALIBRATION_KEY
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Backbone
from keypoint_detection.models.network import VOTE_SCALE_PX

# Cells around a point that show its vote, in pixels to each side.
REACH = 4


class Colours(Backbone):
    """The brightness of the red, and green and blue as numbers from -0.5 to 0.5."""

    pixel_mean, pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 1, 3, 1

    def forward(self, images):
        return torch.cat([torch.logit(images[:, :1].clamp(1e-4, 0.98)), images[:, 1:] - 0.5], dim=1)


def image_of_objects(objects: Sequence[tuple[tuple[float, float], Sequence[tuple[float, float]]]], size=(60, 80)):
    """Draw objects, each a centre and its points (x, y), as an (H, W, 3) uint8 image."""
    image = np.full((*size, 3), 128, np.uint8)
    image[..., 0] = 0
    for (centre_x, centre_y), points in objects:
        for x, y in points:
            image[..., 0] = np.maximum(image[..., 0], blob_image(x, y, size)[..., 0])
            rows, columns = (slice(max(0, int(place) - REACH), int(place) + REACH + 1) for place in (y, x))
            across = centre_x - (np.arange(size[1])[columns] + 0.5)
            down = centre_y - (np.arange(size[0])[rows] + 0.5)
            image[rows, columns, 1] = np.round(255 * (0.5 + across / VOTE_SCALE_PX))
            image[rows, columns, 2] = np.round(255 * (0.5 + down / VOTE_SCALE_PX))[:, None]
    return image


def make_grouping_checkpoint(folder: Path) -> Path:
    """Write the checkpoint of a detector that finds blobs and groups them, two of them at most."""
    detector = KeypointDetector({"corner": ["a", "b"]}, Colours, group=True, max_keypoints=6, score_threshold=0.6)
    report = {"overall": {"score_threshold": 0.6}}
    measured = {"vote_radius_px": 12.0, "vote_margins": [8.0, -3.0]}
    detector.latest_validation = {"epoch": 1, "step": 1, "report": report, CALIBRATION_KEY: None} | measured
    head, votes = detector.network.head, detector.network.vote_head
    with torch.no_grad():
        for module in (head, votes.hidden, votes.output):
            module.weight.zero_()
            module.bias.zero_()
        head.weight[0, 0, 1, 1] = 1
        # Features hold the mean of each 2 x 2 cells, in turn where it is positive and where it is negative.
        for feature, (colour, sign) in enumerate(((1, 1), (1, -1), (2, 1), (2, -1))):
            votes.hidden.weight[feature, colour, 1:, 1:] = sign / 4
            votes.output.weight[colour - 1, feature, 1, 1] = sign
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=folder)
    trainer.strategy.connect(detector)
    trainer._data_connector.attach_datamodule(detector, datamodule=KeypointsDataModule(image_size=None))
    path = folder / "grouping.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    return path
