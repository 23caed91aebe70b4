from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.marks import PALETTE
from keypoint_detection.reporting.logged_overlays import PredictionOverlays
from keypoint_detection.types import Detections


def batch_of(ids):
    n = len(ids)
    return SimpleNamespace(
        images=torch.zeros(n, 3, 20, 30, dtype=torch.uint8),
        points=torch.zeros(n, 1, 1, 2),
        visibility=torch.ones(n, 1, 1, dtype=torch.int64),
        image_ids=torch.tensor(ids),
        input_to_image=torch.eye(3)[:2].expand(n, 2, 3),
        image_sizes=torch.tensor([[20, 30]] * n),
    )


def outputs_of(n):
    return SimpleNamespace(
        logits=torch.zeros(n, 1, 20, 30), detections_input=Detections(torch.zeros(n, 1, 2, 2), torch.zeros(n, 1, 2))
    )


def trainer_at(epoch, folder, **more):
    return SimpleNamespace(
        **{
            "is_global_zero": True,
            "sanity_checking": False,
            "fast_dev_run": False,
            "current_epoch": epoch - 1,
            "should_stop": epoch == 50,
            "check_val_every_n_epoch": 1,
            "max_epochs": 50,
            "state": SimpleNamespace(fn="fit"),
            "callbacks": [],
            "loggers": [],
            "log_dir": str(folder),
            "default_root_dir": str(folder),
            "global_step": 0,
            **more,
        }
    )


def validate(callback, trainer, *batches):
    module = SimpleNamespace(channels={"a": ["a"]})
    for number, ids in enumerate(batches):
        callback.on_validation_batch_end(trainer, module, outputs_of(len(ids)), batch_of(ids), number)
    callback.on_validation_epoch_end(trainer, module)


def test_the_first_pictures_are_drawn_across_batches(tmp_path):
    callback = PredictionOverlays(n_images=3)
    validate(callback, trainer_at(1, tmp_path), [7, 8], [9, 10])
    assert [path.name for path in callback.latest] == [f"epoch-0001-image-{i}.png" for i in (7, 8, 9)]
    assert all(Image.open(path).width == 2 * 30 * 24 for path in callback.latest)


def test_pictures_are_drawn_ever_more_seldom_and_in_the_last_epoch(tmp_path):
    callback = PredictionOverlays(n_images=1)
    for epoch in range(1, 51):
        validate(callback, trainer_at(epoch, tmp_path), [7])
    drawn = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "overlays").iterdir())
    assert drawn == [1, 2, 4, 8, 16, 32, 50]


@pytest.mark.parametrize("more", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_nothing_is_drawn_before_training_or_on_other_processes(tmp_path, more):
    validate(PredictionOverlays(), trainer_at(1, tmp_path, **more), [7])
    assert not (tmp_path / "overlays").exists()


def test_overlays_have_the_resolution_of_the_original_image(tmp_path):
    """The network saw 20 x 30 pixels of an image of 600 x 900."""
    Image.new("RGB", (900, 600), (200, 0, 0)).save(tmp_path / "large.png")
    data = KeypointsDataModule.__new__(KeypointsDataModule)
    data.image_files = lambda part, ids: {ids[0]: str(tmp_path / "large.png")}
    batch = batch_of([7])
    batch.image_sizes[:] = torch.tensor([600, 900])
    batch.input_to_image = 30.0 * batch.input_to_image
    batch.points[:] = torch.tensor([10.0, 5.0])
    callback, module = PredictionOverlays(n_images=1), SimpleNamespace(channels={"a": ["a"]})
    trainer = trainer_at(1, tmp_path, datamodule=data)
    callback.on_validation_batch_end(trainer, module, outputs_of(1), batch, 0)
    callback.on_validation_epoch_end(trainer, module)
    pixels = np.asarray(Image.open(callback.latest[0]).convert("RGB"))[:600]
    assert pixels.shape[1] == 2 * 900
    rows, columns = (pixels[:, :900] == PALETTE[0]).all(axis=2).nonzero()
    assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx([300, 150], abs=0.75)
    assert pixels[0, 0].tolist() == [200, 0, 0]
