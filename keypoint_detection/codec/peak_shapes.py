"""The width of heatmap peaks in every direction: the network's own uncertainty about a position.

A network trained on Gaussians that cannot tell where a point lies predicts the mean of the Gaussians it considers
possible, which is wider and lower than any one of them.
"""

import math

import torch
from torch import Tensor

# The window around a peak ends where its weight falls below 1.2 %.
_REACH_SIGMAS = 3
# If the weighted variance of a peak is closer than this to that of the window, its width cannot be measured: it is
# flat, and is assigned nine times the variance of the window.
_MAX_SHARE = 0.9
_MIN_SHARE = 0.01


def measure_shapes(heatmaps: Tensor, points: Tensor, stride: int, sigma_px: float) -> Tensor:
    """Measure the covariance matrices of peaks, treating each as a Gaussian.

    The second moments about the peak are taken under a Gaussian window of `sigma_px`, which keeps other peaks out. Its
    effect is then undone: the inverse covariance of a product of two Gaussians is the sum of theirs. These are the
    adaptive moments of Bernstein and Jarvis 2002, section 3.1, https://arxiv.org/abs/astro-ph/0107431, with a window
    that stays round. Only operations that can be traced and exported are used.

    Args:
        heatmaps: (B, C, h, w) probabilities.
        points: (B, C, D, 2) the positions of the peaks in input pixels.
        stride: input pixels per heatmap cell, along each axis.
        sigma_px: standard deviation of the window, in input pixels: that of the training Gaussians.

    Returns:
        (B, C, D, 2, 2) symmetric and positive definite, in square input pixels; arbitrary in slots without a peak.
    """
    B, C, height, width = heatmaps.shape
    maps = heatmaps.float().flatten(0, 1).flatten(1)  # (N, h*w)
    centres = points.float().flatten(0, 1) / stride - 0.5  # (N, D, 2) in cells
    reach = max(1, math.ceil(_REACH_SIGMAS * sigma_px / stride))
    around = torch.arange(-reach, reach + 1, device=maps.device)
    columns, rows = (centres.round().long()[..., None] + around).unbind(2)  # (N, D, n) each
    across, down = columns - centres[..., :1], rows - centres[..., 1:]
    window = -0.5 * (stride / sigma_px) ** 2
    weight_across = torch.exp(window * across**2) * ((columns >= 0) & (columns < width))
    weight_down = torch.exp(window * down**2) * ((rows >= 0) & (rows < height))
    cells = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    values = maps.gather(1, cells.flatten(1)).view(cells.shape)  # (N, D, n, n)
    weights = values * weight_down[..., :, None] * weight_across[..., None, :]
    total = weights.sum((2, 3)).clamp(min=torch.finfo(torch.float32).tiny)
    by_column, by_row = weights.sum(2), weights.sum(3)
    xx = (by_column * across**2).sum(2) / total
    yy = (by_row * down**2).sum(2) / total
    xy = ((weights * across[..., None, :]).sum(3) * down).sum(2) / total
    limit = (sigma_px / stride) ** 2
    return _undo_window(xx, xy, yy, limit).mul(stride**2).view(B, C, points.shape[2], 2, 2)


def _undo_window(xx: Tensor, xy: Tensor, yy: Tensor, limit: float) -> Tensor:
    """Turn moments under a window of variance `limit` into those without it, (N, D, 2, 2); the axes stay the same."""
    middle, half = (xx + yy) / 2, (xx - yy) / 2
    radius = torch.sqrt(half**2 + xy**2)
    smallest, largest = _MIN_SHARE * limit, _MAX_SHARE * limit
    major, minor = ((middle + sign * radius).clamp(smallest, largest) for sign in (1, -1))
    major, minor = (1 / (1 / variance - 1 / limit) for variance in (major, minor))
    # The axes are those of the moments; a round peak has none.
    cosine, sine = (part / radius.clamp(min=torch.finfo(torch.float32).eps) for part in (half, xy))
    mean, spread = (major + minor) / 2, (major - minor) / 2
    entries = [mean + spread * cosine, spread * sine, spread * sine, mean - spread * cosine]
    return torch.stack(entries, -1).view(*xx.shape, 2, 2)
