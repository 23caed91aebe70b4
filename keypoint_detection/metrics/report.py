"""The result of an evaluation: numbers per channel and overall, flat for loggers and nested for files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.confidence import Calibration
from keypoint_detection.metrics.bootstrap import expand_level, percentile_interval, resample_groups, resample_images
from keypoint_detection.metrics.calibration import (
    ConfidenceReport,
    ReliabilityCurve,
    expected_calibration_error,
    fit_calibration,
    measure_confidence,
)
from keypoint_detection.metrics.catalogue import DEFINITIONS, METRICS, ChannelReport, Metric
from keypoint_detection.metrics.evaluation import ChannelValues, Measurements
from keypoint_detection.metrics.objects import ObjectReport

# The level of the intervals: the share that should contain the truth.
# With fewer images, an interval rarely contains the error on others.
MIN_IMAGES = 10
FEW_IMAGES = f"Fewer than {MIN_IMAGES} images cannot tell how large the errors on others are."
INTERVAL_LEVEL = 0.95
# Accumulated weights that a bootstrap holds at a time: 4 MB in float32, about the size of a cache.
RESAMPLE_ELEMENTS = 1 << 20


class ImageErrors(NamedTuple):
    """The errors in one image.

    Attributes:
        image_id: its id in the COCO file.
        n_truths: its labelled points.
        n_missing: labelled points without a prediction.
        max_error_px: maximum error of the others; NaN if there are none.
        mean_error_px: mean error of the others; NaN if there are none.
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
        measurements: the measurements behind the numbers; None in a report read back from a checkpoint.
        n_unreadable: number of images that could not be read; they are left out of all numbers.
        objects: how well points are grouped into objects; None if they are not grouped.
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
    objects: ObjectReport | None = None

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
    def caveat(self) -> str | None:
        """What to say of a result on few images, whose intervals too often miss the errors on others."""
        return None if self.n_images >= MIN_IMAGES else FEW_IMAGES

    @property
    def channels_without_truth(self) -> tuple[str, ...]:
        """Channels without a single ground truth: their AP is NaN and left out of the mean."""
        return tuple(channel.name for channel in self.channels if channel.n_truths == 0)

    def list_thresholds(self, kind: Literal["", "d", "r"]) -> tuple[float, ...]:
        """List the thresholds of a kind of metric; for a metric with a single number, one placeholder."""
        return {"": (math.nan,), "d": self.thresholds_px, "r": self.relative_thresholds}[kind]

    def as_scalars(self) -> dict[str, float]:
        """Flatten the numbers under stable names, for loggers and checkpoints to monitor.

        An undefined number is NaN but present: a monitored name must not disappear because nothing was found in the
        first epoch. Losses are included if they were given, `OKS-AP` if requested, `ECE` and `coverage` if there is a
        calibration.
        """
        scalars = {"mAP": self.overall.mean_average_precision}
        for threshold, value in zip(self.thresholds_px, self.strict_success, strict=True):
            scalars[f"strict_success/d={threshold:g}"] = value
        scalars |= self.oks_ap
        if self.objects is not None:
            scalars |= self.objects.as_scalars(self.thresholds_px)
        if self.confidence is not None:
            for curve in self.confidence.curves:
                scalars[f"ECE/d={curve.threshold_px:g}"] = expected_calibration_error(curve)
            scalars["coverage"] = self.confidence.coverage
        for row in (self.overall, *self.channels):
            scalars |= self._name_numbers(row)
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
        state["objects"] = None if self.objects is None else self.objects._asdict()
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "EvaluationReport":
        """Restore a report, without its measurements, from what `as_state` returned."""
        state = {"confidence": None, "objects": None, **state}  # older versions lacked them
        channels = tuple(ChannelReport(**channel) for channel in state["channels"])
        objects = None if state["objects"] is None else ObjectReport(**state["objects"])
        return cls(**{**state, "channels": channels, "overall": ChannelReport(**state["overall"]), "objects": objects})

    def fit_calibration(self) -> Calibration | None:
        """Fit a calibration of scores and peaks; None if too few detections are right."""
        return fit_calibration(self._measurements())

    def with_calibration(self, calibration: Calibration) -> "EvaluationReport":
        """Add how well a calibration fitted on other images holds here."""
        return self._replace(confidence=measure_confidence(self._measurements(), calibration))

    def with_intervals(self, n_resamples: int, seed: int, groups: Tensor | None = None) -> "EvaluationReport":
        """Add bootstrap intervals by resampling images; processes do not wait for each other.

        Every number is recomputed in each resample, including the score threshold. OKS-AP has no interval. With few
        images, the intervals are wider; see `expand_level`.

        Args:
            n_resamples: number of resamples; more give more stable ends and take proportionally longer.
            seed: the same seed gives the same intervals.
            groups: (I,) the group of each image, such as its video; whole groups are drawn instead of images.

        Returns:
            The same report with `bounds`.
        """
        groups = torch.arange(self.n_images) if groups is None else groups
        parts = self._compute_parts(resample_groups(groups, n_resamples, torch.Generator().manual_seed(seed)))
        level = expand_level(INTERVAL_LEVEL, len(torch.unique(groups)))
        overall = _take_interval([part.overall for part in parts], level)
        channels = [
            _take_interval([part.channels[index] for part in parts], level) for index in range(len(self.channels))
        ]
        strict_success = percentile_interval(torch.cat([part.strict_success for part in parts]), level)
        objects = None if parts[0].objects is None else _take_interval([part.objects or {} for part in parts], level)
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
                objects=None if objects is None else ObjectReport.of_resample(objects[end]),
            )
            for end in (0, 1)
        )
        return self._replace(bounds=(low, high))

    def overall_in_resamples(self, multiplicities: Tensor) -> ChannelValues:
        """Compute the numbers of all channels together, given how often each image counts, (I, R)."""
        return _join([part.overall for part in self._compute_parts(multiplicities)])

    def share_surpassing(self, other: "EvaluationReport", metric: Metric, n_resamples: int, seed: int) -> float:
        """Compute in which share of the resamples of the images a number is better than in another report.

        Args:
            other: a report on the same images.
            metric: a metric of all channels together that is better if it is higher or lower.
            n_resamples: number of resamples.
            seed: the same seed gives the same share.
        """
        resamples = resample_images(self.n_images, n_resamples, torch.Generator().manual_seed(seed))
        own, others = (one.overall_in_resamples(resamples)[metric.field] for one in (self, other))
        return float((own > others if metric.better == "max" else own < others).double().mean())

    def _compute_parts(self, multiplicities: Tensor) -> "list[_Values]":
        """Compute all numbers for a few resamples at a time, so that sums over detections stay in the cache."""
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

    def _name_numbers(self, row: ChannelReport) -> dict[str, float]:
        """Name the numbers of one channel, or of all together; those at the same threshold are adjacent."""
        channel = "" if row is self.overall else row.name
        logged = [metric for metric in METRICS if metric.name and (metric.field != "loss" or self.has_losses)]
        return {
            metric.name_number(channel, threshold): metric.read(row, index)
            for kind in ("d", "r", "")
            for index, threshold in enumerate(self.list_thresholds(kind))
            for metric in logged
            if metric.thresholds == kind
        }


