"""The torchmetrics class that collects detections and ground truths over batches and processes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from keypoint_detection.counting import count_in_words
from keypoint_detection.geometry import apply_affine
from keypoint_detection.metrics.evaluation import DetectionList, Measurements, TruthList, measure
from keypoint_detection.metrics.matching import check_thresholds
from keypoint_detection.metrics.objects import FoundObjects, rows_of_objects
from keypoint_detection.metrics.oks import evaluate_oks, resolve_sigmas
from keypoint_detection.metrics.report import EvaluationReport, build_report
from keypoint_detection.types import NOT_LABELLED, Batch, DataError, Detections

# The state that only evaluations of grouped points have.
OBJECT_STATE = "object_rows"


class KeypointMetrics(Metric):
    """Measure detections against ground truth, with the same result on one process and on many.

    Every image is counted once, however often a distributed sampler repeats it, and the images are sorted by id before
    anything is added up: the numbers depend neither on the order nor on the number of processes. `compute` returns
    plain numbers plus what they were computed from, so that a single process can ask the report for intervals and worst
    images.

    Args:
        channels: names of the channels, in the order of the heatmaps.
        thresholds_px: distance thresholds for AP, PCK and strict success, in pixels of the original image; ascending.
        relative_thresholds: thresholds for PCK as fractions of the longer side of the box (of the image's diagonal if
            there is no box), ascending. May be empty.
        oks_sigmas: one OKS sigma per channel, or "coco17" for those of the COCO person keypoints, to compute OKS-AP
            too; None leaves it out.
        group: measure how points are grouped into objects, too; detections must then have their grouping.

    Raises:
        ValueError: there is no channel, a name is repeated, thresholds are not positive, finite and ascending, or
            sigmas do not fit the channels.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    image_rows: list[Tensor]
    affine_rows: list[Tensor]
    truth_rows: list[Tensor]
    truth_values: list[Tensor]
    detection_rows: list[Tensor]
    detection_values: list[Tensor]
    loss_rows: list[Tensor]
    object_rows: list[Tensor]

    def __init__(
        self,
        channels: Sequence[str],
        thresholds_px: Sequence[float],
        relative_thresholds: Sequence[float] = (0.05, 0.1, 0.2),
        oks_sigmas: Sequence[float] | str | None = None,
        group: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.group = tuple(channels), group
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"channels: expected at least one name and none twice, found {list(channels)}; name each heatmap once."
            )
        self.thresholds_px = check_thresholds("thresholds_px", thresholds_px)
        if not self.thresholds_px:
            raise ValueError(
                "thresholds_px: expected at least one distance in pixels, found none; give some: [2, 4, 8]."
            )
        self.relative_thresholds = check_thresholds("relative_thresholds", relative_thresholds)
        self.oks_sigmas = None if oks_sigmas is None else resolve_sigmas(oks_sigmas, self.channels)
        for name in self._empty_states():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, detections: Detections, batch: Batch, losses: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            detections: points in input pixels, (B, C, D, 2), and scores (B, C, D); also the covariances of their peaks
                if expected errors are to be calibrated or checked.
            batch: the images' ground truth, also in input pixels, their ids, and the maps to pixels of the original
                images, which are applied once, in `compute`. Points of visibility 0 are not ground truth.
            losses: (B, C) loss of each image and channel; given always or never.

        Raises:
            ValueError: the shapes do not fit each other or the channels.
        """
        self._check_shapes(detections, batch, losses)
        is_truth = batch.visibility != NOT_LABELLED
        is_detection = detections.scores > 0
        self._add_unreadable(batch, losses)
        self.image_rows.append(
            torch.cat(
                [
                    batch.image_ids[:, None],
                    batch.image_sizes,
                    is_truth.flatten(1).sum(1, keepdim=True),
                    is_detection.flatten(1).sum(1, keepdim=True),
                ],
                dim=1,
            ).long()
        )
        # All points stay in input pixels and keep their map: it is applied later in float64, so that the result does
        # not depend on the size of the batch.
        self.affine_rows.append(batch.input_to_image.detach().float().flatten(1))
        places = is_truth.nonzero(as_tuple=True)  # image, channel, slot: (M,) each; ordered
        truths = batch.truths.map(lambda values: values[places])
        self.truth_rows.append(torch.stack([places[1], truths.instances], dim=1))
        values = [truths.points, truths.box_sizes[:, None], truths.areas[:, None]]
        self.truth_values.append(torch.cat(values, dim=1).float())
        self.detection_rows.append(is_detection.nonzero()[:, 1:2])
        kept = [
            detections.points[is_detection],
            detections.scores[is_detection, None],
            _peaks(detections, is_detection),
        ]
        self.detection_values.append(torch.cat(kept, dim=1).detach().float())
        if self.group:
            self.object_rows.append(rows_of_objects(detections, is_detection))
        self.loss_rows.append(self._empty_states()["loss_rows"] if losses is None else losses.detach().float())

    def _add_unreadable(self, batch: Batch, losses: Tensor | None) -> None:
        """Count the images that could not be read: as images without height, about which nothing else is known."""
        if not batch.failures:
            return
        rows = [[image_id, 0, 0, 0, 0] for image_id, _ in batch.failures]
        self.image_rows.append(torch.tensor(rows, device=batch.image_ids.device))
        self.affine_rows.append(self._empty_states()["affine_rows"].new_zeros(len(rows), 6))
        if losses is not None:
            self.loss_rows.append(self._empty_states()["loss_rows"].new_zeros(len(rows), len(self.channels)))

    def names(self, with_losses: bool) -> set[str]:
        """List the names that a report's numbers will have in `as_scalars`.

        Args:
            with_losses: losses will be given.
        """
        # An image in which nothing is labelled or found.
        rows = self._empty_states() | {
            "image_rows": torch.tensor([[0, 1, 1, 0, 0]]),
            "affine_rows": torch.eye(2, 3).view(1, 6),
            "loss_rows": torch.zeros(int(with_losses), len(self.channels)),
        }
        return set(self.pool([rows]).as_scalars())

    def compute(self) -> EvaluationReport:
        """Evaluate all images added so far, in all processes.

        Returns:
            The report, without intervals; the same in every process.

        Raises:
            ValueError: no image was added, only some of the images have losses, or OKS is requested but the data do
                not define it.
        """
        return self._evaluate()

    def pool(self, evaluations: Sequence[Mapping[str, Tensor]]) -> EvaluationReport:
        """Evaluate the inputs of several evaluations as if they were one; what was added here is not included.

        Args:
            evaluations: the `measurements.rows` of each report; their channels must be those of this metric.

        Raises:
            ValueError: as `compute`.
        """
        metric = KeypointMetrics(
            self.channels, self.thresholds_px, self.relative_thresholds, self.oks_sigmas, self.group
        )
        for name, empty in metric._empty_states().items():
            states: list[Tensor] = getattr(metric, name)
            states += [rows[name].to(empty) for rows in evaluations]
        return metric._evaluate()

    def _evaluate(self) -> EvaluationReport:
        measurements = self._measure()
        oks_ap = {} if self.oks_sigmas is None else evaluate_oks(measurements, self.oks_sigmas)
        return build_report(measurements, self.channels, oks_ap)

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., bool] | None = None,
    ) -> None:
        """Gather the states of all processes; torchmetrics calls this before `compute`."""
        # A process that saw no batch must still take part with the right number of columns, or the others hang.
        for name, empty in self._empty_states().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                getattr(self, name).append(empty)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _empty_states(self) -> dict[str, Tensor]:
        """Return the empty states, which define what their rows hold."""
        widths = {
            "image_rows": (5, torch.int64),  # id, height, width, number of ground truths, number of detections
            "affine_rows": (6, torch.float32),  # input to image, row by row
            "truth_rows": (2, torch.int64),  # channel, instance
            "truth_values": (4, torch.float32),  # x, y in input pixels, size of the box, area
            "detection_rows": (1, torch.int64),  # channel
            "detection_values": (6, torch.float32),  # x, y in input pixels, score, covariance of the peak: xx, xy, yy
            "loss_rows": (len(self.channels), torch.float32),  # one loss per channel; no rows without losses
        }
        if self.group:
            # Of each detection, its object, that object's score, the vote and its length in input pixels, the margin.
            widths |= {OBJECT_STATE: (6, torch.float32)}
        return {name: torch.zeros(0, n, dtype=dtype, device=self.device) for name, (n, dtype) in widths.items()}

    def _check_shapes(self, detections: Detections, batch: Batch, losses: Tensor | None) -> None:
        B, C = len(batch.image_ids), len(self.channels)
        if batch.visibility.shape[:2] != (B, C) or batch.points.shape != (*batch.visibility.shape, 2):
            raise ValueError(
                f"expected ground truth points ({B}, {C}, K, 2) and visibility ({B}, {C}, K) for {B} images and {C} "
                f"channels, found {tuple(batch.points.shape)} and {tuple(batch.visibility.shape)}; "
                "give model and data the same channels."
            )
        if detections.scores.shape[:2] != (B, C) or detections.points.shape != (*detections.scores.shape, 2):
            raise ValueError(
                f"expected detections ({B}, {C}, D, 2) with scores ({B}, {C}, D) for {B} images and {C} channels, "
                f"found {tuple(detections.points.shape)} and {tuple(detections.scores.shape)}; "
                "give each batch of images together with its own predictions."
            )
        if losses is not None and losses.shape != (B, C):
            raise ValueError(
                f"expected losses ({B}, {C}), one per image and channel, found {tuple(losses.shape)}; "
                "reduce the loss over the pixels only."
            )

    def _measure(self) -> Measurements:
        """Bring the rows together, drop repeated images, order by image id, and match."""
        states = _States(*(self._joined(name, empty).cpu() for name, empty in self._empty_states().items()))
        images = states.image_rows
        if len(images) == 0:
            raise ValueError(
                "no images to evaluate: the metric was given none. Check that the split of the data set is not empty."
            )
        if len(states.loss_rows) not in (0, len(images)):
            raise ValueError(
                f"expected losses for all of {len(images)} images or for none, found {len(states.loss_rows)}; "
                "pass them to every update."
            )
        # Stable: of a repeated image, the first copy is kept, of those that were read.
        is_unread = images[:, 1] == 0
        order = is_unread.int().argsort(stable=True)
        order = order[images[order, 0].argsort(stable=True)]
        ids = images[order, 0]
        is_first = torch.ones_like(ids, dtype=torch.bool)
        is_first[1:] = ids[1:] != ids[:-1]
        kept = order[is_first]
        n_unreadable = int(is_unread[kept].sum())
        if n_unreadable == len(kept):
            n_images = count_in_words(len(kept), "image")
            raise DataError(f"there is nothing to measure: of {n_images}, none could be read.")
        measurements = self._match(states, kept[~is_unread[kept]])
        measurements.n_unreadable = n_unreadable
        measurements.rows = {name: getattr(states, name) for name in self._empty_states()}
        return measurements

    def _joined(self, name: str, empty: Tensor) -> Tensor:
        """Return a state as one tensor: it is a list before it is gathered and a tensor afterwards."""
        state = getattr(self, name)
        return dim_zero_cat([empty, *state]) if isinstance(state, list) else state

    def _match(self, states: "_States", kept: Tensor) -> Measurements:
        """Match the points of the kept images, (I,) rows of `image_rows` in their final order."""
        images = states.image_rows
        truth, truth_image = _rows_of(images[:, 3], kept)
        detection, detection_image = _rows_of(images[:, 4], kept)
        affine = states.affine_rows[kept].double().view(-1, 2, 3)
        truth_values, detection_values = states.truth_values[truth], states.detection_values[detection]
        # Measuring happens in pixels of the images: until here, everything is in input pixels.
        truth_points = apply_affine(truth_values[:, None, :2].double(), affine[truth_image])[:, 0]
        detection_points = apply_affine(detection_values[:, None, :2].double(), affine[detection_image])[:, 0]
        found_objects = None
        if states.object_rows is not None:
            rows = states.object_rows[detection]
            found_objects = FoundObjects(rows[:, 0].long(), rows[:, 1], rows[:, 2:4], rows[:, 4], rows[:, 5])
        return measure(
            image_ids=images[kept, 0],
            image_sizes=images[kept, 1:3],
            detections=DetectionList(
                image=detection_image,
                channel=states.detection_rows[detection, 0],
                points_image=detection_points,
                scores=detection_values[:, 2],
                covariances_input=detection_values[:, [3, 4, 4, 5]].double().view(-1, 2, 2),
                to_image=affine[detection_image, :, :2],
            ),
            truths=TruthList(
                image=truth_image,
                channel=states.truth_rows[truth, 0],
                instance=states.truth_rows[truth, 1],
                points_image=truth_points,
                box_sizes=truth_values[:, 2].double(),
                areas=truth_values[:, 3].double(),
            ),
            losses=states.loss_rows[kept].double() if len(states.loss_rows) else None,
            thresholds_px=self.thresholds_px,
            relative_thresholds=self.relative_thresholds,
            n_channels=len(self.channels),
            found_objects=found_objects,
        )


class _States(NamedTuple):
    """The states of all processes, one tensor each, in the order of `_empty_states`."""

    image_rows: Tensor
    affine_rows: Tensor
    truth_rows: Tensor
    truth_values: Tensor
    detection_rows: Tensor
    detection_values: Tensor
    loss_rows: Tensor
    object_rows: Tensor | None = None


def _peaks(detections: Detections, is_detection: Tensor) -> Tensor:
    """Return the covariances of the detected peaks, (M, 3): xx, xy, yy; NaN if they were not measured."""
    if detections.covariances is None:
        return detections.scores.new_full((int(is_detection.sum()), 3), math.nan)
    return detections.covariances[is_detection].flatten(1)[:, [0, 1, 3]]


def _rows_of(counts: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Find the rows of the kept images in a state that has `counts` rows per image.

    Args:
        counts: (images,) rows of each image, in the order in which they were added.
        kept: (I,) the images to take, in the order wanted.

    Returns:
        Positions of the rows (M,) and which of the I images each belongs to (M,).
    """
    first = counts.cumsum(0) - counts
    owner = torch.arange(len(kept)).repeat_interleave(counts[kept])
    new_first = counts[kept].cumsum(0) - counts[kept]
    return torch.arange(len(owner)) - new_first[owner] + first[kept][owner], owner
