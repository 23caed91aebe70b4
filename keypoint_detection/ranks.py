"""Identify this process among those of a training run before torch connects them, and end orphans."""

import os
import signal
import sys

# Set by torchrun; by Lightning, which starts the other processes of a machine itself; and by SLURM's srun.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
# From Linux's sys/prctl.h: the option that sets the signal a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def find_rank() -> int:
    """Return the rank of this process in its training run; rank 0 logs and writes."""
    values = (os.environ.get(name, "") for name in RANK_VARIABLES)
    return next((int(value) for value in values if value.isdecimal()), 0)


def end_with_parent() -> None:
    """On Linux, have this process killed when its parent process ends.

    Until the processes are connected, it would not notice otherwise, and would wait for half an hour.
    """
    _choose_signal(signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `end_with_parent`: from now on, a broken connection shows that the others have ended."""
    _choose_signal(0)


def _choose_signal(number: int) -> None:
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
