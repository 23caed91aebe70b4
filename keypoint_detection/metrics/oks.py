"""COCO keypoint AP by object keypoint similarity (OKS), computed by pycocotools.

The similarity of a prediction and an instance is the mean over its labelled points of exp(-d² / (2 area k²)) with k = 2
sigma (https://cocodataset.org/#keypoints-eval; Ronchi and Perona 2017, https://arxiv.org/abs/1707.05388). The sigmas
express how precisely people label each keypoint type; they are known for the COCO person keypoints and must be measured
for anything else, so there is no default.
"""

import contextlib
import io
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.metrics.evaluation import DetectionList, Measurements, TruthList

logger = logging.getLogger(__name__)

# By keypoint type, in the order of the COCO person category; the values are those of pycocotools.
COCO17_SIGMAS = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}


class OksTruths(NamedTuple):
    """Annotated instances, N of them.

    Attributes:
        image_ids: (N,) int64.
        points: (N, C, 2) in image pixels.
        is_labelled: (N, C) bool; instances without a labelled point are ignored.
        areas: (N,) square image pixels.
    """

    image_ids: Tensor
    points: Tensor
    is_labelled: Tensor
    areas: Tensor


class OksPredictions(NamedTuple):
    """Predicted instances, N of them; an image can have several if the caller has grouped the points.

    Attributes:
        image_ids: (N,) int64.
        points: (N, C, 2) in image pixels.
        is_found: (N, C) bool; a point that is not found has no similarity to any ground truth.
        scores: (N,).
    """

    image_ids: Tensor
    points: Tensor
    is_found: Tensor
    scores: Tensor


def resolve_sigmas(sigmas: Sequence[float] | str, channels: Sequence[str]) -> tuple[float, ...]:
    """Return one sigma per channel.

    Args:
        sigmas: the sigmas in the order of the channels, or "coco17".
        channels: names of the channels, one keypoint type each.

    Raises:
        ValueError: another name, channels that are not the 17 COCO ones in order, the wrong number of sigmas, or a
            sigma that is not positive and finite.

    >>> resolve_sigmas("coco17", list(COCO17_SIGMAS))[:2]
    (0.026, 0.025)
    """
    if isinstance(sigmas, str):
        if sigmas != "coco17":
            raise ValueError(f"oks_sigmas: 'coco17' is the only set known by name, found '{sigmas}'; list the sigmas.")
        if tuple(channels) != tuple(COCO17_SIGMAS):
            raise ValueError(
                f"oks_sigmas: 'coco17' is for the channels {list(COCO17_SIGMAS)} in this order, found "
                f"{list(channels)}; list one sigma per channel instead."
            )
        return tuple(COCO17_SIGMAS.values())
    values = tuple(float(sigma) for sigma in sigmas)
    if len(values) != len(channels):
        raise ValueError(
            f"oks_sigmas: expected {len(channels)}, one per channel, found {len(values)}; list them in the order of "
            f"the channels {list(channels)}."
        )
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(
            f"oks_sigmas: every sigma must be positive and finite, found {list(values)}; it is the standard deviation "
            "of the labelling relative to the square root of the object's area, for example 0.05."
        )
    return values


def evaluate_oks(measurements: Measurements, sigmas: Sequence[float]) -> dict[str, float]:
    """Compute OKS-AP when each channel has at most one point of an instance.

    If points are grouped, the predictions are the objects. Otherwise, each image has at most one instance, and its
    prediction is the best point of each channel; its score is the mean of their scores, which ranks images by the
    certainty of their points. Images without detections have no prediction.

    Args:
        measurements: measurements on a data set; each channel must represent a single keypoint type.
        sigmas: one per channel, from `resolve_sigmas`.

    Returns:
        See `oks_average_precision`.

    Raises:
        ValueError: an instance has several points of a channel; an image has several instances, or several points of a
            channel, and they are not grouped; or an area is unknown.
    """
    image_ids, n_channels, found = measurements.image_ids, measurements.n_channels, measurements.found_objects
    if found is None:
        _require_one_instance(measurements.truths, image_ids, n_channels)
        objects, scores = _join_best(measurements.detections, len(image_ids), n_channels)
    else:
        objects, scores = found.objects, found.scores
    annotated = _gather_truths(measurements.truths, image_ids, n_channels)
    predicted = _gather_predictions(measurements.detections, objects, scores, image_ids, n_channels)
    return oks_average_precision(annotated, predicted, image_ids, sigmas)


