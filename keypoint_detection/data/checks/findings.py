"""Findings: what a check has to say of a data set, as values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from keypoint_detection.data.problems import Problems

__all__ = ["Finding", "Level", "findings_of_problems", "shorten_list"]

# What makes a training impossible or worthless; what a person should look at; what is good to know.
Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found in one file, or between several.

    Attributes:
        level: `error`, `warning` or `note`.
        kind: a fixed name for programs, e.g. `unreadable`.
        source: the file or files that it was found in.
        count: how many there are.
        summary: what it is and the way out, in a sentence or two.
        examples: some of them, a line each.
    """

    level: Level
    kind: str
    source: str
    count: int
    summary: str
    examples: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Errors before warnings before notes."""
        return LEVELS.index(self.level)

    def as_dict(self, n_examples: int) -> dict[str, Any]:
        """Give the finding as what JSON can hold, with its first examples."""
        return {**asdict(self), "examples": list(self.examples[:n_examples])}


# What the problems are called that reading a COCO file and its images' headers can have.
SUMMARIES = {
    "category id": "categories have no id of their own",
    "category names": "categories have keypoints that are not a list of names",
    "category twice": "categories name a keypoint more than once",
    "category picked": "names in data.categories fit no category",
    "no keypoints": "no category has keypoints",
    "image id": "images have an id that is not an integer",
    "image id size": "images have an id of more than 64 bits",
    "image twice": "images share the id of another one",
    "image name": "images have no file name",
    "image file": "image files are missing",
    "category": "annotations are of an unknown category",
    "image": "annotations are of an unknown image",
    "no numbers": "annotations have keypoints that are not a list of numbers",
    "length": "annotations have another number of keypoints than their category",
    "visibility": "visibilities are not 0, 1 or 2",
    "not finite": "labelled points are not pixel coordinates",
    "unreadable": "images cannot be read as a whole: training would stop at the first",
    "rotated": "images are on their side compared with their labels: these are wrong labels",
    "size": "images have another size than their labels were made on: these are wrong labels",
}


def findings_of_problems(source: str, problems: Problems) -> list[Finding]:
    """Turn what reading refuses into errors, one a kind."""
    return [
        Finding("error", _slug(kind), source, len(messages), SUMMARIES.get(kind, kind) + ".", tuple(messages))
        for kind, messages in problems.by_kind.items()
    ]


def _slug(kind: str) -> str:
    return kind.replace(" ", "_")


def shorten_list(names: Sequence[str], n_shown: int) -> str:
    """List names, the first few of many.

    >>> shorten_list(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:n_shown])
    return f"{shown} and {len(names) - n_shown} more" if len(names) > n_shown else shown
