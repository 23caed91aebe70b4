"""Turn points into heatmaps and heatmaps into points: the home of the pixel convention.

Coordinates are continuous: (0, 0) is the outer corner of the top-left input pixel and (0.5, 0.5) its centre. A heatmap
cell is a square of `stride` input pixels, so the centre of the cell in row j, column i lies at input pixel
((i + 0.5) * stride, (j + 0.5) * stride). Only the modules of this folder need to know this.

A keypoint is a Gaussian of height 1 around the point itself, never around the nearest cell, as in Zhang et al. 2020,
"Distribution-aware coordinate representation for human pose estimation", https://arxiv.org/abs/1910.06278, section 3.2.
Decoding differs from the Taylor step of their section 3.1: a parabola fitted to the logarithms of five cells per axis,
which is exact for a Gaussian wherever its centre lies in the peak's cell, and averages out a network's noise without
smoothing the heatmap. At the border, and where another peak is near, three cells are used.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from keypoint_detection.codec.peak_shapes import measure_shapes
from keypoint_detection.codec.peaks import Peaks, find_peaks, keep_first_of_equals
from keypoint_detection.codec.subpixel import top_of_parabola
from keypoint_detection.types import NOT_LABELLED, Detections

# A Gaussian is drawn up to this many sigmas from its centre; beyond that it is below 2e-8, the rounding error of 1.
_REACH_SIGMAS = 6
# And at least this many cells: decoding looks two cells beyond a peak on the border.
_REACH_CELLS = 3
# Factor by which the candidates are increased if the first ones do not settle the result.
_GROWTH = 8


class NotFiniteError(ValueError):
    """Heatmaps contain NaN or infinity, as they do once training has diverged."""


def heatmap_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the (height, width) in cells of the heatmaps for an input of `size` (height, width) pixels."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


@torch.no_grad()
def encode(
    points: Tensor,
    visibility: Tensor,
    size: tuple[int, int],
    stride: int,
    sigma_px: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw points as Gaussian heatmaps; where several overlap, the highest counts.

    The Gaussians are computed in float32 and rounded to `dtype`. Values below 2e-8 are written as 0.

    Args:
        points: (B, C, K, 2) float, input pixels. For points outside the input, the part of the Gaussian that reaches
            into it is drawn. A labelled NaN makes cells of its heatmap NaN, so that it cannot go unnoticed.
        visibility: (B, C, K); where it is 0 (padding, not labelled), the point is ignored, whatever its value.
        size: (height, width) of the input in pixels.
        stride: input pixels per heatmap cell, along each axis.
        sigma_px: standard deviation of the Gaussians in input pixels.
        dtype: floating-point type of the heatmaps.

    Returns:
        (B, C, h, w) heatmaps in [0, 1] on the device of `points`, with h = ceil(height / stride), w likewise.
        A channel without labelled points is all zero.

    Raises:
        ValueError: if a shape or type, the size, the stride or sigma is invalid.

    >>> encode(torch.tensor([[[[2.5, 0.5]]]]), torch.tensor([[[2]]]), (1, 4), stride=1, sigma_px=1.0)[0, 0].tolist()
    [[0.1353352814912796, 0.6065306663513184, 1.0, 0.6065306663513184]]
    """
    _check_encoding(points, visibility, size, dtype)
    _check_scale(stride, sigma_px)
    B, C, K = visibility.shape
    height, width = heatmap_size(size, stride)
    maps = torch.zeros(B * C, height, width, dtype=dtype, device=points.device)
    labelled = visibility.reshape(B * C, K, 1) != NOT_LABELLED
    centres = torch.where(labelled, points.reshape(B * C, K, 2).float() / stride - 0.5, 0.0)
    columns, across = _gaussian_window(centres[..., 0], sigma_px / stride, width)
    rows, down = _gaussian_window(centres[..., 1], sigma_px / stride, height)
    down = torch.where(labelled, down, 0.0)
    every_map = torch.arange(B * C, device=points.device)[:, None, None]
    for k in range(K):
        window = (every_map, rows[:, k, :, None], columns[:, k, None, :])
        blob = (down[:, k, :, None] * across[:, k, None, :]).to(dtype)
        maps[window] = blob if k == 0 else torch.maximum(maps[window], blob)
    return maps.view(B, C, height, width)


def _gaussian_window(centres: Tensor, sigma: float, length: int) -> tuple[Tensor, Tensor]:
    """Return the (..., n) indices of the cells that 1-D Gaussians at `centres` reach, and their values there."""
    reach = max(math.ceil(_REACH_SIGMAS * sigma), _REACH_CELLS)
    n_cells = min(2 * reach + 1, length)
    first = centres.nan_to_num(0.0).round().sub(reach).clamp(0, length - n_cells)
    cells = first.long()[..., None] + torch.arange(n_cells, device=centres.device)
    return cells, torch.exp(-0.5 * ((cells - centres[..., None]) / sigma) ** 2)


