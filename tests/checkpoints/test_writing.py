import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from keypoint_detection.checkpoints.writing import CheckpointWriteError, remove_leftovers, write_checkpoint

# A device that is always full.
FULL = Path("/dev/full")
LEFTOVER = ".last.ckpt.0123abcd.kpd-partial"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint({"step": torch.tensor(1)}, path)
    return path


def read_step(path):
    return int(torch.load(path, weights_only=True)["step"])


def test_a_checkpoint_replaces_the_one_before_and_leaves_nothing_else(path):
    write_checkpoint({"step": torch.tensor(2)}, path)
    assert read_step(path) == 2
    assert os.listdir(path.parent) == ["last.ckpt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_one_before_survives_a_full_disk(path, monkeypatch):
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(FULL if mode == "xb" else self, mode.replace("x", "w")))
    with pytest.raises(CheckpointWriteError, match=r"last.ckpt cannot be written: No space left on device\.$"):
        write_checkpoint({"step": torch.tensor(2)}, path)
    monkeypatch.undo()
    assert read_step(path) == 1
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_it_is_on_the_disk_before_it_replaces_the_one_before(path, monkeypatch):
    steps = []
    synced, replaced = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: steps.append("sync") or synced(number))
    monkeypatch.setattr(Path, "replace", lambda self, target: steps.append("replace") or replaced(self, target))
    write_checkpoint({"step": torch.tensor(2)}, path)
    assert steps == ["sync", "replace", "sync"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(CheckpointWriteError, match=r"a.ckpt cannot be written: (Not a directory|File exists)\."):
        write_checkpoint({}, tmp_path / "runs" / "a.ckpt")


def test_what_a_killed_process_left_is_removed_and_nothing_else(path):
    others = [".last.ckpt.kpd-partial", "last.ckpt.0123abcd.kpd-partial", ".last.ckpt.0123abcd.kpd-partial.txt", "a"]
    for name in (LEFTOVER, *others):
        (path.parent / name).write_bytes(b"half")
    remove_leftovers(path.parent)
    assert sorted(os.listdir(path.parent)) == sorted([*others, "last.ckpt"])


def test_what_another_process_is_writing_stays(path):
    being_written = path.with_name(LEFTOVER)
    with being_written.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_leftovers(path.parent)
        assert being_written.exists()
    remove_leftovers(path.parent)
    assert not being_written.exists()


def test_a_process_killed_while_writing_leaves_the_one_before(path, tmp_path):
    # It dies when the new one is complete but for its name.
    code = (
        "import os, torch, sys; from pathlib import Path\n"
        "from keypoint_detection.checkpoints.writing import write_checkpoint\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        "write_checkpoint({'step': torch.tensor(2)}, Path(sys.argv[1]))"
    )
    done = subprocess.run(["python", "-c", code, str(path)], check=False)
    assert done.returncode == 9
    assert len(os.listdir(path.parent)) == 2
    assert read_step(path) == 1
    remove_leftovers(path.parent)
    assert os.listdir(path.parent) == ["last.ckpt"]
