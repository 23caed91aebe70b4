"""Let disks fill up, or become read-only, at random moments of trainings, and read what is left.

    python tests/benchmarks/full_disk.py --trials=20      # as root, on Linux; ten minutes on two cores

Each training has two worker processes, writes a checkpoint after every step, and has a disk in memory for its run
folder. At a moment drawn from the length of a whole training, the disk is filled but for a random rest of up to two
checkpoints. In the last trial, the run folder becomes read-only instead. No training may hang, show a traceback or
leave a checkpoint that cannot be read.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import write_discs
from interrupted_trainings import EVERY_STEP, training_words

from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint

DISK = ("-t", "tmpfs", "-o", "size=40m", "tmpfs")
LONGEST_S = 180


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """Mount something on a folder for a while."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def start(folder: Path, data: Path, log: Path) -> "subprocess.Popen[bytes]":
    words = [*training_words(data, "plain"), EVERY_STEP, "--data.num_workers=2"]
    words.append(f"--trainer.default_root_dir={folder}")
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", "keypoint_detection", *words], stdout=out, stderr=out)


def fill(disk: Path, rest: int) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(max(0, free - rest)))


def protect(disk: Path) -> None:
    """Make a folder read-only though files in it are open, which remounting it would refuse."""
    shadow = disk.with_name("shadow")
    shadow.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(shadow)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(shadow)], check=True)
    subprocess.run(["mount", "--move", str(shadow), str(disk)], check=True)


def judge(process: "subprocess.Popen[bytes]", disk: Path, log: Path) -> tuple[bool, str]:
    """Wait for a training; return whether it kept its promises, and a line about it."""
    process.wait(LONGEST_S)
    checkpoints, damaged = sorted(disk.rglob("*.ckpt")), []
    for path in checkpoints:
        try:
            read_checkpoint(str(path))
        except CheckpointError as error:
            damaged.append(str(error))
    text = log.read_text()
    last = (text.strip().splitlines() or [""])[-1]
    line = f"exit code {process.returncode}, {len(checkpoints)} checkpoints, {len(damaged)} damaged; {last[:150]}"
    return not damaged and "Traceback" not in text, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    draw = random.Random(options.seed)
    n_good = 0
    with tempfile.TemporaryDirectory(prefix="full-disk-") as name:
        folder = Path(name)
        data, disk, log = write_discs(folder, 12), folder / "disk", folder / "log"
        started_at = time.monotonic()
        start(folder / "whole", data, log).wait(LONGEST_S)
        whole_s = time.monotonic() - started_at
        size = next(folder.rglob("last.ckpt")).stat().st_size
        for trial in range(options.trials):
            is_last = trial == options.trials - 1
            with mounted(disk, *DISK):
                process = start(disk, data, log)
                time.sleep(draw.uniform(0, whole_s))
                if is_last:
                    protect(disk)
                else:
                    fill(disk, int(draw.uniform(0, 2 * size)))
                is_good, line = judge(process, disk, log)
                if is_last:
                    subprocess.run(["umount", "--lazy", str(disk)], check=True)
            n_good += is_good
            print(f"{'read-only' if is_last else 'full'}: {line}", flush=True)
    print(f"{n_good} of {options.trials} without a traceback, with every checkpoint readable")


if __name__ == "__main__":
    main()