@torch.no_grad()
def decode(
    heatmaps: Tensor,
    stride: int,
    *,
    max_keypoints: int,
    score_threshold: float,
    min_distance_px: float,
) -> Detections:
    """Find the peaks of heatmaps, to a fraction of a cell.

    A peak is a cell above the threshold that none of its eight neighbours exceeds; among equal neighbours, only the
    first by column, then row, counts. Its centre is the top of a parabola fitted to the logarithms of five cells per
    axis, clamped to the peak's cell; for two or four equal cells, that is their common centre. From the highest peak
    down, peaks too close to one already taken are dropped.

    Args:
        heatmaps: (B, C, h, w) probabilities in [0, 1], of any floating-point type.
        stride: input pixels per heatmap cell, along each axis.
        max_keypoints: detections kept per channel, the highest first; the D of the result.
        score_threshold: only peaks above it count.
        min_distance_px: no two detections of a channel are closer than this, in input pixels; 0 keeps all peaks.

    Returns:
        Points in input pixels and scores: the value of the heatmap in the peak's cell, descending, equal scores ordered
        by column, then row. Unused slots are all zero. `decode_plainly` defines the same computation in forty lines.

    Raises:
        ValueError: if the heatmaps hold NaN or inf, or an argument is out of range.

    >>> heatmap = torch.tensor([[[[0.1353353, 0.6065307, 1.0, 0.6065307]]]])
    >>> decode(heatmap, 4, max_keypoints=1, score_threshold=0.1, min_distance_px=0).points.tolist()
    [[[[10.0, 2.0]]]]
    """
    _check_heatmaps(heatmaps)
    _check_stride(stride)
    _check_peak_settings(max_keypoints, score_threshold, min_distance_px)
    shape = (*heatmaps.shape[:2], max_keypoints)
    maps = heatmaps.flatten(0, 1)  # (B*C, h, w)
    if len(maps) == 0:
        return Detections(torch.zeros(*shape, 2, device=maps.device), torch.zeros(shape, device=maps.device))
    spacing = min_distance_px / stride
    # On most heatmaps, a few more candidates than slots are enough.
    count = 2 * max_keypoints + _GROWTH
    peaks = find_peaks(maps, count, score_threshold)
    _check_finite(peaks.totals.view(heatmaps.shape[:2]))
    points, scores, is_open = _select(maps, peaks, max_keypoints, spacing)
    rows = is_open.nonzero().squeeze(1)
    while len(rows):
        count *= _GROWTH
        few = maps[rows]
        points[rows], scores[rows], is_open = _select(
            few, find_peaks(few, count, score_threshold), max_keypoints, spacing
        )
        rows = rows[is_open]
    return Detections((points * stride).view(*shape, 2), scores.view(shape))


class _Selection(NamedTuple):
    """The peaks kept: (N, D, 2) points in cells, (N, D) scores, (N,) whether further peaks could fill unused slots."""

    points: Tensor
    scores: Tensor
    is_open: Tensor


def _select(maps: Tensor, peaks: Peaks, max_keypoints: int, spacing: float) -> _Selection:
    """Take peaks from the highest down, none closer than `spacing` cells to one taken before."""
    peaks = keep_first_of_equals(maps, peaks)
    centres = _refine(maps, peaks)
    every_map = torch.arange(len(maps), device=maps.device)
    points = centres.new_zeros(len(maps), max_keypoints, 2)
    scores = centres.new_zeros(len(maps), max_keypoints)
    left = peaks.scores
    for slot in range(min(max_keypoints, left.shape[1])):
        scores[:, slot], best = left.max(1)  # the first among equals
        points[:, slot] = centres[every_map, best]
        distances = torch.linalg.vector_norm(centres - points[:, slot, None], dim=2)
        # Two peaks never share a point, so at spacing 0 only the one just taken is dropped.
        left = left * (distances > 0 if spacing == 0 else distances >= spacing)
    points.masked_fill_(scores[..., None] == 0, 0.0)
    return _Selection(points, scores, peaks.is_cut & (scores[:, -1] == 0))


def _refine(maps: Tensor, peaks: Peaks) -> Tensor:
    """Place peaks to a fraction of a cell: (N, M, 2) points in cells, (0.5, 0.5) the centre of the top-left cell."""
    height, width = maps.shape[1:]
    column, row = peaks.cells.unsqueeze(3).unbind(2)  # (N, M, 1) each
    every_map = torch.arange(len(maps), device=maps.device)[:, None, None]
    across = top_of_parabola(lambda columns: _logarithms(maps[every_map, row, columns]), column, width)
    down = top_of_parabola(lambda rows: _logarithms(maps[every_map, rows, column]), row, height)
    shifts = torch.stack([across, down], dim=2)
    return peaks.cells + 0.5 + shifts


