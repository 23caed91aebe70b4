"""The points that a detector found in one image."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Point", "Result"]


class Point(NamedTuple):
    """A point in an image.

    Attributes:
        channel: the name of the channel that it belongs to.
        x: pixels of the image, to the right.
        y: pixels of the image, downwards.
        score: the value of the heatmap at the peak, in [0, 1].
    """

    channel: str
    x: float
    y: float
    score: float


class Result:
    """The points of one image: iterate over them, or take them as arrays.

    Attributes:
        xy: channel name to its points, (D, 2) float32 pixels of the image, by falling score; (0, 2) where none is.
        scores: channel name to the scores of its points, (D,) float32.
        heatmaps: (C, h, w) float32 in [0, 1], of the network's input; None unless they were asked for.
    """

    def __init__(
        self,
        xy: Mapping[str, NDArray[np.float32]],
        scores: Mapping[str, NDArray[np.float32]],
        heatmaps: NDArray[np.float32] | None,
    ) -> None:
        self.xy = dict(xy)
        self.scores = dict(scores)
        self.heatmaps = heatmaps

    def __iter__(self) -> Iterator[Point]:
        """Give the points, channel by channel, by falling score."""
        for channel, points in self.xy.items():
            for (x, y), score in zip(points.tolist(), self.scores[channel].tolist(), strict=True):
                yield Point(channel, x, y, score)

    def __len__(self) -> int:
        """Count the points of all channels."""
        return sum(map(len, self.xy.values()))

    def __repr__(self) -> str:
        """Name the number of points of each channel."""
        return f"Result({', '.join(f'{channel}: {len(points)}' for channel, points in self.xy.items())})"
