"""From flat lists of points to matches and errors, and from those to every number of a report.

The points of all images are matched once. Everything after that depends on the images only through their
multiplicities: the same functions compute the numbers themselves (every image once) and all resamples of a bootstrap.
"""

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from keypoint_detection.metrics.average_precision import average_precision, best_f1, mean_average_precision, trace_curve
from keypoint_detection.metrics.localisation import (
    correct_share,
    error_statistics,
    normalised_mean_error,
    reference_lengths,
    strict_success,
)
from keypoint_detection.metrics.matching import assign_truths, pair_nearest
from keypoint_detection.metrics.objects import FoundObjects, ObjectMatches, match_objects

# Distances held at a time while matching: 8 MB in float64, about the size of a cache.
CHUNK_ELEMENTS = 1 << 20


class DetectionList(NamedTuple):
    """Detections of all images, ordered by image, then channel, then descending score.

    Attributes:
        image: (M,) int64, index of the image.
        channel: (M,) int64.
        points_image: (M, 2) float64, image pixels.
        scores: (M,) above 0.
        covariances_input: (M, 2, 2) float64, covariances of the peaks, square input pixels; NaN where unknown.
        to_image: (M, 2, 2) float64, the linear part of the map from input pixels to image pixels.
    """

    image: Tensor
    channel: Tensor
    points_image: Tensor
    scores: Tensor
    covariances_input: Tensor
    to_image: Tensor


class TruthList(NamedTuple):
    """Ground truths of all images, ordered by image, then channel.

    Attributes:
        image: (M,) int64, index of the image.
        channel: (M,) int64.
        instance: (M,) int64, the index of the annotation in its image.
        points_image: (M, 2) float64, image pixels.
        box_sizes: (M,) longer side of the annotation's box in image pixels; NaN if it has none.
        areas: (M,) area of the annotation in square image pixels; NaN if it has none.
    """

    image: Tensor
    channel: Tensor
    instance: Tensor
    points_image: Tensor
    box_sizes: Tensor
    areas: Tensor


# The numbers of one channel, or of all together, in each of R resamples: by their field in `ChannelReport`, (R,) or, of
# a metric with a number for each of T thresholds, (R, T); NaN where undefined.
ChannelValues: TypeAlias = dict[str, Tensor]


