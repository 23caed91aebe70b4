"""How well points are grouped into objects: from matched points to matched objects."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keypoint_detection.codec.votes import measure_to_centres
from keypoint_detection.metrics.average_precision import average_precision, trace_curve
from keypoint_detection.types import Detections

# The radii to choose from, in input pixels, and how much worse than the best one may be to count as equally good. Few
# images tell as much as many.
RADII_PX = tuple(4.0 * 2 ** (step / 2) for step in range(11))
EQUALLY_GOOD, MAX_IMAGES = 0.002, 100
# Fewer right points in images of several objects do not tell what margins say.
MIN_POINTS = 20
# Newton's method on two weights; the ridge keeps it stable where margins separate all.
N_NEWTON_STEPS, RIDGE = 50, 1e-3


class FoundObjects(NamedTuple):
    """What the detector says of the objects of its detections (M rows).

    Attributes:
        objects: (M,) int64, the object in its image; -1 for none.
        scores: (M,) the score of that object.
        votes_input: (M, 2) where each detection sees the centre of its object, in input pixels.
        lengths_input: (M,) how far that is from the point, in input pixels.
        margins: (M,) how much nearer that is to the centre of its object than to any other; see `Grouping`.
    """

    objects: Tensor
    scores: Tensor
    votes_input: Tensor
    lengths_input: Tensor
    margins: Tensor


class ObjectMatches(NamedTuple):
    """Objects and points that are right, by image (I images, Q predicted objects, P right points).

    Attributes:
        n_found: (I,) detections that are right at the largest distance threshold.
        n_grouped: (I,) those of them that are in the right object.
        n_truths: (I,) true objects.
        image: (Q,) the image of each predicted object.
        scores: (Q,) its score.
        is_right: (2 T, Q) bool: whether it is right, at each distance threshold, first with at least half of the
            object's labelled points, then with all.
        radius_input: the radius that separates the objects best, in input pixels; None if no image has several.
        margins: (S,) margins of the right detections that are in an object, in images of several true objects.
        is_grouped: (S,) bool, whether these are in the right object.
    """

    n_found: Tensor
    n_grouped: Tensor
    n_truths: Tensor
    image: Tensor
    scores: Tensor
    is_right: Tensor
    radius_input: float | None
    margins: Tensor
    is_grouped: Tensor

    def values(self, multiplicities: Tensor) -> dict[str, Tensor]:
        """Compute the numbers of `ObjectReport`, given how often each image counts, (I, R): (R,) or (R, T) each."""
        weights = multiplicities.double()
        counts = torch.stack([self.n_grouped, self.n_found]).double() @ weights  # (2, R)
        curve = trace_curve(self.scores, self.is_right, multiplicities[self.image])
        precisions = average_precision(curve, self.n_truths.double() @ weights)  # (R, 2 T)
        half, whole = precisions.tensor_split(2, dim=1)
        return {"grouping_accuracy": counts[0] / counts[1], "half": half, "whole": whole}

    def fit_margins(self) -> tuple[float, float] | None:
        """Fit the log-odds of being in the right object to the margin: slope, 0 or more, and intercept.

        Logistic regression with the smoothed targets of Platt 1999, which keep the odds finite even if all are right.

        Returns:
            None if images of several objects have too few right points.
        """
        n_right, n = int(self.is_grouped.sum()), len(self.is_grouped)
        if n < MIN_POINTS:
            return None
        targets = torch.where(self.is_grouped, (n_right + 1) / (n_right + 2), 1 / (n - n_right + 2)).double()
        terms = torch.stack([self.margins.double(), torch.ones(n, dtype=torch.float64)], dim=1)
        weights = torch.zeros(2, dtype=torch.float64)
        for _ in range(N_NEWTON_STEPS):
            found = torch.sigmoid(terms @ weights)
            curvature = (terms * (found * (1 - found))[:, None]).T @ terms + RIDGE * torch.eye(2, dtype=torch.float64)
            weights = weights - torch.linalg.solve(curvature, terms.T @ (found - targets) + RIDGE * weights)
        if not float(weights[0]) > 0:  # margins say nothing: the share itself
            share = (n_right + 1) / (n + 2)
            return 0.0, math.log(share / (1 - share))
        return float(weights[0]), float(weights[1])


class ObjectReport(NamedTuple):
    """How well points are grouped; NaN where undefined.

    Attributes:
        grouping_accuracy: of the right detections, the share in the right object.
        half: object AP at each distance threshold, with at least half of an object's points right.
        whole: the same with all of them.
    """

    grouping_accuracy: float
    half: tuple[float, ...]
    whole: tuple[float, ...]

    @classmethod
    def of_resample(cls, values: dict[str, Tensor]) -> "ObjectReport":
        """Take the numbers of the first resample."""
        half, whole = (tuple(values[name][0].tolist()) for name in ("half", "whole"))
        return cls(float(values["grouping_accuracy"][0]), half, whole)

    def as_scalars(self, thresholds_px: tuple[float, ...]) -> dict[str, float]:
        """Name the numbers."""
        named = {"grouping_accuracy": self.grouping_accuracy}
        for kind, precisions in (("half", self.half), ("all", self.whole)):
            for threshold, value in zip(thresholds_px, precisions, strict=True):
                named[f"object_AP/{kind}/d={threshold:g}"] = value
        return named


def match_objects(
    detection_images: Tensor,
    detection_scores: Tensor,
    found: FoundObjects,
    truth_images: Tensor,
    true_objects: Tensor,
    assigned: Tensor,
    n_images: int,
) -> ObjectMatches:
    """Match predicted objects with true ones, one to one, those that share most right points first.

    Args:
        detection_images: (M,) the image of each detection, ascending.
        detection_scores: (M,).
        found: the objects of the detections.
        truth_images: (N,) the image of each ground truth, ascending.
        true_objects: (N,) its object.
        assigned: (T, M) the ground truth of each detection at each distance threshold, ascending; -1 for none.
        n_images: number of images.
    """
    n_thresholds = len(assigned)
    n_truths = torch.zeros(n_images, dtype=torch.int64)
    n_found, n_grouped = torch.zeros_like(n_truths), torch.zeros_like(n_truths)
    images, scores = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)]
    is_right = [np.zeros((2 * n_thresholds, 0), bool)]
    margins, is_grouped = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    of_image = [
        torch.bincount(rows, minlength=n_images).cumsum(0).tolist() for rows in (detection_images, truth_images)
    ]
    detection_ends, truth_ends = of_image
    for image, (end, truth_end) in enumerate(zip(detection_ends, truth_ends, strict=True)):
        begin, truth_begin = (ends[image - 1] if image else 0 for ends in of_image)
        n_found[image] = (assigned[-1, begin:end] >= 0).sum()
        _, true_place, n_labelled = np.unique(
            true_objects[truth_begin:truth_end].numpy(), return_inverse=True, return_counts=True
        )
        n_truths[image] = len(n_labelled)
        rows = begin + (found.objects[begin:end] >= 0).nonzero()[:, 0]
        # The objects of the detections in the order of their scores, equal ones in the order of their numbers.
        _, first, place = np.unique(found.objects[rows].numpy(), return_index=True, return_inverse=True)
        order = torch.argsort(found.scores[rows[first]], descending=True, stable=True)
        images.append(torch.full((len(first),), image))
        scores.append(found.scores[rows[first]][order])
        truth = assigned[:, rows].numpy() - truth_begin
        shared = np.zeros((n_thresholds, len(first), len(n_labelled)), dtype=np.int64)
        threshold, row = np.nonzero(truth >= 0)
        np.add.at(shared, (threshold, place[row], true_place[truth[threshold, row]]), 1)
        is_right.append(_judge(shared[:, order.numpy()], n_labelled))
        is_hit = truth[-1] >= 0
        grouped = torch.from_numpy(_match(shared[-1])[place[is_hit]] == true_place[truth[-1, is_hit]])
        n_grouped[image] = grouped.sum()
        if len(n_labelled) > 1:
            margins.append(found.margins[rows[torch.from_numpy(is_hit)]])
            is_grouped.append(grouped)
    right_objects = torch.where(assigned[-1] >= 0, true_objects[assigned[-1].clamp(min=0)], -1)
    return ObjectMatches(
        *(n_found, n_grouped, n_truths, torch.cat(images), torch.cat(scores).double()),
        torch.from_numpy(np.concatenate(is_right, axis=1)),
        choose_radius(detection_images, detection_scores, found, right_objects, n_images),
        *(torch.cat(margins), torch.cat(is_grouped)),
    )


def _match(shared: NDArray[np.int64]) -> NDArray[np.int64]:
    """Match predicted and true objects one to one by their number of shared points (F, G): (F,), -1 for none."""
    partners = np.full(len(shared), -1)
    free = shared.copy()
    while free.any():
        one, other = np.unravel_index(free.argmax(), free.shape)
        partners[one] = other
        free[one], free[:, other] = 0, 0
    return partners


def _judge(shared: NDArray[np.int64], n_labelled: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which predicted objects have at least half, or all, of the points of a true object that is still free.

    Args:
        shared: (T, F, G) points that the predicted objects, by descending score, share with the true ones.
        n_labelled: (G,) labelled points of the true objects.

    Returns:
        (2 T, F), first for the half.
    """
    T, F, G = shared.shape
    is_enough = shared[None] >= np.maximum(np.array([0.5, 1.0])[:, None, None, None] * n_labelled, 1)
    free = np.where(is_enough, shared, 0).reshape(2 * T, F, G)
    is_right = np.zeros((2 * T, F), dtype=bool)
    for place in range(F if G else 0):
        best = free[:, place].argmax(axis=1)
        is_right[:, place] = free[:, place].any(axis=1)
        taken = np.flatnonzero(is_right[:, place])
        free[taken, :, best[taken]] = 0
    return is_right


