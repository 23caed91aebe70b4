"""Collect the problems of a file by kind, and report them together."""

from dataclasses import dataclass, field
from pathlib import Path

from keypoint_detection.types import DataError

N_EXAMPLES = 3


@dataclass
class Problems:
    """Collects the problems of one file by kind, so that a thousand of the same kind take up one line."""

    by_kind: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, message: str) -> None:
        """Record a problem; problems of one kind are shown together."""
        self.by_kind.setdefault(kind, []).append(message)

    def raise_if_any(self, path: Path) -> None:
        """Raise a DataError that counts all problems and shows a few of each kind."""
        if not self.by_kind:
            return
        lines = []
        for messages in self.by_kind.values():
            lines += [f"  - {message}" for message in messages[:N_EXAMPLES]]
            if len(messages) > N_EXAMPLES:
                lines.append(f"    … and {len(messages) - N_EXAMPLES} more like these")
        n_problems = sum(map(len, self.by_kind.values()))
        raise DataError(f"{path}: {n_problems} problem{'s' if n_problems > 1 else ''}\n" + "\n".join(lines))
