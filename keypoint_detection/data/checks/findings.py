"""Findings: what a check reports about a data set, as values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from keypoint_detection.counting import agree
from keypoint_detection.data.problems import Problems

# What makes training impossible or worthless; what deserves a look; what is for information.
Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of finding in one file, or across several.

    Attributes:
        level: `error`, `warning` or `note`.
        kind: a fixed name for programs, e.g. `unreadable`.
        source: the file or files in which it was found.
        count: their number.
        summary: the problem and the fix, in a sentence or two that begin with the count; `agree` picks their words.
        examples: some examples, one line each.
    """

    level: Level
    kind: str
    source: str
    count: int
    summary: str
    examples: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """The rank of the level: errors come before warnings, warnings before notes."""
        return LEVELS.index(self.level)

    @property
    def sentence(self) -> str:
        """The finding in running text: the file, the count, the summary and the first example."""
        example = f" E.g. {self.examples[0]}." if self.examples else ""
        return f"{self.source}: {self.count} {self.summary}{example}"

    def as_dict(self, n_examples: int) -> dict[str, Any]:
        """Return the finding as JSON values, with its first examples."""
        return {**asdict(self), "examples": list(self.examples[:n_examples])}


# Descriptions of the problems found while reading a COCO file and its images' headers: singular and plural.
SUMMARIES = {
    "category id": ("category has no unique id", "categories have no unique id"),
    "category names": (
        "category has keypoints that are not a list of names",
        "categories have keypoints that are not a list of names",
    ),
    "category twice": ("category names a keypoint more than once", "categories name a keypoint more than once"),
    "category picked": ("name in data.categories matches no category", "names in data.categories match no category"),
    "no keypoints": ("file has no category with keypoints", "files have no category with keypoints"),
    "image id": ("image has an id that is not an integer", "images have an id that is not an integer"),
    "image id size": ("image has an id of more than 64 bits", "images have an id of more than 64 bits"),
    "image twice": ("image shares the id of another one", "images share the id of another one"),
    "image name": ("image has no file name", "images have no file name"),
    "image outside": (
        "image is outside the folder of the data set",
        "images are outside the folder of the data set",
    ),
    "image file": ("image file is missing", "image files are missing"),
    "category": ("annotation has an unknown category", "annotations have an unknown category"),
    "image": ("annotation has an unknown image", "annotations have an unknown image"),
    "no numbers": (
        "annotation has keypoints that are not a list of numbers",
        "annotations have keypoints that are not a list of numbers",
    ),
    "length": (
        "annotation differs from its category in the number of keypoints",
        "annotations differ from their category in the number of keypoints",
    ),
    "visibility": ("visibility is not 0, 1 or 2", "visibilities are not 0, 1 or 2"),
    "not finite": ("labelled point is not a pixel coordinate", "labelled points are not pixel coordinates"),
    "unreadable": (
        "image cannot be read completely: training would stop there",
        "images cannot be read completely: training would stop at the first",
    ),
    "rotated": (
        "image is on its side compared with its labels: the labels are wrong",
        "images are on their side compared with their labels: the labels are wrong",
    ),
    "size": (
        "image differs in size from the one that was labelled: the labels are wrong",
        "images differ in size from those that were labelled: the labels are wrong",
    ),
}


def findings_of_problems(source: str, problems: Problems) -> list[Finding]:
    """Turn the problems that reading refuses into errors, one per kind."""
    return [
        Finding(
            "error", _slug(kind), source, len(messages), agree(len(messages), *SUMMARIES[kind]) + ".", tuple(messages)
        )
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