class Measurements:
    """What a report is computed from: every match and every error, by image.

    Deliberately not a NamedTuple or dataclass: torchmetrics walks through those in the result of a metric and squeezes
    tensors of one element.

    Args:
        image_ids: (I,) int64.
        detections: all detections.
        is_true_positive: (T, M) bool, by distance threshold.
        offsets_px: (M, 2) float64 from each detection to the nearest ground truth of its channel and image; NaN if
            there is none.
        truths: all ground truths.
        errors_px: error of each ground truth, inf where its prediction is missing.
        lengths_px: reference length of each ground truth.
        losses: (I, C) loss of each image and channel, or None.
        thresholds_px: (T,) distance thresholds.
        relative_thresholds: thresholds as fractions of the reference length.
        n_channels: channels (C).
        found_objects: the objects of the detections; None if they are not grouped.
        objects: how well they are grouped; None likewise.

    Attributes:
        rows: the states of the metric that all this was computed from, by name; empty if there was none. Those of
            several evaluations can be pooled.
        n_unreadable: images that could not be read, about which nothing is known.
    """

    rows: dict[str, Tensor]
    n_unreadable: int

    def __init__(
        self,
        image_ids: Tensor,
        detections: DetectionList,
        is_true_positive: Tensor,
        offsets_px: Tensor,
        truths: TruthList,
        errors_px: Tensor,
        lengths_px: Tensor,
        losses: Tensor | None,
        thresholds_px: Tensor,
        relative_thresholds: Tensor,
        n_channels: int,
        found_objects: FoundObjects | None = None,
        objects: ObjectMatches | None = None,
    ) -> None:
        self.image_ids = image_ids
        self.detections = detections
        self.is_true_positive = is_true_positive
        self.offsets_px = offsets_px
        self.truths = truths
        self.errors_px = errors_px
        self.lengths_px = lengths_px
        self.losses = losses
        self.thresholds_px = thresholds_px
        self.relative_thresholds = relative_thresholds
        self.n_channels = n_channels
        self.found_objects = found_objects
        self.objects = objects
        self.rows = {}
        self.n_unreadable = 0

    def every_image_once(self) -> Tensor:
        """Return the multiplicities (I, 1) of the data set itself."""
        return torch.ones(len(self.image_ids), 1, dtype=torch.float64)

    def channel_values(self, multiplicities: Tensor) -> list[ChannelValues]:
        """Compute the numbers of each channel, given how often each image counts, (I, R)."""
        return [
            self._values(
                self.detections.channel == channel,
                self.truths.channel == channel,
                multiplicities,
                None if self.losses is None else self.losses[:, channel],
            )
            for channel in range(self.n_channels)
        ]

    def overall_values(self, multiplicities: Tensor, channels: list[ChannelValues]) -> ChannelValues:
        """Compute the numbers of all channels together.

        AP is the mean over the channels that have ground truth. Everything else is pooled: all detections under one
        score threshold, all ground truths alike, the loss as the mean over images and channels.

        Args:
            multiplicities: (I, R) how often each image counts.
            channels: the numbers of the channels for the same multiplicities.
        """
        every_detection = torch.ones_like(self.detections.channel, dtype=torch.bool)
        every_truth = torch.ones_like(self.truths.channel, dtype=torch.bool)
        losses = None if self.losses is None else self.losses.mean(dim=1)
        by_channel = torch.stack([values["average_precision"] for values in channels], dim=1)  # (R, C, T)
        return self._values(every_detection, every_truth, multiplicities, losses) | {
            "average_precision": by_channel.nanmean(dim=1),
            "mean_average_precision": mean_average_precision(by_channel),
        }

    def strict_success(self, multiplicities: Tensor) -> Tensor:
        """Compute the share of images in which no point is wrong, (R, T)."""
        n_images = len(self.image_ids)
        return strict_success(self.errors_px, self.truths.image, n_images, self.thresholds_px, multiplicities)

    def _values(
        self,
        has_detection: Tensor,
        has_truth: Tensor,
        multiplicities: Tensor,
        losses: Tensor | None,
    ) -> ChannelValues:
        """Compute the numbers over a selection of the detections and ground truths."""
        scores, is_right = self.detections.scores[has_detection], self.is_true_positive[:, has_detection]
        detection_weights = multiplicities[self.detections.image[has_detection]]
        truth_weights = multiplicities[self.truths.image[has_truth]]
        n_truths = truth_weights.sum(0)
        errors, lengths = self.errors_px[has_truth], self.lengths_px[has_truth]
        curve = trace_curve(scores, is_right, detection_weights)
        point = best_f1(curve, n_truths)
        statistics = error_statistics(errors, truth_weights)
        precisions = average_precision(curve, n_truths)
        return {
            "average_precision": precisions,
            "mean_average_precision": precisions.mean(dim=1),
            "score_threshold": point.score,
            "precision": point.precision,
            "recall": point.recall,
            "f1": point.f1,
            "error_px_mean": statistics.mean,
            "error_px_median": statistics.median,
            "error_px_p95": statistics.p95,
            "detection_rate": statistics.detection_rate,
            "pck": correct_share(errors, self.thresholds_px, None, truth_weights),
            "relative_pck": correct_share(errors, self.relative_thresholds, lengths, truth_weights),
            "nme": normalised_mean_error(errors, lengths, truth_weights),
            "loss": torch.full_like(n_truths, math.nan)
            if losses is None
            else losses @ multiplicities.double() / multiplicities.sum(0),
        }


