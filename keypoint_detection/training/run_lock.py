"""Allow only one training process at a time in a run folder."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from lightning.fabric.utilities.exceptions import MisconfigurationException

logger = logging.getLogger(__name__)

LOCK_FILE = "running.lock"
# How often a process shows that it is alive, and how long one on another machine can be silent before it counts as
# dead.
SIGN_OF_LIFE_S = 60
DEAD_AFTER_S = 900
# The system's errors for a held lock; anything else means that the file system has no locks.
HELD = (errno.EACCES, errno.EAGAIN)


class RunLock:
    """A lock on a run folder that its process holds until it ends, however that happens.

    The system releases the lock of a process that was killed. A process on another machine that cannot be checked,
    because its machine or the network went down, or the file system has no locks, counts as dead if it has shown no
    sign of life for a while.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._file: IO[str] | None = None
        self._shown_at = 0.0

    def take(self) -> None:
        """Take the lock.

        Raises:
            MisconfigurationException: another process trains in this folder.
        """
        if self._file is not None:
            return
        # POSIX locks: processes that read images do not inherit them. Closing any handle to the file releases the lock.
        file = self._path.open("a+", encoding="utf-8")
        state = _lock(file)
        file.seek(0)
        holder = _parse(file.read())
        if state != "taken" and (reason := self._explain_life(holder, is_locked=state == "held")):
            file.close()
            raise MisconfigurationException(
                f"{self._path.parent} is in use: {reason}. Two runs would overwrite each other's files. Wait for it to "
                f"end, or stop it; if it is no longer running, delete {self._path}."
            )
        if state == "held":
            logger.warning("%s gave no sign of life for %d minutes: taking over.", holder, DEAD_AFTER_S // 60)
            file.close()
            self._path.unlink(missing_ok=True)
            file = self._path.open("a+", encoding="utf-8")
            _lock(file)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        file.flush()
        self._file = file

    def show_life(self) -> None:
        """Show from time to time that the process is alive."""
        if self._file is not None and time.monotonic() - self._shown_at >= SIGN_OF_LIFE_S:
            self._shown_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._file.fileno())

    def release(self) -> None:
        """Release the lock and remove its file."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    self._path.unlink()
            with contextlib.suppress(OSError):
                file.close()

    def _explain_life(self, holder: tuple[str, int] | None, is_locked: bool) -> str:
        """Describe the process that is training here; empty if it must be dead."""
        if holder is None:
            return "another process has just started training in it" if is_locked else ""
        host, pid = holder
        name = f"process {pid} on {host} is training in it"
        if host == socket.gethostname():
            return name if is_locked or _is_running(pid) else ""
        age_s = time.time() - self._path.stat().st_mtime
        return f"{name}, or did {max(0, round(age_s))} s ago" if age_s < DEAD_AFTER_S else ""


def _lock(file: IO[str]) -> str:
    """Try to lock a file: `taken`, `held` by another process, or `unknown` if its file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "held" if error.errno in HELD else "unknown"
    return "taken"


def _parse(text: str) -> tuple[str, int] | None:
    try:
        content = json.loads(text)
        return str(content["host"]), int(content["pid"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
