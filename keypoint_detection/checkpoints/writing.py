"""Write checkpoints so that a readable one always remains."""

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import IO, Any

import torch

# The suffix of a checkpoint that is being written, and a pattern for the whole name.
PARTIAL_SUFFIX = ".kpd-partial"
PARTIAL_NAME = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)}")


class CheckpointWriteError(RuntimeError):
    """A checkpoint cannot be written."""


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, completely or not at all.

    An existing file is replaced only when the new one is whole and on the disk, whatever happens to the process, the
    machine or the disk in between.

    Args:
        content: what `read_checkpoint` returned, possibly changed, or what Lightning saves.
        path: the file to write; an existing one is replaced.

    Raises:
        CheckpointWriteError: it cannot be written, e.g. because the disk is full.
    """
    # In the same folder: a file can replace another in one step only within a file system.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with partial.open("xb") as file:
            _lock(file)
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _find_cause(error)
        if cause is None:
            raise
        raise CheckpointWriteError(f"{path} cannot be written: {cause.strerror or cause}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove partial files left in a folder by processes that were killed while writing a checkpoint."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        # If a file cannot be locked, it is still being written.
        with contextlib.suppress(OSError):
            if PARTIAL_NAME.fullmatch(path.name):
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _lock(file: IO[bytes]) -> None:
    """Mark a file as being written, until it is closed; not every file system can."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Make the new name of a file survive a power cut; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _find_cause(error: BaseException | None) -> OSError | None:
    """Find the system error behind a torch error, which only says that something went wrong."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
