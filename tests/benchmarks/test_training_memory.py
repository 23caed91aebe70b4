"""Memory that a long training keeps, and what reading processes cost.

Run alone: `pytest tests/benchmarks/test_training_memory.py -s -n 0`; Linux only. Memory is counted as the system's
proportional share (PSS): what several processes share counts once.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_discs
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image

from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.commands.training import run
from keypoint_detection.data.datamodule import KeypointsDataModule

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"
N_EPOCHS, N_WARM_EPOCHS = 300, 50
MAX_GROWTH_MB = 40
N_IMAGES, N_KEYPOINTS, N_WORKERS, N_BATCHES = 60_000, 17, 8, 100


def share_mb(process: int | str = "self") -> float:
    """Return the proportional share of the memory of a process, in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


class Memory(Callback):
    def __init__(self) -> None:
        self.measured: list[float] = []

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.measured.append(share_mb())


@pytest.mark.parametrize("validates_every", [1, 3])
def test_memory_of_many_epochs(tmp_path, monkeypatch, validates_every):
    monkeypatch.chdir(tmp_path)
    train = write_discs(tmp_path, 12)
    memory = Memory()

    class MeasuredCLI(DetectorCLI):
        def instantiate_trainer(self, **kwargs) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, memory)
            return trainer

    words = ["fit", f"--config={TINY}", f"--data.train={train}", f"--data.val={train}", "--data.augment=true"]
    words += [f"--trainer.max_epochs={N_EPOCHS}", f"--trainer.check_val_every_n_epoch={validates_every}"]
    run(words, MeasuredCLI)
    measured = memory.measured
    n_validations = N_EPOCHS // validates_every
    print(
        f"\n{n_validations} validations: {measured[N_WARM_EPOCHS]:.0f} MB after {N_WARM_EPOCHS} epochs, "
        f"{measured[N_EPOCHS // 2]:.0f} MB after {N_EPOCHS // 2}, {measured[-1]:.0f} MB after {len(measured)}"
    )
    assert measured[-1] - measured[N_WARM_EPOCHS] < MAX_GROWTH_MB


def write_many(folder: Path) -> Path:
    """Write a COCO file of many images, which are all the same file."""
    (folder / "images").mkdir()
    Image.new("RGB", (64, 48)).save(folder / "one.png")
    rng = np.random.default_rng(0)
    points = rng.uniform(1, 47, (N_IMAGES, N_KEYPOINTS, 2)).round(2).tolist()
    images, annotations = [], []
    for index in range(N_IMAGES):
        name = f"images/{index:012d}.png"
        os.link(folder / "one.png", folder / name)
        images.append({"id": index, "file_name": name, "height": 48, "width": 64})
        keypoints = [value for x, y in points[index] for value in (x, y, 2)]
        annotations.append({"id": index, "image_id": index, "category_id": 1, "keypoints": keypoints})
    categories = [{"id": 1, "name": "person", "keypoints": [f"k{index}" for index in range(N_KEYPOINTS)]}]
    path = folder / "many.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_memory_of_reading_processes(tmp_path):
    data = KeypointsDataModule(train=str(write_many(tmp_path)), num_workers=N_WORKERS, batch_size=16)
    data.setup("fit")
    alone = share_mb()
    loader = iter(data.train_dataloader())
    workers = [worker.pid for worker in loader._workers]
    sums = []
    for number in range(1, N_BATCHES + 1):
        next(loader)
        if number in (10, N_BATCHES):
            sums.append(share_mb() + sum(map(share_mb, workers)))
    print(
        f"\n{N_IMAGES} images: {alone:.0f} MB alone; with {N_WORKERS} workers {sums[0]:.0f} MB after 10 batches, "
        f"{sums[1]:.0f} MB after {N_BATCHES}"
    )
    assert (sums[1] - alone) / N_WORKERS < 100
