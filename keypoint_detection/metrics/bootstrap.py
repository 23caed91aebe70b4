"""Percentile-bootstrap intervals by resampling images (Efron and Tibshirani 1993, chapter 13)."""

import math
from statistics import NormalDist

import torch
from torch import Tensor

# No interval contains a larger share of the resamples, whose ends would decide it.
LARGEST_LEVEL = 0.999


def resample_images(n_images: int, n_resamples: int, generator: torch.Generator) -> Tensor:
    """Draw resamples of the images with replacement.

    Images are drawn, not points: the points of one image share its light, blur and pose, and drawing them individually
    would suggest more independent evidence than there is.

    Args:
        n_images: images in the data set.
        n_resamples: resamples to draw (R).
        generator: the only source of randomness, on the CPU: the same seed gives the same resamples in every process.

    Returns:
        (n_images, R) float32: how often each resample contains each image; every column adds up to n_images.

    Raises:
        ValueError: there is no image, or no resample is requested.
    """
    if n_images < 1 or n_resamples < 1:
        raise ValueError(
            f"a bootstrap needs at least one image and one resample, found {n_images} and {n_resamples}; "
            "evaluate on images, or do not request intervals."
        )
    drawn = torch.randint(n_images, (n_images, n_resamples), generator=generator)
    counts = torch.zeros(n_images, n_resamples)
    return counts.scatter_add_(0, drawn, torch.ones_like(counts))


def resample_groups(groups: Tensor, n_resamples: int, generator: torch.Generator) -> Tensor:
    """Draw resamples of groups of images with replacement: frames of one video are no more independent than points.

    Args:
        groups: (I,) int64, the group of each image; if each image is its own group, images are drawn.
        n_resamples: resamples to draw (R).
        generator: as for `resample_images`.

    Returns:
        (I, R) float32: how often each resample contains each image.
    """
    names, numbers = torch.unique(groups, return_inverse=True)
    return resample_images(len(names), n_resamples, generator)[numbers]


def expand_level(level: float, n_units: int) -> float:
    """Return the share of the resamples that an interval of a level must contain if few units were drawn.

    With n units, resamples vary less than samples by the factor sqrt((n - 1) / n), and their quantiles are those of a
    normal distribution instead of Student's. Expanded percentiles make up for both (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789, section 5.3). The t quantile is that of Abramowitz and Stegun
    26.7.5, right to a percent from 5 units on.

    Args:
        level: share of the samples whose interval shall contain the truth, in (0, 1).
        n_units: images or groups that are resampled.

    >>> round(expand_level(0.95, 10), 3), round(expand_level(0.95, 1000), 3)
    (0.983, 0.95)
    """
    z, df = NormalDist().inv_cdf((1 + level) / 2), max(n_units - 1, 1)
    t = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    return min(math.erf(t * math.sqrt((df + 1) / df) / math.sqrt(2)), LARGEST_LEVEL)


def percentile_interval(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Take the central interval of bootstrap values.

    Args:
        values: (R, ...) a statistic in each resample; NaN, which is ignored, where a resample leaves it undefined.
        level: share of the resamples inside, in (0, 1).

    Returns:
        Lower and upper end, each (...); NaN where no resample defines the statistic.

    >>> percentile_interval(torch.arange(101.0), 0.95)
    (tensor(2.5000), tensor(97.5000))
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie between 0 and 1, found {level:g}; 0.95 is usual.")
    if not values[0].numel():  # without thresholds, there are no statistics
        return values[0], values[0]
    tail = (1 - level) / 2
    return values.nanquantile(tail, dim=0), values.nanquantile(1 - tail, dim=0)
