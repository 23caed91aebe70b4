"""The package's folders import one way; the contracts stand in `pyproject.toml`."""

import subprocess
import sys
from pathlib import Path

from importlinter.api import read_configuration

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


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
