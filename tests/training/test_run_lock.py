import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from keypoint_detection.training import run_lock
from keypoint_detection.training.run_lock import DEAD_AFTER_S, LOCK_FILE, RunLock

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write(sys.argv[2])
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, content: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(folder / LOCK_FILE), content]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def entry(host: str, pid: int) -> str:
    return json.dumps({"host": host, "pid": pid})


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system that has no locks."""

    def fail(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "lockf", fail)
    return


def test_a_run_folder_is_for_one_training(tmp_path: Path) -> None:
    process = hold(tmp_path, entry(socket.gethostname(), 1234))
    with pytest.raises(
        MisconfigurationException, match=rf"process 1234 on .* is training in it.* delete .*{LOCK_FILE}"
    ):
        RunLock(tmp_path).take()
    process.kill()
    process.communicate()
    lock = RunLock(tmp_path)
    lock.take()
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_machine_that_went_down_does_not_hold_a_run_forever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = hold(tmp_path, entry("elsewhere", 5))
    with pytest.raises(MisconfigurationException, match="process 5 on elsewhere is training in it, or did 0 s ago"):
        RunLock(tmp_path).take()
    then = os.stat(tmp_path / LOCK_FILE).st_mtime - DEAD_AFTER_S - 1
    os.utime(tmp_path / LOCK_FILE, (then, then))
    RunLock(tmp_path).take()
    assert "no sign of life" in caplog.text
    process.communicate()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_the_entry_decides(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / LOCK_FILE
    for content in ("", "garbage", entry(socket.gethostname(), gone.pid)):
        path.write_text(content)
        lock = RunLock(tmp_path)
        lock.take()
        lock.release()
    path.write_text(entry(socket.gethostname(), os.getppid()))
    with pytest.raises(MisconfigurationException, match=f"process {os.getppid()}"):
        RunLock(tmp_path).take()


def test_a_training_shows_that_it_is_alive(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.take()
    os.utime(tmp_path / LOCK_FILE, (0, 0))
    lock.show_life()
    assert os.stat(tmp_path / LOCK_FILE).st_mtime > DEAD_AFTER_S
    lock.release()
