"""The package's folders import one way, by the contracts in `pyproject.toml`, and its docstrings have one style."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from importlinter.api import read_configuration

from keypoint_detection.checkpoints.content import DataSettings, ModelSettings
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Words that keep their capital letter anywhere in a sentence, beside those with a second one or a digit (COCO, F1).
CAPITALISED = {"False", "Gaussian", "Gaussians", "Lightning", "None", "Pillow", "Python", "True"}


def test_every_folder_has_its_place_in_the_contracts():
    contracts = read_configuration(str(PYPROJECT))["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {name.strip() for layer in layers for name in layer.split("|")}
    package = PYPROJECT.with_name("keypoint_detection")
    found = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == found - {"__init__"}


def test_the_contracts_are_kept():
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [script, "--config", PYPROJECT, "--no-cache"], cwd=PYPROJECT.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def docstring_entries(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the section and the text after the name of each entry of `Args`, `Attributes` and `Raises`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        section = ""
        for line in (ast.get_docstring(node) or "").splitlines():
            if line and not line.startswith(" "):
                section = line if line in ("Args:", "Attributes:", "Raises:") else ""
            elif section and (entry := re.match(r" {4}[\w*`, ]+: (.*)", line)):
                yield section, entry[1]


def test_entries_of_docstrings_begin_in_lower_case():
    files = sorted(PYPROJECT.with_name("keypoint_detection").rglob("*.py"))
    entries = [(path, *entry) for path in files for entry in docstring_entries(path)]
    assert {section for _, section, _ in entries} == {"Args:", "Attributes:", "Raises:"}
    assert len(entries) > len(files)
    capital = [
        f"{path.name}: {text}"
        for path, _, text in entries
        if (word := re.match(r"[A-Z][\w-]*", text))
        and word[0] not in CAPITALISED
        and not re.search(r".[A-Z0-9]", word[0])
    ]
    assert capital == []


@pytest.mark.parametrize(("settings", "cls"), [(ModelSettings, KeypointDetector), (DataSettings, KeypointsDataModule)])
def test_checkpoints_know_every_argument_of_the_detector_and_its_data(settings, cls):
    # A new argument goes into checkpoints/content.py too, with what older versions did as its default.
    arguments = {name for name in inspect.signature(cls.__init__).parameters if name != "self"}
    assert {one.encode_name for one in msgspec.structs.fields(settings)} == arguments | {"_instantiator", "_class_path"}
