"""Trainings that must end the same whether or not they were stopped on the way, and what "the same" means."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keypoint_detection.models.backbones.unet import Unet

TINY = Path(__file__).parent / "conf" / "tiny.yaml"


class UnetWithDropout(Unet):
    """A backbone that draws random numbers in every step."""

    def __init__(self, n_channels: int = 4) -> None:
        super().__init__(n_channels, n_downsampling_layers=1, n_resnet_blocks=1)
        self.dropout = nn.Dropout2d(0.3)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.dropout(super().forward(images))
        return features


def _callback(class_path: str, **init_args: Any) -> str:
    return f"--trainer.callbacks+={json.dumps({'class_path': class_path, 'init_args': init_args})}"


LIGHTNING = "lightning.pytorch.callbacks"
DROPOUT = f"--model.backbone={__name__}.UnetWithDropout"
EVERY_THREE_BATCHES = ["--trainer.val_check_interval=3", "--trainer.check_val_every_n_epoch=null"]
EVERY_STEP = _callback(f"{LIGHTNING}.ModelCheckpoint", every_n_train_steps=1, filename="step", save_top_k=1)
# Worse than any loss it sees, so that each validation counts against the training.
EARLY_STOPPING = {"monitor": "val/loss", "patience": 2, "min_delta": 0.3}
PLATEAU = {"monitor": "val/loss", "patience": 0, "factor": 0.5, "threshold": 0.3}
ON_PLATEAU = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": PLATEAU}
JITTER = {"class_path": "torchvision.transforms.v2.ColorJitter", "init_args": {"brightness": 0.5}}
SWA = {"swa_lrs": 0.01, "swa_epoch_start": 2, "annealing_epochs": 2}
AVERAGING = [_callback(f"{LIGHTNING}.StochasticWeightAveraging", **SWA), "--model.lr_scheduler=constant"]

# What is started as a command, since its first process starts the other with the same words.
TWO_PROCESSES = "two processes"

# Each is a training of six batches an epoch on twelve images.
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "a checkpoint every step": [EVERY_STEP],
    "EMA": [_callback(f"{LIGHTNING}.EMAWeightAveraging", decay=0.7)],
    "two workers": ["--data.num_workers=2"],
    "aligned accumulation": ["--trainer.accumulate_grad_batches=3", *EVERY_THREE_BATCHES],
    "unaligned accumulation": ["--trainer.accumulate_grad_batches=2", *EVERY_THREE_BATCHES],
    "scheduled accumulation": [
        _callback(f"{LIGHTNING}.GradientAccumulationScheduler", scheduling={1: 2}),
        "--trainer.val_check_interval=3",
    ],
    "dropout": [DROPOUT],
    "dropout and a checkpoint every step": [DROPOUT, EVERY_STEP],
    "own transforms": [f"--data.augmentation={json.dumps([JITTER])}"],
    "EarlyStopping": [_callback(f"{LIGHTNING}.EarlyStopping", **EARLY_STOPPING)],
    "EarlyStopping within epochs": [
        _callback(f"{LIGHTNING}.EarlyStopping", **EARLY_STOPPING),
        "--trainer.val_check_interval=3",
    ],
    "checkpoints monitoring the training": [
        _callback(f"{LIGHTNING}.ModelCheckpoint", monitor="train/loss/left", filename="train")
    ],
    "ReduceLROnPlateau": [f"--model.lr_scheduler={json.dumps(ON_PLATEAU)}"],
    "checkpoints elsewhere": [
        _callback(f"{LIGHTNING}.ModelCheckpoint", every_n_train_steps=2, filename="{step}", dirpath="elsewhere"),
        _callback(f"{LIGHTNING}.ModelCheckpoint", every_n_train_steps=4, filename="all-{step}", save_top_k=-1),
    ],
    # It ends with an epoch that only measures the statistics of batch normalisation.
    "SWA": AVERAGING,
    "SWA within epochs": [*AVERAGING, "--trainer.val_check_interval=3"],
    "SWA with checkpoints after epochs": [
        *AVERAGING,
        _callback(f"{LIGHTNING}.ModelCheckpoint", filename="epoch", save_on_train_epoch_end=True),
    ],
    TWO_PROCESSES: ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=1"],
}


def training_words(data: Path, variant: str) -> list[str]:
    """Return the arguments of a training of three epochs of six batches."""
    words = ["fit", f"--config={TINY}", f"--data.train={data}", f"--data.val={data}", "--data.batch_size=2"]
    return [*words, "--data.augment=true", "--trainer.max_epochs=3", *VARIANTS[variant]]


def find_differences(
    run: Path, other: Path, names: Sequence[str] = ("last.ckpt", "best.ckpt", "metrics.json")
) -> list[str]:
    """List what differs in some files of two run folders, and which checkpoints only one of them has."""
    here, there = ({path.name for path in folder.rglob("*.ckpt")} for folder in (run, other))
    found = [f"{name}: in one of them" for name in sorted(here ^ there)]
    for name in names:
        one, two = (_read(next(folder.rglob(name))) for folder in (run, other))
        found += _compare(one, two, name)
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else torch.load(path, weights_only=True)


def _compare(one: Any, other: Any, place: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = ({_without_folder(key): value for key, value in part.items()} for part in (one, other))
        if one.keys() != other.keys():
            yield f"{place}: keys"
        for key in one.keys() & other.keys():
            yield from _compare(one[key], other[key], f"{place}: {key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{place}: length"
        for index, (first, second) in enumerate(zip(one, other, strict=False)):
            yield from _compare(first, second, f"{place}: {index}")
    elif not _is_same(one, other):
        yield place if isinstance(one, Tensor) else f"{place}: {one} and {other}"


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, str) and isinstance(other, str):
        return _without_folder(one) == _without_folder(other)
    return bool(one == other)


def _without_folder(text: Any) -> Any:
    return Path(text).name if isinstance(text, str) and text.endswith((".ckpt", "/checkpoints", "/elsewhere")) else text
