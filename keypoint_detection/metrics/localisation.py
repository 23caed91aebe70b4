"""Pixel errors, PCK, NME and strict success from the error of each ground truth.

The errors come from `pair_nearest`: (M,), inf where a ground truth has no prediction. Every function takes optional
weights (., R): the multiplicities of the ground truths (or images) in R resamples of the images. Without them R is 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ErrorStatistics(NamedTuple):
    """Errors over the ground truths that have a prediction, and how many have one; each (R,) float64.

    Attributes:
        mean: mean error; like the next two, NaN if no ground truth has a prediction.
        median: median error.
        p95: 95th percentile of the errors.
        detection_rate: share of the ground truths with a prediction, at any distance; NaN without ground truth. The
            other three ignore missing predictions, so read them together with this one.
    """

    mean: Tensor
    median: Tensor
    p95: Tensor
    detection_rate: Tensor


def error_statistics(errors: Tensor, weights: Tensor | None = None) -> ErrorStatistics:
    """Summarise the errors of the ground truths that have a prediction.

    Quantiles are interpolated linearly between neighbours, as NumPy does; a resample gives exactly the result of its
    repeated images.

    Args:
        errors: (M,) error of each ground truth, inf where its prediction is missing.
        weights: (M, R) multiplicities of the ground truths.

    Returns:
        The statistics, in the unit of the errors.
    """
    weights = _weights_or_ones(errors, weights)
    n_truths = weights.sum(0)
    found, order = errors.double().sort()
    n_found = int(found.isfinite().sum())
    found, weights = found[:n_found], weights[order[:n_found]]
    cumulative = weights.cumsum(0).T.contiguous()  # (R, found)
    total = weights.sum(0)
    return ErrorStatistics(
        mean=found @ weights / total,  # 0 / 0 gives the documented NaN, here and below
        median=_quantile(found, cumulative, 0.5),
        p95=_quantile(found, cumulative, 0.95),
        detection_rate=total / n_truths,
    )


def correct_share(
    errors: Tensor, thresholds: Tensor, lengths: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Measure the percentage of correct keypoints (PCK): the share of ground truths with an error within a threshold.

    A missing prediction counts as wrong. Relative thresholds follow Yang and Ramanan 2013
    (https://doi.org/10.1109/TPAMI.2012.261): a fraction of the longer side of the object's box.

    Args:
        errors: (M,) error of each ground truth in pixels, inf where its prediction is missing.
        thresholds: (T,) in pixels; with lengths, fractions of them. An error equal to the threshold is correct.
        lengths: (M,) the length that each ground truth's error is measured against, in pixels.
        weights: (M, R) multiplicities of the ground truths.

    Returns:
        (R, T) float64 in [0, 1]; NaN without ground truth.

    >>> correct_share(torch.tensor([1.0, 3.0, float("inf")]), torch.tensor([2.0])).round(decimals=4)
    tensor([[0.3333]], dtype=torch.float64)
    """
    weights = _weights_or_ones(errors, weights)
    relative = errors if lengths is None else errors / lengths
    is_correct = relative[:, None] <= thresholds.to(relative)  # (M, T)
    return weights.T @ is_correct.double() / weights.sum(0)[:, None]


def normalised_mean_error(errors: Tensor, lengths: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean of error over reference length (NME) for the ground truths that have a prediction.

    Face alignment divides by the distance between the eyes (Sagonas et al. 2016,
    https://doi.org/10.1016/j.imavis.2016.01.002); here it is the reference length of any object, see
    `reference_lengths`. Missing predictions are ignored: read it together with the detection rate.

    Args:
        errors: (M,) error of each ground truth in pixels, inf where its prediction is missing.
        lengths: (M,) the length that each error is divided by, in pixels.
        weights: (M, R) multiplicities of the ground truths.

    Returns:
        (R,) float64; NaN where no ground truth has a prediction.
    """
    weights = _weights_or_ones(errors, weights)
    is_found = errors.isfinite()
    weights = weights[is_found]
    return (errors / lengths)[is_found].double() @ weights / weights.sum(0)


def strict_success(
    errors: Tensor, image_index: Tensor, n_images: int, thresholds: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Measure the share of images in which every labelled point, of every channel, has an error within a threshold.

    A missing prediction makes its image wrong. Images without labelled points are left out, since there is nothing in
    them to find. False positives are not penalised here; AP and precision do that.

    Args:
        errors: (M,) error of each ground truth in pixels, inf where its prediction is missing.
        image_index: (M,) int64, the image of each ground truth, in [0, n_images).
        n_images: images in the data set.
        thresholds: (T,) in pixels.
        weights: (n_images, R) multiplicities of the images.

    Returns:
        (R, T) float64 in [0, 1]; NaN where no image has a labelled point.
    """
    worst = torch.full((n_images,), -math.inf, dtype=errors.dtype, device=errors.device)
    worst = worst.scatter_reduce(0, image_index, errors, "amax")
    weights = _weights_or_ones(worst, weights) * (worst > -math.inf)[:, None]
    is_right = worst[:, None] <= thresholds.to(worst)  # (n_images, T)
    return weights.T @ is_right.double() / weights.sum(0)[:, None]


def reference_lengths(box_sizes: Tensor, image_sizes: Tensor) -> Tensor:
    """Choose the length that errors are divided by: the size of the box, or else the diagonal of the image.

    Args:
        box_sizes: (M,) longer side of the box in pixels; NaN or 0 where there is none.
        image_sizes: (M, 2) height and width of the image in pixels.

    Returns:
        (M,) lengths in pixels.
    """
    diagonal = image_sizes.to(box_sizes).square().sum(-1).sqrt()
    return torch.where(box_sizes > 0, box_sizes, diagonal)


def _weights_or_ones(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return (M, R) float64 weights for (M,) values."""
    if weights is None:
        return torch.ones(len(values), 1, dtype=torch.float64, device=values.device)
    if weights.ndim != 2 or len(weights) != len(values):
        raise ValueError(
            f"expected weights ({len(values)}, R) for {len(values)} values, found {tuple(weights.shape)}; "
            "give one row per value."
        )
    return weights.double()


def _quantile(values: Tensor, cumulative: Tensor, fraction: float) -> Tensor:
    """Interpolate a quantile of values repeated by integer weights.

    Args:
        values: (M,) ascending.
        cumulative: (R, M) cumulative weights.
        fraction: which quantile, in [0, 1].

    Returns:
        (R,); NaN where the weights add up to 0.
    """
    if len(values) == 0:
        return cumulative.new_full((len(cumulative),), math.nan)
    total = cumulative[:, -1:]
    position = ((total - 1) * fraction).clamp(min=0)
    below = position.floor()
    above = (below + 1).minimum(total - 1)
    ends = torch.searchsorted(cumulative, torch.cat([below, above], dim=1), right=True)
    low, high = values[ends.clamp(max=len(values) - 1)].unbind(1)
    quantile = low + (high - low) * (position - below)[:, 0]
    return quantile.masked_fill(total[:, 0] == 0, math.nan)
