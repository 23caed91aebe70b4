"""A detector that needs no training: it knows a bright blob when it sees one."""

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image

from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Backbone

BLOB_SIGMA_PX = 4.0


class Brightness(Backbone):
    """The red of the image, as a feature that a head turns into the logarithm of brightness."""

    pixel_mean, pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 1, 1, 1

    def forward(self, images):
        return torch.logit(images[:, :1].clamp(1e-4, 0.98))


def blob_image(x, y, size=(60, 80)):
    """A (H, W, 3) uint8 image, black but for a Gaussian blob around continuous (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    blob = 245 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * BLOB_SIGMA_PX**2))
    return np.repeat(blob.round().astype(np.uint8)[..., None], 3, axis=2)


def make_checkpoint(folder: Path, backbone=Brightness, **data) -> Path:
    """Write the checkpoint of a detector that puts a point on the brightest place."""
    detector = KeypointDetector(channels=["spot"], backbone=backbone, max_keypoints=3, score_threshold=0.6)
    with torch.no_grad():
        detector.network.head.weight.zero_()
        detector.network.head.weight[0, 0, 1, 1] = 1
        detector.network.head.bias.zero_()
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=folder)
    trainer.strategy.connect(detector)
    if data:
        trainer._data_connector.attach_datamodule(detector, datamodule=KeypointsDataModule(**data))
    path = folder / "spot.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    return path


def save(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return path
