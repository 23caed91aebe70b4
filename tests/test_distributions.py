"""What `pip install` gets: the wheel and the source distribution."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Neither the tests nor what only a clone needs.
PACKAGE = {
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "templates/*", "py.typed")
    for path in (ROOT / "keypoint_detection").rglob(pattern)
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build both in a copy of the sources, without network and isolation."""
    folder, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if name.split("/")[0] in ("keypoint_detection", "pyproject.toml", "README.md", "LICENSE"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for kind in ("wheel", "sdist"):
        code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(out)], cwd=folder, check=True, capture_output=True)
    return out


def test_the_wheel_holds_the_whole_package(distributions):
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        entry_points = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert len(PACKAGE) > 100
    assert {name for name in names if ".dist-info/" not in name} == PACKAGE
    assert "kpd = keypoint_detection.cli:main" in entry_points


def test_the_source_distribution_holds_what_a_build_needs(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*PACKAGE, "pyproject.toml", "README.md", "LICENSE"}


def test_a_config_is_written_without_a_clone(distributions, tmp_path, discs):
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import keypoint_detection; "
        "from keypoint_detection.cli import run; run(sys.argv[1:]); print(keypoint_detection.__file__)"
    )
    for words in (["--quickstart"], [str(discs)]):
        arguments = [sys.executable, "-c", code, str(tmp_path / "installed"), "init", *words]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "installed") in done.stdout
    assert (tmp_path / "quickstart.yaml").is_file()
    assert str(discs) in (tmp_path / "base.yaml").read_text()