def _logarithms(values: Tensor) -> Tensor:
    kind = torch.finfo(values.dtype)
    # A value that underflowed to 0 was no larger than the smallest number of its type.
    smallest = max(kind.smallest_normal * kind.eps, torch.finfo(torch.float32).tiny)
    return values.float().clamp(min=smallest).log()


def _check_encoding(points: Tensor, visibility: Tensor, size: tuple[int, int], dtype: torch.dtype) -> None:
    if points.ndim != 4 or points.shape[-1] != 2 or not points.is_floating_point():
        raise ValueError(
            f"points: expected floating-point (B, C, K, 2), found {points.dtype} of shape {tuple(points.shape)}"
        )
    if visibility.shape != points.shape[:-1]:
        raise ValueError(
            f"visibility: expected one flag per point, {tuple(points.shape[:-1])}, found {tuple(visibility.shape)}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected a positive (height, width) in pixels, found {tuple(size)}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point type for the heatmaps, found {dtype}")


def _check_scale(stride: int, sigma_px: float) -> None:
    _check_stride(stride)
    if not (sigma_px > 0 and math.isfinite(sigma_px)):
        raise ValueError(f"sigma_px: expected a positive number of input pixels, found {sigma_px}")


def _check_stride(stride: int) -> None:
    if stride < 1 or stride != int(stride):
        raise ValueError(f"stride: expected a whole number of pixels per heatmap cell, 1 or more, found {stride}")


def _check_peak_settings(max_keypoints: int, score_threshold: float, min_distance_px: float) -> None:
    if max_keypoints < 1:
        raise ValueError(f"max_keypoints: expected 1 or more detections per channel, found {max_keypoints}")
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold: expected a number from 0 to 1, found {score_threshold}")
    if not (min_distance_px >= 0 and math.isfinite(min_distance_px)):
        raise ValueError(f"min_distance_px: expected 0 or more input pixels, found {min_distance_px}")


def _check_heatmaps(heatmaps: Tensor) -> None:
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[2:] or not heatmaps.is_floating_point():
        raise ValueError(
            f"heatmaps: expected floating-point (B, C, h, w), found {heatmaps.dtype} of shape {tuple(heatmaps.shape)}"
        )


def _check_finite(totals: Tensor) -> None:
    """Refuse heatmaps by their (B, C) sums, which propagate NaN and inf."""
    bad = (~totals.isfinite()).nonzero().tolist()
    if bad:
        image, channel = bad[0]
        raise NotFiniteError(
            f"heatmaps: image {image}, channel {channel} contains NaN or inf ({len(bad)} of {totals.numel()} maps do); "
            "expected probabilities in [0, 1]. In training, this means that the loss diverged: lower the learning rate."
        )


@dataclass(frozen=True)
class HeatmapCodec:
    """Hold the settings that `encode` and `decode` must agree on, so that training and inference cannot drift apart.

    Attributes:
        stride: input pixels per heatmap cell.
        sigma_px: standard deviation of the Gaussians in input pixels.
        max_keypoints: detections kept per channel and image.
        score_threshold: only peaks above it count.
        min_distance_px: no two detections of a channel are closer than this, in input pixels.

    Raises:
        ValueError: if a field is out of range.
    """

    stride: int
    sigma_px: float
    max_keypoints: int
    score_threshold: float
    min_distance_px: float

    def __post_init__(self) -> None:
        _check_scale(self.stride, self.sigma_px)
        _check_peak_settings(self.max_keypoints, self.score_threshold, self.min_distance_px)

    def encode(self, points: Tensor, visibility: Tensor, size: tuple[int, int]) -> Tensor:
        """Draw (B, C, K, 2) points as heatmaps; see the function `encode`."""
        return encode(points, visibility, size, self.stride, self.sigma_px)

    def decode(self, heatmaps: Tensor) -> Detections:
        """Find the peaks of (B, C, h, w) heatmaps and their covariances; see `decode` and `measure_shapes`."""
        found = decode(
            heatmaps,
            self.stride,
            max_keypoints=self.max_keypoints,
            score_threshold=self.score_threshold,
            min_distance_px=self.min_distance_px,
        )
        # Most slots are unused; used ones come first.
        n_used = int((found.scores > 0).sum(-1).max()) if found.scores.numel() else 0
        shapes = found.points.new_zeros(*found.points.shape, 2)
        shapes[:, :, :n_used] = measure_shapes(heatmaps, found.points[:, :, :n_used], self.stride, self.sigma_px)
        return found._replace(covariances=shapes * (found.scores > 0)[..., None, None])
