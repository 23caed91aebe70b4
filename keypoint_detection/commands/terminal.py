"""What commands that read many images show on the terminal: how far they are, and which images they could not read."""

import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar

from keypoint_detection.counting import count_in_words

__all__ = ["leave_with_unreadable", "track"]

T = TypeVar("T")

UNREADABLE = 1


def track(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """Show how many of the items have been taken, if there is a terminal.

    Args:
        items: what is iterated over.
        description: what is done with them, e.g. `Reading images`.
        total: their number.
    """
    if not sys.stderr.isatty():
        return items
    from rich import progress
    from rich.console import Console

    return progress.track(items, description, total=total, console=Console(stderr=True), transient=True)


def leave_with_unreadable(command: str, failures: Sequence[str]) -> NoReturn:
    """List the images that could not be read, one a line, and let the exit code say so.

    Raises:
        SystemExit: always (1).
    """
    images = count_in_words(len(failures), "image")
    listed = "\n".join(f"  {failure}" for failure in failures)
    sys.stderr.write(f"{command}: {images} could not be read:\n{listed}\n")
    raise SystemExit(UNREADABLE)
