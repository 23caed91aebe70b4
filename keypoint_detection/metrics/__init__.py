"""Keypoint metrics: pure functions on tensors, and the torchmetrics class that calls them."""

from keypoint_detection.metrics.average_precision import (
    OperatingPoint,
    PrecisionRecallCurve,
    average_precision,
    best_f1,
    mean_average_precision,
    trace_curve,
)
from keypoint_detection.metrics.bootstrap import percentile_interval, resample_images
from keypoint_detection.metrics.catalogue import ChannelReport
from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.metrics.localisation import (
    ErrorStatistics,
    correct_share,
    error_statistics,
    normalised_mean_error,
    reference_lengths,
    strict_success,
)
from keypoint_detection.metrics.matching import match_detections, pair_nearest
from keypoint_detection.metrics.oks import (
    COCO17_SIGMAS,
    OksPredictions,
    OksTruths,
    oks_average_precision,
    resolve_sigmas,
)
from keypoint_detection.metrics.report import EvaluationReport, ImageErrors

__all__ = [
    "COCO17_SIGMAS",
    "ChannelReport",
    "ErrorStatistics",
    "EvaluationReport",
    "ImageErrors",
    "KeypointMetrics",
    "OksPredictions",
    "OksTruths",
    "OperatingPoint",
    "PrecisionRecallCurve",
    "average_precision",
    "best_f1",
    "correct_share",
    "error_statistics",
    "match_detections",
    "mean_average_precision",
    "normalised_mean_error",
    "oks_average_precision",
    "pair_nearest",
    "percentile_interval",
    "reference_lengths",
    "resample_images",
    "resolve_sigmas",
    "strict_success",
    "trace_curve",
]
