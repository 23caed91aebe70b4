"""Mutated files of every label format, and mutated command lines, of a fixed seed."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_discs

from keypoint_detection.cli import COMMANDS, run
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.image_files import check_images
from keypoint_detection.types import DataError

__all__ = [
    "FORMATS",
    "convert_mutant",
    "make_sources",
    "read_mutant",
    "run_mutant",
    "run_refusing",
]

FORMATS = ("coco", "deeplabcut", "sleap", "label_studio", "cvat", "yolo", "blender")
# What takes the place of a value in JSON; as text, also in the other formats.
VALUES = (
    *("null", "true", "-1", "0", "1e400", "-1e308", "NaN", "Infinity", "1" + "0" * 30, "9" * 400, '""', '"x"', "[]"),
    *("{}", "[[]]", "[null]", '[["a"]]', '{"a": 1}', '"\\u0000"', '"\\ud800"', '"../../x"', '"/dev/zero"', '"a/b"'),
    *(
        '"' + "n" * 5000 + '"',
        '"\\u001b[2K"',
        "[" * 300 + "]" * 300,
        "1.5",
        '"1"',
        "2147483648",
        "18446744073709551616",
    ),
)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[\w.]+|[\[\]{},:;<>/=]')
WORDS = ("", "0", "-1", "1e400", "nan", "null", "[", "{", "[[]]", "{a: 1}", "*a", "&a [*a]", "é", "\x1b[2K", "x" * 5000)


def make_sources(folder: Path) -> dict[str, Path]:
    """Write a small data set in every format, each in a folder of its own; return the file to mutate of each."""
    discs = write_discs(folder / "coco", 3)
    sources = {"coco": discs}
    for name, file in {
        "deeplabcut": "labeled-data/images/CollectedData_kpd.csv",
        "sleap": "labels.slp",
        "label_studio": "tasks.json",
        "cvat": "annotations.xml",
        "yolo": "data.yaml",
    }.items():
        output = folder / name / (file if name == "sleap" else "")
        run(["convert", str(discs), f"--output={output}", f"--to={name}"])
        sources[name] = folder / name / file
    # The others have their images beside them.
    shutil.copytree(discs.parent / "images", folder / "cvat" / "images")
    blender = folder / "blender" / "dataset.json"
    shutil.copytree(discs.parent, blender.parent)
    images = json.loads(discs.read_text())["images"]
    entries = [{"image_path": one["file_name"], "corner_keypoints": [[0.5, 0.5, 1]]} for one in images]
    blender.write_text(json.dumps({"dataset": entries}))
    return sources | {"blender": blender}


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a few bytes or words of a file, or cut it, or repeat a part of it."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        kind = chance.random()
        if kind < 0.6:
            content = _mutate_token(content, chance)
        else:
            start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
            end = min(end, start + chance.choice((1, 4, 100, 10_000)))
            noise = bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 8))))
            content = content[:start] + chance.choice((noise, content[start:end] * 2, b"")) + content[end:]
    return content


def _mutate_token(content: bytes, chance: random.Random) -> bytes:
    text = content.decode("utf-8", "surrogateescape")
    tokens = list(TOKEN.finditer(text))
    if not tokens:
        return content
    token = chance.choice(tokens)
    new = chance.choice((chance.choice(VALUES), chance.choice(VALUES), chance.choice(tokens)[0], ""))
    return (text[: token.start()] + new + text[token.end() :]).encode("utf-8", "surrogateescape")


def mutate_slp(path: Path, chance: random.Random) -> None:
    """Change the JSON texts and the numbers in a SLEAP file; what h5py makes of broken HDF5 is another matter."""
    import h5py

    with h5py.File(path, "r+") as file:
        for _ in range(chance.choice((1, 1, 3))):
            name = chance.choice(sorted(file))
            one = file[name]
            if name == "metadata":
                text = one.attrs["json"]
                one.attrs["json"] = _mutate_text(text, chance)
            elif isinstance(one, h5py.Dataset) and chance.random() < 0.2:
                del file[name]
            elif isinstance(one, h5py.Dataset) and one.shape and len(one):
                row = chance.randrange(len(one))
                value = one[row]
                if one.dtype.names:
                    field = chance.choice(one.dtype.names)
                    value[field] = chance.choice((0, 1, 200, 127)) if chance.random() < 0.8 else value[field]
                    one[row] = value
                elif isinstance(value, bytes | str):
                    one[row] = _mutate_text(value, chance)


def _mutate_text(text: Any, chance: random.Random) -> bytes:
    """Change a text of HDF5, which has no zero bytes."""
    return mutate(text if isinstance(text, bytes) else str(text).encode(), chance).replace(b"\0", b"")


def mutate_words(words: list[str], chance: random.Random) -> list[str]:
    """Change the options of a command line: their values, their names, or their order; never where results go."""
    changed = list(words)
    for _ in range(chance.choice((1, 1, 2, 3))):
        position = chance.randrange(1, len(changed))
        name, _, value = changed[position].partition("=")
        kind = chance.random()
        if kind < 0.6 and name.startswith("--") and "output" not in name:
            other = chance.choice((chance.choice(WORDS), value[: len(value) // 2], value * 2))
            changed[position] = f"{name}={other}"
        elif kind < 0.75 and name.startswith("--"):
            changed[position] = name[:-1] + f"={value}"
        elif kind < 0.9:
            changed.insert(position, chance.choice((*WORDS, "--config", f"{name}.x=1", name)))
        elif "output" not in name and name != "--print_config":
            del changed[position]
        if len(changed) < 2:
            changed.append("--help")
    return [word.replace("\0", "") for word in changed]


def run_refusing(words: list[str]) -> int:
    """Run a command; return its exit code. Whatever is raised besides it is a fault."""
    try:
        run(words)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def convert_mutant(sources: dict[str, Path], name: str) -> Callable[[int], int]:
    """Return a function that converts a mutant, given by its number, of a format's file, in place of the file."""
    source = sources[name]
    original = source.read_bytes()
    output = source.parent.parent / "result.json"

    def call(number: int) -> int:
        chance = random.Random(f"{name} {number}")
        source.write_bytes(original)
        if name == "sleap":
            mutate_slp(source, chance)
        else:
            source.write_bytes(mutate(original, chance))
        output.unlink(missing_ok=True)
        code = run_refusing(["convert", str(source), f"--output={output}", f"--from={name}"])
        if output.is_file():
            json.loads(output.read_text(), parse_constant=_refuse_constant)
        source.write_bytes(original)
        return code

    return call