def build_report(measurements: Measurements, names: Sequence[str], oks_ap: dict[str, float]) -> EvaluationReport:
    """Compute every number of a report, without intervals.

    Args:
        measurements: matches and errors on a data set with at least one image.
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
        objects=None if values.objects is None else ObjectReport.of_resample(values.objects),
    )


class _Values(NamedTuple):
    """The numbers in each of R resamples."""

    channels: list[ChannelValues]
    overall: ChannelValues
    strict_success: Tensor  # (R, T)
    objects: dict[str, Tensor] | None


def _compute(measurements: Measurements, multiplicities: Tensor) -> _Values:
    channels = measurements.channel_values(multiplicities)
    overall = measurements.overall_values(multiplicities, channels)
    objects = None if measurements.objects is None else measurements.objects.values(multiplicities)
    return _Values(channels, overall, measurements.strict_success(multiplicities), objects)


def _join(parts: list[ChannelValues]) -> ChannelValues:
    """Concatenate the numbers of different resamples."""
    return {field: torch.cat([part[field] for part in parts]) for field in parts[0]}


def _take_interval(parts: list[ChannelValues], level: float) -> tuple[ChannelValues, ChannelValues]:
    """Return the lower and the upper ends, each field with a leading axis of one."""
    ends = {field: percentile_interval(values, level) for field, values in _join(parts).items()}
    return {field: low[None] for field, (low, _) in ends.items()}, {
        field: high[None] for field, (_, high) in ends.items()
    }


def _channel_report(name: str, n_truths: int, n_detections: int, values: ChannelValues) -> ChannelReport:
    """Select the numbers of the first resample."""
    plain = {field: value[0].tolist() for field, value in values.items()}
    numbers: dict[str, Any] = {field: tuple(one) if isinstance(one, list) else one for field, one in plain.items()}
    return ChannelReport(name=name, n_truths=n_truths, n_detections=n_detections, **numbers)


def _replace_values(channel: ChannelReport, values: ChannelValues) -> ChannelReport:
    return _channel_report(channel.name, channel.n_truths, channel.n_detections, values)


def severity(n_missing: int, max_error_px: float) -> tuple[int, float]:
    """Return a sorting key that is highest for the worst image: missing predictions, then maximum error (NaN: none)."""
    return n_missing, -1.0 if math.isnan(max_error_px) else max_error_px


def _badness(image: ImageErrors) -> tuple[int, float, int, int]:
    return *severity(image.n_missing, image.max_error_px), image.n_false_positives, -image.image_id


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
