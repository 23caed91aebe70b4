"""The points that a detector found in one image."""

import functools
from collections.abc import Iterator, Mapping, Sequence
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
        object: the index in `Result.objects` of the object that it belongs to; None if it belongs to none, or if the
            detector does not group points.
        belonging: probability that it belongs to that object, if it is right; None without an object, or if no
            validation has measured it.
    """

    channel: str
    x: float
    y: float
    score: float
    probability: float | None
    covariance: tuple[tuple[float, float], tuple[float, float]] | None
    object: int | None = None
    belonging: float | None = None

    @property
    def spread(self) -> float | None:
        """The standard deviation of the error along an axis, in pixels; see `spread_of`."""
        return None if self.covariance is None else float(spread_of(np.array(self.covariance)))


class _ByChannel(dict[str, NDArray[Any]]):
    """Arrays by the name of their channel."""

    def __missing__(self, channel: str) -> NoReturn:
        raise KeyError(f"there is no channel {channel!r}, but {', '.join(map(repr, self)) or 'none'}")


class NotGroupedError(ValueError):
    """Objects are asked of a detector that does not group points."""


class FoundObject(NamedTuple):
    """One object in an image: the points that see the same centre.

    Attributes:
        score: sum of the scores of its points over the number of keypoint types; in [0, 1].
        xy: channel name to its points, (N, 2) float32 pixels of the image, by descending score; (0, 2) if none.
        scores: channel name to their scores, (N,).
        probabilities: channel name to their probabilities, (N, T); empty without a calibration. See `Result`.
        covariances: channel name to their covariances, (N, 2, 2); empty without a calibration.
        box: (left, top, width, height) of its points in pixels of the image.
        belonging: channel name to the probabilities that its points, if right, belong to it, (N,); empty if no
            validation has measured them.
    """

    score: float
    xy: dict[str, NDArray[np.float32]]
    scores: dict[str, NDArray[np.float32]]
    probabilities: dict[str, NDArray[np.float32]]
    covariances: dict[str, NDArray[np.float32]]
    box: tuple[float, float, float, float]
    belonging: dict[str, NDArray[np.float32]]


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
        object_of: channel name to the object of each point, (D,) int64 indices into `objects`; -1 for none. None if the
            detector does not group points.
        object_scores: the scores of the objects, descending; None likewise.
        belonging: channel name to the probabilities that its points, if right, belong to their object, (D,); empty if
            unknown.
    """

    def __init__(
        self,
        xy: Mapping[str, NDArray[np.float32]],
        scores: Mapping[str, NDArray[np.float32]],
        thresholds_px: tuple[float, ...],
        probabilities: Mapping[str, NDArray[np.float32]],
        covariances: Mapping[str, NDArray[np.float32]],
        heatmaps: NDArray[np.float32] | None,
        object_of: Mapping[str, NDArray[np.int64]] | None = None,
        object_scores: Sequence[float] | None = None,
        belonging: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.xy = _ByChannel(xy)
        self.scores = _ByChannel(scores)
        self.thresholds_px = thresholds_px
        self.probabilities = _ByChannel(probabilities)
        self.covariances = _ByChannel(covariances)
        self.heatmaps = heatmaps
        self.object_of = None if object_of is None else _ByChannel(object_of)
        self.object_scores = object_scores
        self.belonging = _ByChannel(belonging or {})

    @functools.cached_property
    def objects(self) -> list[FoundObject]:
        """The objects of the image, by descending score; points of no object are in none of them.

        Raises:
            NotGroupedError: the detector does not group points.
        """
        if self.object_of is None or self.object_scores is None:
            raise NotGroupedError(
                "this detector does not tell which points belong to one object: train it with --model.group=true on "
                "images of several objects, each of them an annotation of its own."
            )
        object_of = self.object_of

        def take(values: Mapping[str, NDArray[np.float32]], number: int) -> dict[str, NDArray[np.float32]]:
            return _ByChannel({name: rows[object_of[name] == number] for name, rows in values.items()})

        found = []
        for number, score in enumerate(self.object_scores):
            xy = take(self.xy, number)
            points = np.concatenate([*xy.values()])
            (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            scores, *confidence = (
                take(values, number) for values in (self.scores, self.probabilities, self.covariances)
            )
            box = (left, top, right - left, bottom - top)
            belonging = take(self.belonging, number)
            found.append(FoundObject(score, xy, scores, confidence[0], confidence[1], box, belonging))
        return found

    def __iter__(self) -> Iterator[Point]:
        """Iterate over the points, channel by channel, by descending score."""
        for channel, points in self.xy.items():
            nothing = [None] * len(points)
            probabilities = self.probabilities[channel][:, -1].tolist() if self.probabilities else nothing
            covariances = self.covariances[channel].tolist() if self.covariances else nothing
            numbers = nothing if self.object_of is None else self.object_of[channel].tolist()
            shares = self.belonging[channel].tolist() if self.belonging else nothing
            scores = self.scores[channel].tolist()
            rows = zip(points.tolist(), scores, probabilities, covariances, numbers, shares, strict=True)
            for (x, y), score, probability, covariance, number, share in rows:
                matrix = None if covariance is None else (tuple(covariance[0]), tuple(covariance[1]))
                of_object = (None, None) if number in (None, -1) else (number, share)
                yield Point(channel, x, y, score, probability, matrix, *of_object)

    def __getitem__(self, index: int) -> Point:
        """Return one of the points, in the order of iteration."""
        return list(self)[index]

    def __len__(self) -> int:
        """Count the points of all channels."""
        return sum(map(len, self.xy.values()))

    def __repr__(self) -> str:
        """Show the number of points of each channel."""
        return f"Result({', '.join(f'{channel}: {len(points)}' for channel, points in self.xy.items())})"


def number_objects(
    objects: NDArray[np.int64], scores: NDArray[np.float32], is_kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], list[float]]:
    """Number the objects that have kept points from 0, by descending score.

    Args:
        objects: (C, D) the object of each point, numbered by descending score; -1 for none.
        scores: (O,) the scores of all objects.
        is_kept: (C, D) which points are kept.

    Returns: (C, D) the new numbers, -1 for none and for points that are not kept; and the scores of these objects.
    """
    kept = np.unique(objects[is_kept & (objects >= 0)])
    places = np.full(len(scores) + 1, -1, dtype=np.int64)  # the last one is that of -1
    places[kept] = np.arange(len(kept))
    return np.where(is_kept, places[objects], -1), scores[kept].tolist()


def spread_of(covariances: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the standard deviations along an axis (...) of covariances (..., 2, 2): the root of the mean variance."""
    spreads: NDArray[np.floating[Any]] = np.sqrt(np.trace(covariances, axis1=-2, axis2=-1) / 2)
    return spreads