def oks_average_precision(
    truths: OksTruths, predictions: OksPredictions, image_ids: Tensor, sigmas: Sequence[float]
) -> dict[str, float]:
    """Compute OKS-AP with pycocotools' COCOeval, over areas of any size.

    Args:
        truths: annotated instances.
        predictions: predicted instances; as in COCO, at most 20 per image are considered.
        image_ids: (I,) ids of all images: predictions on those without an instance are false positives.
        sigmas: one per keypoint.

    Returns:
        `OKS-AP` (mean over similarity 0.50:0.05:0.95), `OKS-AP50`, `OKS-AP75` and `OKS-AR`, the mean recall; NaN
        without ground truth.

    Raises:
        ValueError: the number of sigmas differs from that of the keypoints, an area is not positive and finite, or a
            prediction belongs to none of the images.
    """
    C = truths.points.shape[1]
    if not len(sigmas) == C == predictions.points.shape[1]:
        raise ValueError(
            f"oks_sigmas: expected one per keypoint, found {len(sigmas)} for {C} annotated and "
            f"{predictions.points.shape[1]} predicted keypoints; list them in the order of the keypoints."
        )
    _require_areas(truths)
    strays = sorted(set(predictions.image_ids.tolist()) - set(image_ids.tolist()))
    if strays:
        raise ValueError(
            f"{len(strays)} images have predictions but are not among the {len(image_ids)} evaluated ones, the first "
            f"has id {strays[0]}; evaluate the images that were predicted."
        )
    precision, recall = _run_cocoeval(truths, predictions, image_ids.tolist(), sigmas)
    return {
        "OKS-AP": _mean_or_nan(precision),
        "OKS-AP50": _mean_or_nan(precision[0]),
        "OKS-AP75": _mean_or_nan(precision[5]),  # 0.50 + 5 * 0.05
        "OKS-AR": _mean_or_nan(recall),
    }


