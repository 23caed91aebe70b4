"""Every number of a report, declared once: its field, its names, its format, and which direction is better."""

from typing import Literal, NamedTuple, TypeAlias

Better: TypeAlias = Literal["max", "min"] | None


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
    # A new field needs the default NaN, which reports stored in older checkpoints then get.


class Metric(NamedTuple):
    """A number of each channel and of all together, or one per threshold.

    Attributes:
        field: its field in `ChannelReport`.
        name: its name in logs and files, with `{}` in place of a slash and the channel; empty if it is only displayed.
        better: whether higher (`max`) or lower (`min`) is better; None if neither.
        heading: its name in tables.
        style: its number format in tables.
        long_heading: its name where there is room; empty if it is the same.
        thresholds: `d` if there is a number for each distance threshold, `r` if for each relative threshold; or empty.
        overall_name: the name of the number for all channels, if different.
    """

    field: str
    name: str
    better: Better
    heading: str
    style: str = "{:.3f}"
    long_heading: str = ""
    thresholds: Literal["", "d", "r"] = ""
    overall_name: str = ""

    @property
    def label(self) -> str:
        """Its name on an axis and in sentences."""
        return self.long_heading or self.heading

    def read(self, row: ChannelReport, index: int) -> float:
        """Read its number, or the number at the threshold with the given index."""
        number: float = getattr(row, self.field)[index] if self.thresholds else getattr(row, self.field)
        return number

    def name_number(self, channel: str, threshold: float) -> str:
        """Name one of its numbers; without a channel, the number for all channels together.

        >>> METRICS[2].name_number("nose", 4.0)
        'AP/nose/d=4'
        """
        if self.overall_name and not channel:
            return self.overall_name
        name = self.name.format(f"/{channel}" if channel else "")
        return f"{name}/{self.thresholds}={threshold:g}" if self.thresholds else name

    def head_column(self, threshold: float) -> str:
        """Write the heading of one of its columns."""
        unit = " px" if self.thresholds == "d" else ""
        return f"{self.heading} {threshold:g}{unit}" if self.thresholds else self.heading


# In the order of the log; metrics that are not logged have no interval.
METRICS = (
    Metric("n_truths", "", None, "points", "{:d}"),
    Metric("n_detections", "", None, "detections", "{:d}"),
    Metric("average_precision", "AP{}", "max", "AP", thresholds="d"),
    Metric("pck", "PCK{}", "max", "PCK", thresholds="d"),
    Metric("relative_pck", "PCK{}", "max", "PCK", thresholds="r"),
    Metric("mean_average_precision", "AP{}/mean", "max", "mAP", overall_name="mAP"),
    Metric("error_px_mean", "error_px{}/mean", "min", "mean error", "{:.2f}", "mean error (px)"),
    Metric("error_px_median", "error_px{}/median", "min", "median error", "{:.2f}", "median error (px)"),
    Metric("error_px_p95", "error_px{}/p95", "min", "95th percentile", "{:.2f}", "95th percentile of the errors (px)"),
    Metric("nme", "NME{}", "min", "NME"),
    Metric("detection_rate", "detection_rate{}", "max", "found"),
    Metric("precision", "precision{}", "max", "precision"),
    Metric("recall", "recall{}", "max", "recall"),
    Metric("f1", "F1{}", "max", "F1"),
    Metric("score_threshold", "score_threshold{}", None, "score threshold"),
    Metric("loss", "loss{}", "min", "loss"),
)

# The columns of the tables, from left to right: how good a detector is, and a closer look.
COLUMNS = ("n_truths", "average_precision", "error_px_median", "error_px_mean", "detection_rate")
FURTHER_COLUMNS = (
    "n_detections",
    "pck",
    "relative_pck",
    "error_px_p95",
    "score_threshold",
    "precision",
    "recall",
    "f1",
)

# Metrics of all channels together that have a single number, by its name.
OVERALL_METRICS = {metric.name_number("", 0): metric for metric in METRICS if metric.name and not metric.thresholds}

# Prefixes of metric names, and which direction is better. Channels have only those of `METRICS`.
DIRECTIONS: dict[str, Better] = {
    "strict_success": "max",
    "OKS-": "max",
    "grouping_accuracy": "max",
    "object_AP": "max",
    "ECE": "min",
    "coverage": None,
} | {metric.name_number("", 0).partition("/")[0]: metric.better for metric in METRICS if metric.name}

# Explanations of the names in metrics.json, included so that the file explains itself. Some explain several metrics.
DEFINITIONS = {
    "n_unreadable": "Images that could not be read (data.on_bad_image: skip); they are left out of all numbers.",
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
    "grouping_accuracy": "Of the detections that are right at the largest distance threshold, the share in the object "
    "that is matched with their true object. Objects are matched one to one, those that share most right points first.",
    "object_AP": "AP of objects, by descending score: an object is right if it has at least half, or all, of the "
    "labelled points of a true object that is still free, each within d pixels.",
    "ECE": "Expected calibration error of the probability of being right within d pixels: the gap between the claimed "
    "and the true share in ten bins of the claim, averaged over all detections.",
    "coverage": "Share of the detections right at the largest distance threshold whose error lies within one standard "
    "deviation: in the ellipse of their covariance that contains 68.3 % of a normal distribution.",
    "reliability": "Data behind ECE, per bin: mean claimed probability, share that is right, number of detections.",
    "loss": "Mean over images and channels.",
    "intervals": "Percentile bootstrap over images, or groups of them, 95 %, expanded if there are few (Hesterberg "
    "2015). With fewer than about 40 images, those of the mean error are too narrow: a few large errors decide it.",
}


def find_better(name: str) -> Better:
    """Return whether higher or lower is better for a number in the log, such as `AP/nose/d=4`; None: neither."""
    return next((better for start, better in DIRECTIONS.items() if name.startswith(start)), None)
