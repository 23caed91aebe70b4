"""How well points are grouped into objects: from matched points to matched objects."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keypoint_detection.codec.votes import measure_to_centres
from keypoint_detection.metrics.average_precision import average_precision, trace_curve
from keypoint_detection.types import Grouping

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
        margins_input: (M,) how much nearer that is to the centre of its object than to any other, in input pixels.
    """

    objects: Tensor
    scores: Tensor
    votes_input: Tensor
    margins_input: Tensor


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
        margins_input: (S,) margins of the right detections that are in an object, in images of several true objects.
        is_grouped: (S,) bool, whether these are in the right object.
    """

    n_found: Tensor
    n_grouped: Tensor
    n_truths: Tensor
    image: Tensor
    scores: Tensor
    is_right: Tensor
    radius_input: float | None
    margins_input: Tensor
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
        terms = torch.stack([self.margins_input.double(), torch.ones(n, dtype=torch.float64)], dim=1)
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


class _Image(NamedTuple):
    """The points of one image: places in image pixels, channels, and the objects that they belong to."""

    points: NDArray[np.float64]
    channels: NDArray[np.int64]
    objects: NDArray[np.int64]


def match_objects(
    detections: tuple[Tensor, Tensor, Tensor],
    truths: tuple[Tensor, Tensor, Tensor, Tensor],
    found: FoundObjects,
    scores_of_points: Tensor,
    n_images: int,
    thresholds_px: Tensor,
) -> ObjectMatches:
    """Match predicted objects with true ones.

    Points are matched as for AP. Objects are matched one to one, those that share most right points first.

    Args:
        detections: image (M,), channel (M,) and points (M, 2) in image pixels, ordered by image, then channel, then
            descending score.
        truths: image (N,), channel (N,), points (N, 2) in image pixels and instance (N,), ordered by image.
        found: the objects of the detections.
        scores_of_points: (M,) the scores of the detections.
        n_images: number of images.
        thresholds_px: (T,) distances in image pixels, ascending.
    """
    limits = thresholds_px.numpy()
    n_truths = torch.zeros(n_images, dtype=torch.int64)
    n_found, n_grouped = torch.zeros_like(n_truths), torch.zeros_like(n_truths)
    images: list[int] = []
    scores: list[float] = []
    is_right: list[NDArray[np.bool_]] = []
    margins, is_grouped = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    true_objects = torch.full_like(found.objects, -1)
    every_detection, every_truth = (
        torch.split(torch.arange(len(rows[0])), torch.bincount(rows[0], minlength=n_images).tolist())
        for rows in (detections, truths)
    )
    for image, (of_image, true) in enumerate(zip(every_detection, every_truth, strict=True)):
        one = _Image(detections[2][of_image].numpy(), detections[1][of_image].numpy(), found.objects[of_image].numpy())
        other = _Image(truths[2][true].numpy(), truths[1][true].numpy(), truths[3][true].numpy())
        pairs = [_pair_points(one, other, float(limit)) for limit in limits]
        n_truths[image] = len(np.unique(other.objects))
        numbers = np.unique(one.objects[one.objects >= 0])
        right = _match(one, other, pairs[-1])
        n_found[image], n_grouped[image] = len(pairs[-1]), len(right)
        if len(pairs[-1]):
            rows, columns = np.array(pairs[-1]).T
            true_objects[of_image[rows]] = truths[3][true[columns]]
            if n_truths[image] > 1:
                in_object = torch.from_numpy(one.objects[rows] >= 0)
                margins.append(found.margins_input[of_image[rows]][in_object])
                is_grouped.append(torch.tensor([pair in right for pair in pairs[-1]])[in_object])
        first = {int(number): int((one.objects == number).argmax()) for number in numbers}
        object_scores = {number: float(found.scores[of_image[row]]) for number, row in first.items()}
        ranked = sorted(first, key=lambda number: -object_scores[number])
        flags = [_judge(one, other, of_limit, ranked, share) for share in (0.5, 1.0) for of_limit in pairs]
        images += [image] * len(ranked)
        scores += [object_scores[number] for number in ranked]
        is_right.append(np.array(flags, dtype=bool).reshape(2 * len(limits), len(ranked)))
    joined = np.concatenate(is_right, axis=1) if is_right else np.zeros((2 * len(limits), 0), bool)
    return ObjectMatches(
        *(n_found, n_grouped, n_truths, torch.tensor(images, dtype=torch.int64), torch.tensor(scores).double()),
        torch.from_numpy(joined),
        choose_radius(detections[0], scores_of_points, found.votes_input, true_objects, n_images),
        *(torch.cat(margins), torch.cat(is_grouped)),
    )


def choose_radius(images: Tensor, scores: Tensor, votes: Tensor, true_objects: Tensor, n_images: int) -> float | None:
    """Choose the radius with which pairs of right detections are most often rightly together or apart.

    Pairs of one object and of two count alike, however many there are of each. Of radii that are equally good, the
    middle one is chosen.

    Args:
        images: (M,) the image of each detection, ascending.
        scores: (M,) their scores.
        votes: (M, 2) where they see the centre of their object, in input pixels.
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
            distance, owner = measure_to_centres(votes[rows][None], scores[rows][None], radius)[0].min(1)
            is_member = distance < radius
            is_together = (owner[:, None] == owner) & is_member[:, None] & is_member
            together[:, place] += torch.stack([(is_pair & is_one & is_together).sum(), (is_pair & is_one).sum()])
            apart[:, place] += torch.stack([(is_pair & ~is_one & ~is_together).sum(), (is_pair & ~is_one).sum()])
    quality = (together[0] / together[1] + apart[0] / apart[1]) / 2
    if not bool(quality.isfinite().all()):
        return None
    best = (quality >= quality.max() - EQUALLY_GOOD).nonzero()[:, 0]
    return RADII_PX[int(best[len(best) // 2])]


def _pair_points(one: _Image, other: _Image, limit_px: float) -> list[tuple[int, int]]:
    """Pair detections with true points: each takes the nearest free one of its channel within the limit."""
    gaps = np.linalg.norm(one.points[:, None] - other.points[None], axis=2)
    gaps[one.channels[:, None] != other.channels] = np.inf
    pairs = []
    for row in np.flatnonzero((gaps <= limit_px).any(axis=1)).tolist():
        column = int(gaps[row].argmin())
        if gaps[row, column] <= limit_px:
            pairs.append((row, column))
            gaps[:, column] = np.inf
    return pairs


def _match(one: _Image, other: _Image, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Match objects one to one by their number of shared points, and return the pairs of points in matched objects."""
    counts: dict[tuple[int, int], int] = {}
    for row, column in pairs:
        key = int(one.objects[row]), int(other.objects[column])
        if key[0] >= 0:
            counts[key] = counts.get(key, 0) + 1
    matched: dict[int, int] = {}
    for found, true in sorted(counts, key=lambda key: (-counts[key], key)):
        if found not in matched and true not in matched.values():
            matched[found] = true
    return [pair for pair in pairs if matched.get(int(one.objects[pair[0]]), math.nan) == other.objects[pair[1]]]


def _judge(one: _Image, other: _Image, pairs: list[tuple[int, int]], ranked: list[int], share: float) -> list[bool]:
    """Tell which predicted objects, by descending score, have a share of the points of a true object that is free."""
    labelled, n_labelled = np.unique(other.objects, return_counts=True)
    free = dict(zip(labelled.tolist(), n_labelled.tolist(), strict=True))
    flags = []
    for number in ranked:
        shared = [int(other.objects[column]) for row, column in pairs if one.objects[row] == number]
        enough = [true for true in set(shared) & free.keys() if shared.count(true) >= share * free[true]]
        best = max(enough, key=lambda true: (shared.count(true), -true), default=None)
        if best is not None:
            del free[best]
        flags.append(best is not None)
    return flags


def rows_of_objects(grouping: Grouping, is_detection: Tensor) -> Tensor:
    """Return the object of each detection, its score, the vote and the margin, (M, 5), in the order of the mask."""
    objects = grouping.objects[is_detection]
    images = is_detection.nonzero()[:, 0]
    scores = grouping.object_scores[images, objects.clamp(min=0)] * (objects >= 0)
    votes, margins = grouping.votes[is_detection], grouping.margins[is_detection]
    return torch.cat([objects[:, None], scores[:, None], votes, margins[:, None]], dim=1).detach().float()