def _run_cocoeval(
    truths: OksTruths, predictions: OksPredictions, image_ids: list[int], sigmas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return precision (10 similarities, 101 recalls) and recall (10,); -1 where undefined."""
    # Late: pycocotools is slow to import and only needed here.
    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        annotated, predicted = COCO(), COCO()
        for coco, annotations in ((annotated, _truth_records(truths)), (predicted, _prediction_records(predictions))):
            images = [{"id": image_id} for image_id in image_ids]
            coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
            coco.createIndex()
        evaluation = COCOeval(annotated, predicted, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    logger.debug("pycocotools: %s", printed.getvalue())
    precision = torch.from_numpy(evaluation.eval["precision"])[:, :, 0, 0, 0]
    return precision, torch.from_numpy(evaluation.eval["recall"])[:, 0, 0, 0]


def _truth_records(truths: OksTruths) -> list[dict[str, Any]]:
    # pycocotools reads id 0 as "not matched", and requires a box that it uses only for unlabelled instances.
    return [
        {
            "id": number,
            "image_id": int(truths.image_ids[index]),
            "category_id": 1,
            "keypoints": _triples(truths.points[index], truths.is_labelled[index]),
            "num_keypoints": int(truths.is_labelled[index].sum()),
            "area": float(truths.areas[index]),
            "bbox": [0, 0, 0, 0],
            "iscrowd": 0,
        }
        for number, index in enumerate(range(len(truths.image_ids)), start=1)
    ]


def _prediction_records(predictions: OksPredictions) -> list[dict[str, Any]]:
    # At infinity, so that the similarity is 0 for any ground truth.
    points = torch.where(predictions.is_found[..., None], predictions.points, math.inf)
    return [
        {
            "id": number,
            "image_id": int(predictions.image_ids[index]),
            "category_id": 1,
            "keypoints": _triples(points[index], predictions.is_found[index]),
            "score": float(predictions.scores[index]),
            "area": 1.0,
        }
        for number, index in enumerate(range(len(predictions.image_ids)), start=1)
    ]


def _triples(points: Tensor, is_there: Tensor) -> list[float]:
    """Write (C, 2) points in COCO's form: x, y and a flag for each."""
    flat: list[float] = torch.cat([points.double(), 2.0 * is_there[:, None]], dim=1).flatten().tolist()
    return flat


def _mean_or_nan(values: Tensor) -> float:
    defined = values[values > -1]
    return float(defined.mean())  # the mean of nothing is NaN


def _require_one_instance(truths: TruthList, image_ids: Tensor, n_channels: int) -> None:
    points_of = torch.bincount(truths.image * n_channels + truths.channel, minlength=len(image_ids) * n_channels)
    crowded = (points_of > 1).nonzero()[:, 0]
    if len(crowded) > 0:
        raise ValueError(
            f"OKS-AP needs at most one point of a channel in an image, found {int(points_of[crowded[0]])} in image "
            f"{int(image_ids[crowded[0] // n_channels])}; use distance AP, or group the points: --model.group=true."
        )
    first = torch.full((len(image_ids),), -1).scatter_reduce(0, truths.image, truths.instance, "amax")
    differs = (truths.instance != first[truths.image]).nonzero()[:, 0]
    if len(differs) > 0:
        raise ValueError(
            f"OKS-AP needs at most one annotated instance in an image, found several in image "
            f"{int(image_ids[truths.image[differs[0]]])}; use distance AP, or group the points: --model.group=true."
        )


def _gather_truths(truths: TruthList, image_ids: Tensor, n_channels: int) -> OksTruths:
    """Gather the points of each annotation into an instance."""
    (images, _), place = _number_pairs(truths.image, truths.instance)
    n_points = torch.bincount(place * n_channels + truths.channel)
    if len(n_points) and int(n_points.max()) > 1:
        image = int(images[int(n_points.argmax()) // n_channels])
        raise ValueError(
            f"OKS-AP needs at most one point of a channel in an annotation, found {int(n_points.max())} in image "
            f"{int(image_ids[image])}; use distance AP and object AP."
        )
    points = torch.zeros(len(images), n_channels, 2, dtype=torch.float64)
    is_labelled = torch.zeros(len(images), n_channels, dtype=torch.bool)
    areas = torch.zeros(len(images), dtype=torch.float64)
    points[place, truths.channel], is_labelled[place, truths.channel] = truths.points_image, True
    areas[place] = truths.areas
    return OksTruths(image_ids[images], points, is_labelled, areas)


def _join_best(detections: DetectionList, n_images: int, n_channels: int) -> tuple[Tensor, Tensor]:
    """Join the best detection of each channel into the only object of an image.

    Returns:
        (M,) the object of each detection, 0 or -1 for none; (M,) the mean score of the points in the object.
    """
    row = detections.image * n_channels + detections.channel
    is_best = torch.ones_like(row, dtype=torch.bool)
    is_best[1:] = row[1:] != row[:-1]  # within a row the scores descend
    scores = torch.zeros(n_images, n_channels, dtype=torch.float64)
    scores[detections.image[is_best], detections.channel[is_best]] = detections.scores[is_best].double()
    mean_score = scores.sum(1) / (scores > 0).sum(1)
    return is_best.long() - 1, mean_score[detections.image]


def _gather_predictions(
    detections: DetectionList, objects: Tensor, object_scores: Tensor, image_ids: Tensor, n_channels: int
) -> OksPredictions:
    """Gather the points of each object into an instance; an object has at most one point of a channel."""
    kept = objects >= 0
    (images, _), place = _number_pairs(detections.image[kept], objects[kept])
    channel = detections.channel[kept]
    points = torch.zeros(len(images), n_channels, 2, dtype=torch.float64)
    is_found = torch.zeros(len(images), n_channels, dtype=torch.bool)
    scores = torch.zeros(len(images), dtype=torch.float64)
    points[place, channel], is_found[place, channel] = detections.points_image[kept], True
    scores[place] = object_scores[kept].double()
    return OksPredictions(image_ids[images], points, is_found, scores)


def _number_pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different pairs (2, N), in order, and which of them each pair (M,) is."""
    pairs, place = torch.unique(torch.stack([first, second]), dim=1, return_inverse=True)
    return pairs, place


def _require_areas(truths: OksTruths) -> None:
    is_known = truths.areas.isfinite() & (truths.areas > 0) | ~truths.is_labelled.any(1)
    if not bool(is_known.all()):
        first = int((~is_known).nonzero()[0, 0])
        raise ValueError(
            f"OKS-AP needs the area of every instance, found {float(truths.areas[first]):g} in image "
            f"{int(truths.image_ids[first])} and {int((~is_known).sum())} such in all; write `area` into the COCO file."
        )
