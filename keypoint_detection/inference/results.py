"""The points that a detector found in one image."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray


class Point(NamedTuple):
    """A point in an image.

    Attributes:
        channel: the name of the channel that it belongs to.
        x: pixels of the image, to the right.
        y: pixels of the image, downwards.
        score: the value of the heatmap at the peak, in [0, 1].
        probability: probability of being within the largest AP threshold of a true point; None without a calibration.
            For the other thresholds, see `Result.probabilities`.
        covariance: ((xx, xy), (xy, yy)) of the error in square pixels of the image, given that the point is right; None
            without a calibration.
    """

    channel: str
    x: float
    y: float
    score: float
    probability: float | None
    covariance: tuple[tuple[float, float], tuple[float, float]] | None

    @property
    def spread(self) -> float | None:
        """The standard deviation of the error along an axis, in pixels; see `spread_of`."""
        return None if self.covariance is None else float(spread_of(np.array(self.covariance)))


class _ByChannel(dict[str, NDArray[np.float32]]):
    """Arrays by the name of their channel."""

    def __missing__(self, channel: str) -> NoReturn:
        raise KeyError(f"there is no channel {channel!r}, but {', '.join(map(repr, self)) or 'none'}")


class Result:
    """The points of one image: iterate over them, or use them as arrays.

    Attributes:
        xy: channel name to its points, (D, 2) float32 pixels of the image, by descending score; (0, 2) if none.
        scores: channel name to the scores of its points, (D,) float32.
        thresholds_px: the distances for which there are probabilities, ascending; empty without a calibration.
        probabilities: channel name to the probabilities that its points are right within each of those distances,
            (D, T) float32; empty without a calibration.
        covariances: channel name to the covariances of the errors of its points, (D, 2, 2) float32 in square pixels of
            the image; empty without a calibration.
        heatmaps: (C, h, w) float32 in [0, 1], of the network's input; None unless requested.
    """

    def __init__(
        self,
        xy: Mapping[str, NDArray[np.float32]],
        scores: Mapping[str, NDArray[np.float32]],
        thresholds_px: tuple[float, ...],
        probabilities: Mapping[str, NDArray[np.float32]],
        covariances: Mapping[str, NDArray[np.float32]],
        heatmaps: NDArray[np.float32] | None,
    ) -> None:
        self.xy = _ByChannel(xy)
        self.scores = _ByChannel(scores)
        self.thresholds_px = thresholds_px
        self.probabilities = _ByChannel(probabilities)
        self.covariances = _ByChannel(covariances)
        self.heatmaps = heatmaps

    def __iter__(self) -> Iterator[Point]:
        """Iterate over the points, channel by channel, by descending score."""
        for channel, points in self.xy.items():
            nothing = [None] * len(points)
            probabilities = self.probabilities[channel][:, -1].tolist() if self.probabilities else nothing
            covariances = self.covariances[channel].tolist() if self.covariances else nothing
            rows = zip(points.tolist(), self.scores[channel].tolist(), probabilities, covariances, strict=True)
            for (x, y), score, probability, covariance in rows:
                matrix = None if covariance is None else (tuple(covariance[0]), tuple(covariance[1]))
                yield Point(channel, x, y, score, probability, matrix)

    def __getitem__(self, index: int) -> Point:
        """Return one of the points, in the order of iteration."""
        return list(self)[index]

    def __len__(self) -> int:
        """Count the points of all channels."""
        return sum(map(len, self.xy.values()))

    def __repr__(self) -> str:
        """Show the number of points of each channel."""
        return f"Result({', '.join(f'{channel}: {len(points)}' for channel, points in self.xy.items())})"


def spread_of(covariances: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the standard deviations along an axis (...) of covariances (..., 2, 2): the root of the mean variance."""
    spreads: NDArray[np.floating[Any]] = np.sqrt(np.trace(covariances, axis1=-2, axis2=-1) / 2)
    return spreads
