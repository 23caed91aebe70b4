"""Kill trainings at random moments, resume them, and compare the result with that of a training never stopped.

    python tests/benchmarks/kill_and_resume.py --kills=12                # of each variant; an hour on one core
    python tests/benchmarks/kill_and_resume.py --kills=50 EMA dropout    # of two of them
    python tests/benchmarks/kill_and_resume.py --signal=SIGTERM --seed=1 # stopped, not killed; other moments

A training has three epochs of six batches on twelve images of 48x64 pixels. It is killed at a moment drawn from the
length of a whole one, resumed from its newest checkpoint (or started again if it has none), killed again in every other
trial, and then trained to its end. Weights, optimiser, schedules, random generators, callbacks and metrics must be
equal bit by bit, and the checkpoints that are kept the same. Each training is a process of its own, forked from this
one to save the imports. Of one on two processes, one is killed, and the other has to end by itself.
"""

import argparse
import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from conftest import write_discs
from interrupted_trainings import TWO_PROCESSES, VARIANTS, find_differences, training_words

from keypoint_detection.commands.training import run

# In Linux's sys/prctl.h: this process waits for those that its children leave behind.
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--kills", type=int, default=12, help="trials of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGKILL", help="SIGKILL, or SIGTERM, SIGINT, SIGUSR1 to stop gracefully")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.environ |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    n_identical = n_trials = n_kills = 0
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as name:
        folder = Path(name)
        data = write_discs(folder, 12)
        for variant in options.variants:
            moments = random.Random(f"{options.seed} {variant}")
            trials = [
                Trial(folder, data, variant, getattr(signal, options.signal), moments) for _ in range(options.kills)
            ]
            started_at = time.monotonic()
            if not train(folder / "whole", training_words(data, variant), variant == TWO_PROCESSES):
                raise SystemExit("\n".join([f"{variant}: a training failed:", *read_log(folder / "whole")]))
            whole_s = time.monotonic() - started_at
            found = [trial.find_differences(whole_s) for trial in trials]
            n_good = sum(not differences for differences in found)
            n_identical, n_trials = n_identical + n_good, n_trials + len(trials)
            n_kills += sum(trial.n_kills for trial in trials)
            print(f"{variant}: {n_good} of {len(trials)} identical", flush=True)
            for differences in found:
                for difference in differences[:3]:
                    print(f"    {difference}", flush=True)
            shutil.rmtree(folder / "whole")
    print(f"all: {n_identical} of {n_trials} identical, after {n_kills} kills")


class Trial:
    """One training that is killed, perhaps twice, and resumed."""

    def __init__(self, folder: Path, data: Path, variant: str, number: int, moments: random.Random) -> None:
        self.whole, self.folder = folder / "whole", folder / "killed"
        self.words = training_words(data, variant)
        # A training that a signal stops validates once more, which may then be the best validation.
        self.names = ["last.ckpt", "best.ckpt", "metrics.json"] if number == signal.SIGKILL else ["last.ckpt"]
        self.number = number
        self.is_command = variant == TWO_PROCESSES
        self.moments = [moments.random() for _ in range(moments.choice((1, 2)))]
        self.n_kills = 0

    def find_differences(self, whole_s: float) -> list[str]:
        """Train, and compare the result with that of the whole training, which took `whole_s`."""
        words = self.words
        for moment in self.moments:
            self.n_kills += not train(self.folder, words, self.is_command, moment * whole_s, self.number)
            words = self.resuming_words()
        if train(self.folder, words, self.is_command):
            differences = find_differences(self.folder, self.whole, self.names)
        else:
            differences = ["the resumed training failed:", *read_log(self.folder)[-3:]]
        shutil.rmtree(self.folder)
        return differences

    def resuming_words(self) -> list[str]:
        """Return the words that continue from the newest checkpoint; without one, the training starts again."""
        saved = [path for name in ("last.ckpt", "step.ckpt") for path in self.folder.glob(f"*/checkpoints/{name}")]
        if not saved:
            shutil.rmtree(self.folder, ignore_errors=True)
            return self.words
        newest = max(saved, key=lambda path: path.stat().st_mtime_ns)
        # The config of a run is not trusted to name folders outside it.
        config = [f"--config={newest.parents[1] / 'config.yaml'}"] if "dirpath" in str(self.words) else []
        return ["fit", f"--ckpt_path={newest}", *config]


def train(
    folder: Path,
    words: Sequence[str],
    is_command: bool,
    kill_after_s: float | None = None,
    number: int = signal.SIGKILL,
) -> bool:
    """Run a training in processes of its own, and kill one of them; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        _train(folder, words, is_command)
    if kill_after_s is None:
        return os.waitpid(child, 0)[1] == 0
    time.sleep(kill_after_s)
    is_over = os.waitpid(child, os.WNOHANG)[0] == child
    if not is_over:
        others = Path(f"/proc/{child}/task/{child}/children").read_text().split() if is_command else []
        # The moments are random, hence so is the choice.
        victims = [child, *map(int, others)]
        os.kill(victims[int(kill_after_s * 1000) % len(victims)], number)
        for process in victims:
            with contextlib.suppress(ChildProcessError):  # its parent has waited for it
                os.waitpid(process, 0)
    return is_over


def read_log(folder: Path) -> list[str]:
    """Return what the latest training in a folder wrote on the terminal."""
    return (folder.parent / "log").read_text().splitlines()


def _train(folder: Path, words: Sequence[str], is_command: bool) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Where a training writes with a path of its own is relative.
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    words = [*words, *([] if words[1].startswith("--ckpt_path") else [f"--trainer.default_root_dir={folder}"])]
    if is_command:
        os.execv(sys.executable, [sys.executable, "-m", "keypoint_detection", *words])
    try:
        run(words)
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
