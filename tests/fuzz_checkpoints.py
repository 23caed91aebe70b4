"""Mutate a checkpoint, in its structure and its bytes, and load what comes of it in every way.

`python tests/fuzz_checkpoints.py 700` runs that many and lists the errors that users would see as a traceback;
`tests/test_fuzzed_checkpoints.py` runs a few.
"""

import contextlib
import copy
import io
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from keypoint_detection.checkpoints.files import read_checkpoint
from keypoint_detection.inference.loading import load_detector

GOLDEN = Path(__file__).parent / "assets" / "golden" / "run" / "checkpoints" / "best.ckpt"
LIMIT_S = 60
SHARE_OF_BYTES = 0.4
# What replaces a value.
VALUES: list[Any] = [
    *(None, True, -1, 0, 10**9, 2**70, -1.5, 1e300, float("nan"), float("inf"), "", "x", [], {}, [1], {"a": 1}),
    *([10**9, 10**9], [[]], ["a", "a"], {"class_path": "os.system"}, {"class_path": 3}, b"bytes", (1, 2)),
    *(torch.zeros(2), torch.full((3,), torch.nan), torch.zeros(2, 2).to_sparse(), torch.zeros(1).expand(10**9)),
    *(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.complex64), torch.zeros(0)),
]


class Failure(NamedTuple):
    """A mutation that gave a traceback."""

    what: str
    error: str


def places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key of a nested value."""
    if depth < 7 and isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key], depth + 1)


def mutate_structure(content: Any, rng: random.Random) -> str:
    """Change one place of a checkpoint; return what was done."""
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
    return f"{action} {section} … {key!r}"


def mutate_bytes(whole: bytes, rng: random.Random) -> bytes:
    """Cut off, flip or overwrite bytes."""
    position = rng.choice([rng.randrange(len(whole)), rng.randrange(3000), len(whole) - 1 - rng.randrange(3000)])
    if rng.random() < 0.2:
        return whole[:position]
    n = rng.choice([1, 1, 4, 100])
    return whole[:position] + rng.randbytes(n) + whole[position + n :]


def mutations(n: int, seed: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield descriptions and files of mutated checkpoints, one after the other."""
    rng = random.Random(seed)
    whole, content = GOLDEN.read_bytes(), torch.load(GOLDEN, weights_only=True)
    path = folder / "mutated.ckpt"
    for number in range(n):
        if rng.random() < SHARE_OF_BYTES:
            path.write_bytes(mutate_bytes(whole, rng))
            yield f"{number}: bytes", path
        else:
            changed = copy.deepcopy(content)
            what = mutate_structure(changed, rng)
            torch.save(changed, path)
            yield f"{number}: {what}", path


def find_failures(n: int, seed: int, ways: dict[str, Callable[[Path], object]]) -> Iterator[Failure]:
    """Load mutated checkpoints in several ways and yield what is neither loaded, a ValueError nor exit code 2."""

    def expire(*_: object) -> None:
        raise TimeoutError("hangs")

    previous = signal.signal(signal.SIGALRM, expire)
    with tempfile.TemporaryDirectory() as folder:
        for what, path in mutations(n, seed, Path(folder)):
            for name, load in ways.items():
                signal.alarm(LIMIT_S)
                output = io.StringIO()
                try:
                    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
                        load(path)
                except ValueError:
                    pass
                except SystemExit as error:
                    if error.code not in (None, 0, 2):
                        yield Failure(f"{what}, {name}", f"exit code {error.code}")
                except BaseException as error:  # noqa: BLE001 what is looked for
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{type(error).__name__}: {str(error)[:150]} ({where.filename}:{where.lineno})"
                    yield Failure(f"{what}, {name}", text)
                finally:
                    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def read_and_load(path: Path) -> None:
    """Load a checkpoint as the Predictor does."""
    read_checkpoint(str(path))
    load_detector(str(path), flip_test=None)


def parse(command: str) -> Callable[[Path], object]:
    """Take the settings of a checkpoint as a command does, and make everything from them, but do not run it."""
    from keypoint_detection.commands.training import DetectorCLI, run

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


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 700
    everything = {"Predictor": read_and_load, **{command: parse(command) for command in WORDS}, "resume": resume}
    chosen = {name: everything[name] for name in sys.argv[3:] or everything}
    n_found = 0
    for failure in find_failures(number, int(sys.argv[2]) if len(sys.argv) > 2 else 0, chosen):
        n_found += 1
        sys.__stdout__.write(f"{failure.what}: {failure.error}\n")
        sys.__stdout__.flush()
    sys.stdout.write(f"{n_found} tracebacks in {number} mutations, loaded as {', '.join(chosen)}\n")
