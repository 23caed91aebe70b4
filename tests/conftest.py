"""Data that several tests need: a tiny COCO keypoint data set of coloured discs, made on the spot."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from spot_detector import make_checkpoint

from keypoint_detection.checkpoints.files import CALIBRATION_KEY, VALIDATION_KEY, read_checkpoint
from keypoint_detection.checkpoints.writing import write_checkpoint
from keypoint_detection.confidence import Calibration
from keypoint_detection.models.backbones import Backbone

# Tiny tensors gain nothing from threads, and threads that wait for a busy core lose minutes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


class StopAt(Callback):
    """A callback that ends the training after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.step


class Unreachable(Callback):
    """A callback that fails before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise OSError("unreachable")


KEYPOINTS = ["red", "left", "right"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep accounts and settings of whoever runs the tests out of them."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def draw_disc(pixels: np.ndarray, x: float, y: float, colour: tuple[int, int, int], radius: float = 4.0) -> None:
    """Paint a disc whose centre is at continuous coordinates (x, y)."""
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    pixels[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = colour


def write_discs(folder: Path, n_images: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a COCO file with one red, one green (left) and one blue (right) disc an image; image 2 is empty."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(n_images):
        pixels = np.full((*size, 3), 60, dtype=np.uint8)
        name = f"images/{seed}-{index}.png"
        if index != 2:
            points = rng.uniform((8, 8), (size[1] - 8, size[0] - 8), (3, 2)).round(2)
            for (x, y), colour in zip(points, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], strict=True):
                draw_disc(pixels, x, y, colour)
            triples = [[x, y, 2] for x, y in points.tolist()]
            annotations.append(
                {
                    "id": 100 + index,
                    "image_id": 10 + index,
                    "category_id": 1,
                    "keypoints": [value for triple in triples for value in triple],
                    "bbox": [0, 0, 20, 30],
                    "area": 600.0,
                }
            )
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": 10 + index, "file_name": name, "height": size[0], "width": size[1]})
    path = folder / f"discs-{seed}.json"
    categories = [{"id": 1, "name": "discs", "keypoints": KEYPOINTS}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def _only_the_packages_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the backbones that other tests define: help and errors list all that are imported."""
    own = [one for one in Backbone.__subclasses__() if one.__module__.startswith("keypoint_detection.")]
    monkeypatch.setattr(Backbone, "__subclasses__", staticmethod(lambda: own), raising=False)
    for one in own:
        monkeypatch.setattr(one, "__subclasses__", staticmethod(list), raising=False)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of discs, one of them empty."""
    return write_discs(tmp_path_factory.mktemp("discs"), 12)


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO file of one blank 8 x 10 image, with parts of it replaced."""

    def write(**replaced: Any) -> Path:
        Image.new("RGB", (10, 8)).save(tmp_path / "one.png")
        content = {
            "images": [{"id": 1, "file_name": "one.png"}],
            "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1]}],
            "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"]}],
        } | replaced
        path = tmp_path / "data.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The checkpoint of a detector of bright spots, for images of any size."""
    return make_checkpoint(tmp_path, image_size=(48, 64))


@pytest.fixture
def calibrated_checkpoint(checkpoint: Path) -> Path:
    """The same with a calibration for 2 and 5 px, whose errors are a hundredth of the peaks."""
    content = read_checkpoint(str(checkpoint))
    calibration = Calibration((2.0, 5.0), (1.0, 1.0), (1.0, 1.0), (-2.0, 0.0), 0.01)
    report = {"overall": {"score_threshold": 0.7}}
    content[VALIDATION_KEY] = {"epoch": 1, "step": 1, "report": report, CALIBRATION_KEY: calibration.as_state()}
    path = checkpoint.with_name("calibrated.ckpt")
    write_checkpoint(content, path)
    return path
