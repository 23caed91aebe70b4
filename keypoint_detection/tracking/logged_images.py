"""Send images to loggers, each of which accepts them in a different way."""

from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image


def log_images(logger: Logger, name: str, images: Sequence[tuple[int, Image.Image]], step: int) -> None:
    """Send images to a logger if it accepts them.

    Args:
        logger: a logger for Weights & Biases or TensorBoard, or any other.
        name: name of the images there.
        images: the images by their id in the data set.
        step: optimiser steps taken.
    """
    if isinstance(logger, WandbLogger):
        captions = [f"image {image_id}" for image_id, _ in images]
        # A tenth of the size of PNG, so that a long run stays small.
        types = ["jpg"] * len(images)
        logger.log_image(name, [image for _, image in images], step=step, caption=captions, file_type=types)
    elif isinstance(logger, TensorBoardLogger):
        for image_id, image in images:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            logger.experiment.add_image(f"{name}/{image_id}", pixels, step)
