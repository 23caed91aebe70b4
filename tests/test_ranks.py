"""The processes of one training: which one this is, and orphans."""

import subprocess
import sys
from pathlib import Path

import pytest

from keypoint_detection.ranks import RANK_VARIABLES, find_rank

ROOT = Path(__file__).parents[1]

# The child waits for ever; its parent ends as soon as the child is ready.
CHILD = """
import signal
from keypoint_detection.ranks import end_with_parent
end_with_parent()
print("ready", flush=True)
signal.pause()
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the end of their parent")
def test_a_process_ends_with_the_one_that_started_it() -> None:
    # The child inherits our end of standard error: reading it ends when the child does.
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], cwd=ROOT, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("variables", "rank"),
    [({}, 0), ({"LOCAL_RANK": "1"}, 1), ({"RANK": "5", "LOCAL_RANK": "1"}, 5), ({"SLURM_PROCID": "2"}, 2)],
)
def test_the_rank_is_what_the_launcher_says(
    variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_rank() == rank
