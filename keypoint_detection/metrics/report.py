"""The result of an evaluation: numbers per channel and overall, flat for loggers and nested for files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.confidence import Calibration
from keypoint_detection.metrics.bootstrap import percentile_interval, resample_groups
from keypoint_detection.metrics.calibration import (
    ConfidenceReport,
    ReliabilityCurve,
    expected_calibration_error,
    fit_calibration,
    measure_confidence,
)
from keypoint_detection.metrics.evaluation import ChannelValues, Measurements

# The share of the resamples inside an interval.
INTERVAL_LEVEL = 0.95
# Accumulated weights held at a time by a bootstrap: 4 MB in float32, about the size of a cache.
RESAMPLE_ELEMENTS = 1 << 20

# What the names in metrics.json mean; included in the file so that it explains itself.
DEFINITIONS = {
    "n_unreadable": "Images that could not be read (data.on_bad_image: skip): no number includes them.",
    "frame": "All distances are in pixels of the original images.",
    "AP": "Area under the precision-recall curve, precision interpolated at every recall (PASCAL VOC 2010 and later). "
    "In order of score each detection takes the nearest free ground truth within d pixels. Channels without ground "
    "truth are left out of the mean; false positives on images without points count.",
    "mAP": "Mean of AP over the channels with ground truth and over the distance thresholds.",
    "score_threshold": "The score with the best F1 at the largest distance threshold (the highest of equals); "
    "precision, recall and F1 are measured there. Overall: one threshold for all channels.",
    "error_px": "Distance of each ground truth to its prediction: the n best detections of a channel with n ground "
    "truths in an image, paired nearest first at any distance. Missing predictions are left out: see detection_rate.",
    "detection_rate": "Share of the ground truths with a prediction, at any distance.",
    "PCK": "Share of the ground truths with an error within d pixels, or within r times the longer side of the box "
    "(the diagonal of the image where there is no box); a missing prediction counts as wrong.",
    "NME": "Mean of error over the longer side of the box (the diagonal where there is no box); missing predictions "
    "are left out.",
    "strict_success": "Share of the images in which every labelled point has an error within d pixels; a missing "
    "prediction counts as wrong, images without labelled points are left out.",
    "OKS-AP": "COCO keypoint AP (pycocotools), areas of any size, mean over OKS 0.50:0.05:0.95.",
    "ECE": "Expected calibration error of the probability of being right within d pixels: the gap between claimed and "
    "true share in ten bins of the claim, averaged over all detections.",
    "coverage": "Share of the detections right at the largest distance threshold whose error lies within one standard "
    "deviation: in the ellipse of their covariance that contains 68.3 % of a normal distribution.",
    "reliability": "Behind ECE, for each bin: mean claimed probability, share that is right, number of detections.",
    "loss": "Mean over images and channels.",
    "intervals": "Percentile bootstrap over images, 95 %.",
}


class ChannelReport(NamedTuple):
    """The numbers of one channel, or of all together; NaN where undefined.

    Attributes:
        name: the channel, or "all".
        n_truths: ground truths.
        n_detections: detections.
        average_precision: AP at each distance threshold.
        mean_average_precision: mean of these.
        score_threshold: the score with the best F1 at the largest distance threshold; the highest of equals.
        precision: precision at that score.
        recall: recall at that score.
        f1: F1 at that score.
        error_px_mean: mean error in image pixels, missing predictions left out.
        error_px_median: median error, likewise.
        error_px_p95: 95th percentile of the errors, likewise.
        detection_rate: share of the ground truths with a prediction.
        pck: PCK at each distance threshold.
        relative_pck: PCK at each relative threshold.
        nme: mean error over reference length, missing predictions left out.
        loss: mean loss; NaN when no losses were given.
    """

    name: str
    n_truths: int
    n_detections: int
    average_precision: tuple[float, ...]
    mean_average_precision: float
    score_threshold: float
    precision: float
    recall: float
    f1: float
    error_px_mean: float
    error_px_median: float
    error_px_p95: float
    detection_rate: float
    pck: tuple[float, ...]
    relative_pck: tuple[float, ...]
    nme: float
    loss: float


class ImageErrors(NamedTuple):
    """The errors in one image.

    Attributes:
        image_id: its id in the COCO file.
        n_truths: its labelled points.
        n_missing: labelled points without a prediction.
        max_error_px: maximum error of the others; NaN if there is none.
        mean_error_px: mean error of the others; NaN if there is none.
        n_false_positives: detections at or above the overall score threshold that match nothing at the largest
            distance threshold.
    """

    image_id: int
    n_truths: int
    n_missing: int
    max_error_px: float
    mean_error_px: float
    n_false_positives: int


class EvaluationReport(NamedTuple):
    """Everything measured on a data set.

    Attributes:
        n_images: images, each counted once.
        thresholds_px: distance thresholds in image pixels.
        relative_thresholds: fractions of the reference length.
        channels: the numbers of each channel.
        overall: the numbers of all channels together: AP is the mean over channels with ground truth, the rest pooled.
        strict_success: share of images with every point right, at each distance threshold.
        has_losses: whether losses were given.
        oks_ap: OKS-AP by name ("OKS-AP", "OKS-AP50", ...); empty if not requested.
        bounds: the same report with the lower and the upper ends of the 95 % intervals as its numbers; None before
            `with_intervals`.
        confidence: how well a calibration fitted on other images holds here; None before `with_calibration`.
        measurements: what the numbers were computed from; None in a report read back from a checkpoint.
        n_unreadable: images that could not be read: no number includes them.
    """

    n_images: int
    thresholds_px: tuple[float, ...]
    relative_thresholds: tuple[float, ...]
    channels: tuple[ChannelReport, ...]
    overall: ChannelReport
    strict_success: tuple[float, ...]
    has_losses: bool
    oks_ap: dict[str, float]
    bounds: "tuple[EvaluationReport, EvaluationReport] | None"
    confidence: ConfidenceReport | None
    measurements: Measurements | None
    n_unreadable: int = 0

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each number, by its name in `as_scalars`; empty before `with_intervals`."""
        if self.bounds is None:
            return {}
        low, high = (bound.as_scalars() for bound in self.bounds)
        return {name: (low[name], high[name]) for name in low}

    @property
    def reliability_curves(self) -> tuple[ReliabilityCurve, ...]:
        """Claimed and true probabilities, one curve per distance threshold; empty before `with_calibration`."""
        return () if self.confidence is None else self.confidence.curves

    @property
    def channels_without_truth(self) -> tuple[str, ...]:
        """Channels without a single ground truth: their AP is NaN and left out of the mean."""
        return tuple(channel.name for channel in self.channels if channel.n_truths == 0)

    def as_scalars(self) -> dict[str, float]:
        """Flatten the numbers under stable names, for loggers and checkpoints to monitor.

        An undefined number is NaN but present: a monitored name must not vanish because the first epoch found nothing.
        Losses are included if they were given, `OKS-AP` if requested, `ECE` and `coverage` if there is a calibration.
        """
        scalars = {"mAP": self.overall.mean_average_precision}
        for threshold, value in zip(self.thresholds_px, self.strict_success, strict=True):
            scalars[f"strict_success/d={threshold:g}"] = value
        scalars |= self.oks_ap
        if self.confidence is not None:
            for curve in self.confidence.curves:
                scalars[f"ECE/d={curve.threshold_px:g}"] = expected_calibration_error(curve)
            scalars["coverage"] = self.confidence.coverage
        for channel in (self.overall, *self.channels):
            scalars |= self._flatten(channel, "" if channel is self.overall else f"/{channel.name}")
        return scalars

    def as_dict(self) -> dict[str, object]:
        """Nest everything for a JSON file: NaN becomes None, and the definitions are included."""
        return {
            "n_images": self.n_images,
            "n_unreadable": self.n_unreadable,
            "thresholds_px": list(self.thresholds_px),
            "relative_thresholds": list(self.relative_thresholds),
            "channels_without_truth": list(self.channels_without_truth),
            "n_truths": {channel.name: channel.n_truths for channel in self.channels},
            "n_detections": {channel.name: channel.n_detections for channel in self.channels},
            "metrics": {name: _or_none(value) for name, value in self.as_scalars().items()},
            "intervals": {name: [_or_none(low), _or_none(high)] for name, (low, high) in self.intervals.items()},
            "reliability": [curve._asdict() for curve in self.reliability_curves],
            "definitions": dict(DEFINITIONS),
        }

    def as_state(self) -> dict[str, Any]:
        """Return the numbers as plain values, which a checkpoint can hold; `from_state` reads them back."""
        state = self._asdict() | {"bounds": None, "confidence": None, "measurements": None}
        state["channels"] = [channel._asdict() for channel in self.channels]
        state["overall"] = self.overall._asdict()
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "EvaluationReport":
        """Restore a report, without its measurements, from what `as_state` returned."""
        state = {"confidence": None, **state}  # states from versions without calibration lack it
        channels = tuple(ChannelReport(**channel) for channel in state["channels"])
        return cls(**{**state, "channels": channels, "overall": ChannelReport(**state["overall"])})

    def fit_calibration(self) -> Calibration | None:
        """Learn what scores and peaks are worth; None if too few detections are right."""
        return fit_calibration(self._measurements())

    def with_calibration(self, calibration: Calibration) -> "EvaluationReport":
        """Add how well a calibration fitted on other images holds here."""
        return self._replace(confidence=measure_confidence(self._measurements(), calibration))

    def with_intervals(self, n_resamples: int, seed: int, groups: Tensor | None = None) -> "EvaluationReport":
        """Add bootstrap intervals by resampling images; no process waits for another.

        Every number is recomputed in each resample, including the score threshold. OKS-AP has no interval.

        Args:
            n_resamples: number of resamples; more give more stable ends and take proportionally longer.
            seed: the same seed gives the same intervals.
            groups: (I,) the group of each image, such as its video; whole groups are drawn instead of images.

        Returns:
            The same report with `bounds`.
        """
        groups = torch.arange(self.n_images) if groups is None else groups
        parts = self._compute_parts(resample_groups(groups, n_resamples, torch.Generator().manual_seed(seed)))
        overall = _take_interval([part.overall for part in parts])
        channels = [_take_interval([part.channels[index] for part in parts]) for index in range(len(self.channels))]
        strict_success = percentile_interval(torch.cat([part.strict_success for part in parts]), INTERVAL_LEVEL)
        low, high = (
            self._replace(
                overall=_replace_values(self.overall, overall[end]),
                channels=tuple(
                    _replace_values(channel, values[end])
                    for channel, values in zip(self.channels, channels, strict=True)
                ),
                strict_success=tuple(strict_success[end].tolist()),
                oks_ap={},
                confidence=None,
            )
            for end in (0, 1)
        )
        return self._replace(bounds=(low, high))

    def overall_in_resamples(self, multiplicities: Tensor) -> ChannelValues:
        """Compute the numbers of all channels together, given how often each image counts, (I, R)."""
        parts = [part.overall for part in self._compute_parts(multiplicities)]
        return ChannelValues(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def _compute_parts(self, multiplicities: Tensor) -> "list[_Values]":
        """Compute every number for a few resamples at a time, so that sums over detections stay in the cache."""
        measurements = self._measurements()
        chunk = max(16, RESAMPLE_ELEMENTS // max(1, len(measurements.detections.scores)))
        starts = range(0, multiplicities.shape[1], chunk)
        return [_compute(measurements, multiplicities[:, start : start + chunk]) for start in starts]

    def per_image_errors(self) -> list[ImageErrors]:
        """List every image, the worst first.

        Images are ordered by missing predictions, then by maximum error, then by false positives.
        """
        measurements = self._measurements()
        truths, detections = measurements.truths, measurements.detections
        errors, n_images = measurements.errors_px, self.n_images
        is_found = errors.isfinite()
        n_truths = torch.bincount(truths.image, minlength=n_images)
        n_found = torch.bincount(truths.image[is_found], minlength=n_images)
        total = torch.bincount(truths.image[is_found], errors[is_found], minlength=n_images)
        largest = torch.full((n_images,), -math.inf, dtype=torch.float64)
        largest = largest.scatter_reduce(0, truths.image[is_found], errors[is_found], "amax")
        # Comparing with a NaN score threshold is False: without detections there is no false positive.
        is_false = (detections.scores >= self.overall.score_threshold) & ~measurements.is_true_positive[-1]
        n_false = torch.bincount(detections.image[is_false], minlength=n_images)
        largest = largest.masked_fill(n_found == 0, math.nan)
        columns = (measurements.image_ids, n_truths, n_truths - n_found, largest, total / n_found, n_false)
        rows = [ImageErrors(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        return sorted(rows, key=_badness, reverse=True)

    def _measurements(self) -> Measurements:
        assert self.measurements is not None, "a report read back from a checkpoint has no measurements"
        return self.measurements

    def _flatten(self, channel: ChannelReport, suffix: str) -> dict[str, float]:
        """Name the numbers of one channel; the suffix goes between the metric and its threshold or statistic."""
        scalars = {}
        for threshold, precision, pck in zip(self.thresholds_px, channel.average_precision, channel.pck, strict=True):
            scalars[f"AP{suffix}/d={threshold:g}"] = precision
            scalars[f"PCK{suffix}/d={threshold:g}"] = pck
        for fraction, pck in zip(self.relative_thresholds, channel.relative_pck, strict=True):
            scalars[f"PCK{suffix}/r={fraction:g}"] = pck
        if suffix:
            scalars[f"AP{suffix}/mean"] = channel.mean_average_precision
        scalars |= {
            f"error_px{suffix}/mean": channel.error_px_mean,
            f"error_px{suffix}/median": channel.error_px_median,
            f"error_px{suffix}/p95": channel.error_px_p95,
            f"NME{suffix}": channel.nme,
            f"detection_rate{suffix}": channel.detection_rate,
            f"precision{suffix}": channel.precision,
            f"recall{suffix}": channel.recall,
            f"F1{suffix}": channel.f1,
            f"score_threshold{suffix}": channel.score_threshold,
        }
        if self.has_losses:
            scalars[f"loss{suffix}"] = channel.loss
        return scalars


def build_report(measurements: Measurements, names: Sequence[str], oks_ap: dict[str, float]) -> EvaluationReport:
    """Compute every number of a report, without intervals.

    Args:
        measurements: matches and errors of a data set with at least one image.
        names: the channels' names.
        oks_ap: OKS-AP by name, or nothing.
    """
    values = _compute(measurements, measurements.every_image_once())
    n_truths = torch.bincount(measurements.truths.channel, minlength=len(names)).tolist()
    n_detections = torch.bincount(measurements.detections.channel, minlength=len(names)).tolist()
    return EvaluationReport(
        n_images=len(measurements.image_ids),
        thresholds_px=tuple(measurements.thresholds_px.tolist()),
        relative_thresholds=tuple(measurements.relative_thresholds.tolist()),
        channels=tuple(
            _channel_report(name, truths, detections, channel)
            for name, truths, detections, channel in zip(names, n_truths, n_detections, values.channels, strict=True)
        ),
        overall=_channel_report("all", sum(n_truths), sum(n_detections), values.overall),
        strict_success=tuple(values.strict_success[0].tolist()),
        has_losses=measurements.losses is not None,
        oks_ap=oks_ap,
        bounds=None,
        confidence=None,
        measurements=measurements,
        n_unreadable=measurements.n_unreadable,
    )


class _Values(NamedTuple):
    """The numbers in each of R resamples."""

    channels: list[ChannelValues]
    overall: ChannelValues
    strict_success: Tensor  # (R, T)


def _compute(measurements: Measurements, multiplicities: Tensor) -> _Values:
    channels = measurements.channel_values(multiplicities)
    overall = measurements.overall_values(multiplicities, channels)
    return _Values(channels, overall, measurements.strict_success(multiplicities))


def _take_interval(parts: list[ChannelValues]) -> tuple[ChannelValues, ChannelValues]:
    """Return the lower and the upper ends, each field with a leading axis of one."""
    ends = [percentile_interval(torch.cat(fields), INTERVAL_LEVEL) for fields in zip(*parts, strict=True)]
    return ChannelValues(*(low[None] for low, _ in ends)), ChannelValues(*(high[None] for _, high in ends))


def _channel_report(name: str, n_truths: int, n_detections: int, values: ChannelValues) -> ChannelReport:
    """Take the numbers of the first resample; both classes use the same names."""
    plain = {field: value[0].tolist() for field, value in values._asdict().items()}
    numbers: dict[str, Any] = {field: tuple(one) if isinstance(one, list) else one for field, one in plain.items()}
    return ChannelReport(name=name, n_truths=n_truths, n_detections=n_detections, **numbers)


def _replace_values(channel: ChannelReport, values: ChannelValues) -> ChannelReport:
    return _channel_report(channel.name, channel.n_truths, channel.n_detections, values)


def severity(n_missing: int, max_error_px: float) -> tuple[int, float]:
    """Rank an image by its errors, the worst highest: by missing predictions, then by maximum error (NaN: none)."""
    return n_missing, -1.0 if math.isnan(max_error_px) else max_error_px


def _badness(image: ImageErrors) -> tuple[int, float, int, int]:
    return *severity(image.n_missing, image.max_error_px), image.n_false_positives, -image.image_id


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
