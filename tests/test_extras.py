import re
from pathlib import Path

import pytest

from keypoint_detection.extras import EXTRAS

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_what_messages_tell_to_install_is_what_the_extras_name():
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert len(EXTRAS) == 4
    assert {name: list(packages) for name, packages in EXTRAS.items()} == {name: extras[name] for name in EXTRAS}


def test_nothing_names_a_distribution_that_no_index_has():
    package = PYPROJECT.with_name("keypoint_detection")
    texts = {path: path.read_text() for path in (*package.rglob("*.py"), *PYPROJECT.parent.glob("notebooks/*"))}
    assert len(texts) > 100
    assert [
        path for path, text in texts.items() if re.search(r"pip install .?keypoint-detection\[\w+\](?! @ git)", text)
    ] == []