def read_mutant(sources: dict[str, Path]) -> Callable[[int], int]:
    """Return a function that reads a mutant, given by its number, of a COCO file as a training does."""
    source = sources["coco"]
    original = source.read_bytes()

    def call(number: int) -> int:
        source.write_bytes(mutate(original, random.Random(f"read {number}")))
        try:
            check_images(read_coco(source, coordinates="continuous"), np.arange(1), needs_equal_sizes=False)
        except DataError:
            return 2
        finally:
            source.write_bytes(original)
        return 0

    return call


def run_mutant(sources: dict[str, Path]) -> Callable[[int], int]:
    """Return a function that runs a mutant, given by its number, of a command line."""
    lines = list(command_lines(sources).values())

    def call(number: int) -> int:
        chance = random.Random(f"words {number}")
        return run_refusing(mutate_words(chance.choice(lines), chance))

    return call


def _refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} was written to a JSON file")


def command_lines(sources: dict[str, Path]) -> dict[str, list[str]]:
    """Return a valid command line of each command; those of trainings only print what they would do."""
    discs = str(sources["coco"])
    lines = {
        "fit": [f"--data.train={discs}", "--data.image_size=[32, 32]", "--model.backbone=Unet", "--print_config"],
        "validate": ["--ckpt_path=missing.ckpt", f"--data.val={discs}"],
        "test": ["--ckpt_path=missing.ckpt", f"--data.test={discs}", "--data.coordinates=pixel_index"],
        "predict": ["--ckpt_path=missing.ckpt", f"--data.predict={discs}"],
        "check": [discs, "--sheet=null", "--n_images=1"],
        "export": ["--ckpt_path=missing.ckpt", "--output=detector.onnx", "--precision=float16"],
        "summarize": ["missing-run", "--output=summary.json", "--n_resamples=10", "--seed=1"],
        "suggest": ["--ckpt_path=missing.ckpt", f"--images={discs}", "--output=suggested.csv", "--n_images=2"],
        "view": [f"--data={discs}", "--ckpt_path=missing.ckpt", "--score_threshold=0.5"],
        "convert": [discs, "--output=labels.json", "--val_fraction=0", "--seed=1", "--coordinates=pixel_index"],
        "synthesize": ["--output=drawn", "--help"],
    }
    assert set(lines) <= set(COMMANDS)
    return {name: [name, *words] for name, words in lines.items()}