def measure(
    image_ids: Tensor,
    image_sizes: Tensor,
    detections: DetectionList,
    truths: TruthList,
    losses: Tensor | None,
    thresholds_px: tuple[float, ...],
    relative_thresholds: tuple[float, ...],
    n_channels: int,
    found_objects: FoundObjects | None = None,
) -> Measurements:
    """Match the detections of all images at all thresholds, and pair each ground truth with its prediction.

    Args:
        image_ids: (I,) int64, each once.
        image_sizes: (I, 2) height and width in pixels.
        detections: all detections.
        truths: all ground truths.
        losses: (I, C) loss of each image and channel, or None.
        thresholds_px: distance thresholds in image pixels.
        relative_thresholds: thresholds as fractions of the reference length.
        n_channels: channels (C).
        found_objects: the objects of the detections; None if they are not grouped.

    Returns:
        The measurements, on the CPU.
    """
    limits = torch.tensor(thresholds_px, dtype=torch.float64)
    matches = _match_rows(detections, truths, len(image_ids) * n_channels, n_channels, limits)
    return Measurements(
        image_ids=image_ids,
        detections=detections,
        is_true_positive=matches.assigned >= 0,
        offsets_px=matches.offsets_px,
        truths=truths,
        errors_px=matches.errors_px,
        lengths_px=reference_lengths(truths.box_sizes, image_sizes[truths.image]),
        losses=losses,
        thresholds_px=limits,
        relative_thresholds=torch.tensor(relative_thresholds, dtype=torch.float64),
        n_channels=n_channels,
        found_objects=found_objects,
        objects=None
        if found_objects is None
        else match_objects(
            detections.image,
            detections.scores,
            found_objects,
            truths.image,
            truths.instance,
            matches.assigned,
            len(image_ids),
        ),
    )


class _Matches(NamedTuple):
    """Matches of the detections, and errors; see `Measurements`.

    Attributes:
        assigned: (T, M) int64, the ground truth of each detection at each distance threshold; -1 for none.
        offsets_px: (M, 2).
        errors_px: (N,).
    """

    assigned: Tensor
    offsets_px: Tensor
    errors_px: Tensor


def _match_rows(
    detections: DetectionList, truths: TruthList, n_rows: int, n_channels: int, thresholds_px: Tensor
) -> _Matches:
    """Match row by row, a row being one channel of one image, in chunks of rows of similar size.

    Rows without ground truths or without detections need no work, and a crowded image does not widen the others.
    """
    n_detections = torch.bincount(detections.image * n_channels + detections.channel, minlength=n_rows)
    n_truths = torch.bincount(truths.image * n_channels + truths.channel, minlength=n_rows)
    first_detection, first_truth = n_detections.cumsum(0) - n_detections, n_truths.cumsum(0) - n_truths
    assigned = torch.full((len(thresholds_px), len(detections.scores)), -1)
    offsets = torch.full_like(detections.points_image, math.nan)
    errors = torch.full((len(truths.image),), math.inf, dtype=torch.float64)
    rows = ((n_detections > 0) & (n_truths > 0)).nonzero()[:, 0]
    most_detections = int(n_detections[rows].max()) if len(rows) > 0 else 0
    rows = rows[n_truths[rows].argsort(stable=True)]
    while len(rows) > 0:
        # As many rows as fit, none with more than twice the ground truths of the first, so that small ones are grouped.
        limit = max(2 * int(n_truths[rows[0]]), 8)
        chunk = rows[n_truths[rows] <= limit]
        G = int(n_truths[chunk].max())
        chunk = chunk[: max(1, CHUNK_ELEMENTS // (G * max(G, most_detections)))]
        rows = rows[len(chunk) :]
        detection_index, is_detection = _padded_index(first_detection[chunk], n_detections[chunk])
        truth_index, is_truth = _padded_index(first_truth[chunk], n_truths[chunk])
        points, scores = detections.points_image[detection_index], detections.scores[detection_index] * is_detection
        truth_points = truths.points_image[truth_index]
        slots = assign_truths(points, scores, truth_points, is_truth, thresholds_px)
        found = torch.where(slots >= 0, first_truth[chunk][:, None] + slots, -1)
        assigned[:, detection_index[is_detection]] = found[:, is_detection]
        nearest = _find_nearest(points, truth_points, is_truth)
        offsets[detection_index[is_detection]] = (nearest - points)[is_detection]
        errors[truth_index[is_truth]] = pair_nearest(points, scores, truth_points, is_truth)[is_truth]
    return _Matches(assigned, offsets, errors)


def _find_nearest(points: Tensor, truths: Tensor, is_truth: Tensor) -> Tensor:
    """Find the ground truth (N, G, 2) nearest to each detection (N, D, 2) of its row: (N, D, 2)."""
    distances = torch.cdist(points, truths).masked_fill(~is_truth[:, None], math.inf)
    return truths.gather(1, distances.argmin(2)[..., None].expand(-1, -1, 2))


def _padded_index(first: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Index the entries of each row: (N, most) positions and which of them are real; padding repeats the first."""
    offset = torch.arange(int(counts.max()))
    is_real = offset < counts[:, None]
    return first[:, None] + offset * is_real, is_real