def choose_radius(
    images: Tensor, scores: Tensor, found: FoundObjects, true_objects: Tensor, n_images: int
) -> float | None:
    """Choose the radius with which pairs of right detections are most often rightly together or apart.

    Pairs of one object and of two count alike, however many there are of each. Of radii that are equally good, the
    middle one is chosen.

    Args:
        images: (M,) the image of each detection, ascending.
        scores: (M,) their scores.
        found: their objects, of which only the votes matter.
        true_objects: (M,) their true object; -1 for wrong detections.
        n_images: number of images.

    Returns:
        One of `RADII_PX`; None if no image has right detections of several objects, and of one several.
    """
    counts = torch.bincount(images, minlength=n_images)
    together, apart = torch.zeros(2, len(RADII_PX)), torch.zeros(2, len(RADII_PX))  # right, all
    n_used = 0
    for rows in torch.split(torch.arange(len(images)), counts.tolist()):
        true = true_objects[rows]
        if len(torch.unique(true[true >= 0])) < 2 or n_used == MAX_IMAGES:
            continue
        n_used += 1
        is_pair = (true[:, None] >= 0) & (true >= 0) & ~torch.eye(len(rows), dtype=torch.bool)
        is_one = true[:, None] == true
        for place, radius in enumerate(RADII_PX):
            votes = (found.votes_input[rows][None], found.lengths_input[rows][None], scores[rows][None])
            distance, owner = measure_to_centres(*votes, radius)[0].min(1)
            is_member = distance < 1
            is_together = (owner[:, None] == owner) & is_member[:, None] & is_member
            together[:, place] += torch.stack([(is_pair & is_one & is_together).sum(), (is_pair & is_one).sum()])
            apart[:, place] += torch.stack([(is_pair & ~is_one & ~is_together).sum(), (is_pair & ~is_one).sum()])
    quality = (together[0] / together[1] + apart[0] / apart[1]) / 2
    if not bool(quality.isfinite().all()):
        return None
    best = (quality >= quality.max() - EQUALLY_GOOD).nonzero()[:, 0]
    return RADII_PX[int(best[len(best) // 2])]


def rows_of_objects(detections: Detections, is_detection: Tensor) -> Tensor:
    """Return what `FoundObjects` holds of each detection, (M, 6), in the order of the mask."""
    grouping = detections.grouping
    assert grouping is not None
    objects = grouping.objects[is_detection]
    images = is_detection.nonzero()[:, 0]
    scores = grouping.object_scores[images, objects.clamp(min=0)] * (objects >= 0)
    votes = grouping.votes[is_detection]
    lengths = torch.linalg.vector_norm(votes - detections.points[is_detection], dim=1)
    columns = (objects[:, None], scores[:, None], votes, lengths[:, None], grouping.margins[is_detection][:, None])
    return torch.cat(columns, dim=1).detach().float()
