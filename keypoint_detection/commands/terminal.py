"""What commands that read many images show on the terminal: their progress, and which images they could not read."""

import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar

from keypoint_detection.printing import complain

T = TypeVar("T")

UNREADABLE = 1


def track(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """Show how many of the items have been processed, if there is a terminal.

    Args:
        items: the items to iterate over.
        description: what is done with them, e.g. `Reading images`.
        total: their number.
    """
    if not sys.stderr.isatty():
        return items
    from rich import progress
    from rich.console import Console

    return progress.track(items, description, total=total, console=Console(stderr=True), transient=True)


def leave_with_unreadable(command: str, counted: str, failures: Sequence[str]) -> NoReturn:
    """List what could not be read, one per line, and set the exit code accordingly.

    Args:
        command: what was running, e.g. `kpd predict`.
        counted: how much could not be read, e.g. `2 images`.
        failures: what, and why.

    Raises:
        SystemExit: always (1).
    """
    listed = "\n".join(f"  {failure}" for failure in failures)
    complain(f"{command}: {counted} could not be read:\n{listed}\n")
    raise SystemExit(UNREADABLE)
