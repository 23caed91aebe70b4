"""The processes of one training, before torch connects them: which one this is, and what becomes of orphans."""

import os
import signal
import sys

# Set by torchrun; by Lightning, which starts the other processes of a machine itself; and by SLURM's srun.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
# In Linux's sys/prctl.h: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def find_rank() -> int:
    """Return the number of this process among those of its training; 0 is the one that logs and writes."""
    values = (os.environ.get(name, "") for name in RANK_VARIABLES)
    return next((int(value) for value in values if value.isdecimal()), 0)


def end_with_parent() -> None:
    """On Linux, have this process killed when the one that started it ends.

    Until the processes have found each other, nothing else would tell it: it would wait for half an hour.
    """
    _choose_signal(signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `end_with_parent`: from here on, a connection that breaks tells of the end of the others."""
    _choose_signal(0)


def _choose_signal(number: int) -> None:
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
