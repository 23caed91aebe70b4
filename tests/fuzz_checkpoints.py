"""Mutate a checkpoint, in its structure and its bytes, and load what comes of it in every way."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from keypoint_detection.checkpoints.files import read_checkpoint
from keypoint_detection.checkpoints.initial_weights import load_initial_weights
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.models.backbones import Unet
from keypoint_detection.models.network import HeatmapNetwork

GOLDEN = Path(__file__).parent / "assets" / "golden" / "run" / "checkpoints" / "best.ckpt"
SHARE_OF_BYTES = 0.4
# What replaces a value.
VALUES: list[Any] = [
    *(None, True, -1, 0, 10**9, 2**70, -1.5, 1e300, float("nan"), float("inf"), "", "x", [], {}, [1], {"a": 1}),
    *([10**9, 10**9], [[]], ["a", "a"], {"class_path": "os.system"}, {"class_path": 3}, b"bytes", (1, 2)),
    *(torch.zeros(2), torch.full((3,), torch.nan), torch.zeros(2, 2).to_sparse(), torch.zeros(1).expand(10**9)),
    *(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.complex64), torch.zeros(0)),
]


def places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key of a nested value."""
    if depth < 7 and isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key], depth + 1)


def mutate_structure(content: Any, rng: random.Random) -> None:
    """Change one place of a checkpoint."""
    section = rng.choice(list(content))
    candidates = [(content, section), *places(content[section])]
    container, key = rng.choice(candidates)
    action = rng.choice(["delete", "replace", "replace", "rename", "tensor"])
    value = container[key]
    if action == "tensor" and isinstance(value, torch.Tensor) and value.is_floating_point():
        container[key] = rng.choice(
            [
                value.flatten(),
                value.to(torch.int64),
                value * torch.nan,
                value.to_sparse(),
                value.flatten()[:0],
                value.to("meta"),
            ]
        )
    elif action == "delete" or (action == "rename" and isinstance(container, list)):
        del container[key]
    elif action == "rename":
        container[rng.choice(["unknown", 7, f"{key}s"])] = container.pop(key)
    else:
        container[key] = rng.choice(VALUES)


def mutate_bytes(whole: bytes, rng: random.Random) -> bytes:
    """Cut off, flip or overwrite bytes."""
    position = rng.choice([rng.randrange(len(whole)), rng.randrange(3000), len(whole) - 1 - rng.randrange(3000)])
    if rng.random() < 0.2:
        return whole[:position]
    n = rng.choice([1, 1, 4, 100])
    return whole[:position] + rng.randbytes(n) + whole[position + n :]


def load_mutant(load: Callable[[Path], object], path: Path) -> Callable[[int], int]:
    """Return a function that loads a mutant of the golden checkpoint, given by its number; it returns the exit code.

    Args:
        load: gets the path of the mutant.
        path: where that is written.
    """
    whole, content = GOLDEN.read_bytes(), torch.load(GOLDEN, weights_only=True)

    def call(number: int) -> int:
        rng = random.Random(f"checkpoint {number}")
        if rng.random() < SHARE_OF_BYTES:
            path.write_bytes(mutate_bytes(whole, rng))
        else:
            changed = copy.deepcopy(content)
            mutate_structure(changed, rng)
            torch.save(changed, path)
        try:
            load(path)
        except ValueError:
            return 2
        except SystemExit as error:
            return int(error.code or 0)
        return 0

    return call


def read_and_load(path: Path) -> None:
    """Load a checkpoint as the Predictor does."""
    read_checkpoint(str(path))
    load_detector(str(path), flip_test=None)


def start_from(path: Path) -> None:
    """Start a training of the same detector, with one more channel, from a checkpoint's weights."""
    settings = torch.load(GOLDEN, weights_only=True)["hyper_parameters"]
    network = HeatmapNetwork(Unet(**settings["backbone"]["init_args"]), 4)
    new = {"channels": ["red", "left", "right", "top"], "backbone": settings["backbone"]}
    load_initial_weights(str(path), network.backbone, network.head, None, new)


def parse(command: str) -> Callable[[Path], object]:
    """Take the settings of a checkpoint as a command does, and make everything from them, but do not run it."""
    from keypoint_detection.commands.detector_cli import DetectorCLI
    from keypoint_detection.commands.training import run

    class Prepared(DetectorCLI):
        def _run_subcommand(self, subcommand: str) -> None:
            """Do nothing."""

    def load(path: Path) -> None:
        run([command, f"--ckpt_path={path}", *WORDS[command]], Prepared)

    return load


WORDS = {
    "predict": [f"--data.predict={GOLDEN.parents[2] / 'images'}", "--trainer.accelerator=cpu"],
    "fit": [
        *(f"--data.{part}={GOLDEN.parents[2] / 'discs.json'}" for part in ("train", "val")),
        *("--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.max_epochs=121"),
    ],
}


def resume(path: Path) -> None:
    """Resume the training of a checkpoint for a step."""
    from keypoint_detection.cli import run

    words = ["--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    run(["fit", f"--ckpt_path={path}", *WORDS["fit"], *words, f"--trainer.default_root_dir={path.parent}/runs"])
