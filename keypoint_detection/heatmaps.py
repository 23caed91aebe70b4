"""Turn points into heatmaps and heatmaps into points: the home of the pixel convention.

Coordinates are continuous: (0, 0) is the outer corner of the top-left input pixel and (0.5, 0.5) its centre. A heatmap
cell is a square of `stride` input pixels, so the centre of the cell in row j, column i lies at input pixel
((i + 0.5) * stride, (j + 0.5) * stride). No other module needs to know this.

A keypoint is a Gaussian of height 1 around the point itself, never around the nearest cell, as in Zhang et al. 2020,
"Distribution-aware coordinate representation for human pose estimation", https://arxiv.org/abs/1910.06278, section
3.2. Decoding differs from the Taylor step of their section 3.1: a parabola through the logarithm of three cells per
axis, which is exact for a Gaussian wherever its centre lies in the peak's cell, needs no smoothing of the heatmap, and
works at the border too, where the three cells lie on one side of the peak.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from keypoint_detection.types import NOT_LABELLED, Detections

__all__ = ["MAX_KEYPOINTS", "MIN_DISTANCE_PX", "SCORE_THRESHOLD", "HeatmapCodec", "decode", "encode", "heatmap_size"]

MAX_KEYPOINTS = 20
SCORE_THRESHOLD = 0.01
# About the sigma of training: closer peaks are more often two bumps on one noisy top than two points.
MIN_DISTANCE_PX = 3.0

# A Gaussian is written up to this many sigmas from its centre: beyond, it is below 2e-8, the rounding of 1.
_REACH_SIGMAS = 6
# And to this many cells at least: decoding looks two cells beyond a peak on the border.
_REACH_CELLS = 3
# Cells that decoding works on at a time, so that its buffers stay in the processor's cache.
_CELLS_AT_A_TIME = 2**19
# Cells of a column whose largest peak stands for them in the first round of the search for the highest peaks.
_STRIP = 8
# How many more candidates are fetched when the first ones did not decide the result.
_GROWTH = 8
# The lower part of a sorting key numbers the cells; the bits of a float stand above it.
_NUMBER_BITS = 31
_LAST_NUMBER = 2**_NUMBER_BITS - 1


def heatmap_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Give the (height, width) in cells of the heatmaps of an input of `size` (height, width) pixels."""
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
    """Draw points as Gaussian heatmaps; where several reach a cell, the highest counts.

    The Gaussians are computed in float32 and rounded to `dtype`. Values below 2e-8 are written as 0.

    Args:
        points: (B, C, K, 2) float, input pixels. Points outside the input draw what reaches into it. A labelled NaN
            makes cells of its heatmap NaN, so that it cannot pass unseen.
        visibility: (B, C, K); where 0 (padding, not labelled), the point is ignored, whatever it holds.
        size: (height, width) of the input in pixels.
        stride: Input pixels per heatmap cell, along each axis.
        sigma_px: Standard deviation of the Gaussians in input pixels.
        dtype: Floating-point type of the heatmaps.

    Returns:
        (B, C, h, w) heatmaps in [0, 1] on the device of `points`, with h = ceil(height / stride), w likewise.
        A channel without labelled points is all zero.

    Raises:
        ValueError: If a shape, type, the size, the stride or sigma is none that can be drawn.

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
    """Give the (..., n) indices of the cells that 1-D Gaussians at `centres` reach, and their values there."""
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
    max_keypoints: int = MAX_KEYPOINTS,
    score_threshold: float = SCORE_THRESHOLD,
    min_distance_px: float = MIN_DISTANCE_PX,
) -> Detections:
    """Find the peaks of heatmaps, to a fraction of a cell.

    A peak is a cell above the threshold that none of its eight neighbours exceeds. Its centre is the top of the
    parabola through the logarithms of three cells per axis, held within the peak's cell. A plateau (connected cells of
    one value without a higher neighbour) is one peak at its centre of mass, or at its cell nearest to that where the
    centre of mass lies outside (a U). From the highest peak down, peaks too close to one already taken are dropped.

    Args:
        heatmaps: (B, C, h, w) probabilities in [0, 1], of any floating-point type.
        stride: Input pixels per heatmap cell, along each axis.
        max_keypoints: Detections kept per channel, the highest first; the D of the result.
        score_threshold: Only peaks above it count.
        min_distance_px: No two detections of a channel are closer than this, in input pixels; 0 keeps all peaks.

    Returns:
        Points in input pixels and scores: the value of the heatmap in the peak's cell, descending, equal scores
        ordered by column, then row. Unused slots are all zero.

    Raises:
        ValueError: If the heatmaps hold NaN or inf, or an argument is out of range.

    >>> decode(torch.tensor([[[[0.1353353, 0.6065307, 1.0, 0.6065307]]]]), stride=4, max_keypoints=1).points.tolist()
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
    # On most heatmaps, few more candidates than slots decide.
    count = 2 * max_keypoints + _GROWTH
    peaks = _find_peaks(maps, count, score_threshold, with_plateaus=False)
    points, scores, is_open = _select(maps, peaks, max_keypoints, spacing)
    is_open |= _has_plateaus(maps, peaks)
    _check_finite(peaks.totals.view(heatmaps.shape[:2]))
    rows = is_open.nonzero().squeeze(1)
    while len(rows):
        count *= _GROWTH
        few = maps[rows]
        peaks = _find_peaks(few, count, score_threshold, with_plateaus=True)
        points[rows], scores[rows], is_open = _select(few, peaks, max_keypoints, spacing)
        rows = rows[is_open]
    return Detections((points * stride).view(*shape, 2), scores.view(shape))


class _Peaks(NamedTuple):
    """The highest peaks of N maps, by falling score, then by column, then by row.

    Attributes:
        scores: (N, M) float32, 0 in slots without a peak.
        cells: (N, M, 2) int64, (column, row).
        shifts: (N, M, 2) the way from the cell's centre to the plateau's, in cells; NaN along axes without a plateau.
        totals: (N,) sums over cells, finite where all of a map is.
        is_cut: (N,) bool, whether lower peaks may have been left out.
    """

    scores: Tensor
    cells: Tensor
    shifts: Tensor
    totals: Tensor
    is_cut: Tensor


class _Selection(NamedTuple):
    """What is left of the peaks: (N, D, 2) points in cells, (N, D) scores, (N,) whether more peaks could fill slots."""

    points: Tensor
    scores: Tensor
    is_open: Tensor


def _find_peaks(maps: Tensor, count: int, threshold: float, with_plateaus: bool) -> _Peaks:
    """Find the `count` highest peaks above the threshold of each of (N, h, w) maps, or all there can be.

    With plateaus, one cell stands for each; without, their cells come one by one, those beside a higher cell too.
    """
    N, height, width = maps.shape
    few = min(N, max(1, _CELLS_AT_A_TIME // (height * width)))
    # A frame below every probability isolates the maps, so that all work can run along one flat line of cells. The
    # three buffers serve one handful of maps after another: fresh memory would cost as much as the work itself.
    rows = math.ceil(height / _STRIP) * _STRIP + 2
    levels = torch.full((few, rows, width + 2), -1.0, device=maps.device)
    buffers = torch.empty(2, levels.numel(), device=maps.device)
    found = []
    for part in torch.split(maps, few):
        levels[: len(part), 1 : height + 1, 1:-1] = part
        found.append(_find_framed(levels[: len(part)], buffers, count, threshold, with_plateaus))
    scores, cells, shifts, totals, is_cut = (torch.cat(parts) for parts in zip(*found, strict=True))
    n_most = int((scores > 0).sum(1).amax())
    return _Peaks(scores[:, :n_most], cells[:, :n_most], shifts[:, :n_most], totals, is_cut)


def _find_framed(levels: Tensor, buffers: Tensor, count: int, threshold: float, with_plateaus: bool) -> _Peaks:
    """Do the work of `_find_peaks` on maps in a frame one cell wide, filled up below to whole strips of rows."""
    N, line = len(levels), levels.shape[2]
    n_strips = levels.shape[1] // _STRIP
    every_map = torch.arange(N, device=levels.device)[:, None]
    peaks = _keep_local_maxima(levels.view(-1), line, buffers)
    shifts = _merge_plateaus(levels.view(-1), peaks, line, threshold) if with_plateaus else None
    peaks = peaks.view_as(levels)[:, 1:-1]

    # First the strips with the highest peaks, then the highest peaks of those. Both are numbered by columns, so that
    # equal ones are taken in the same order.
    strips = peaks.view(N, n_strips, _STRIP, line).amax(2)  # (N, n_strips, line)
    strip = _highest(strips.mT.flatten(1), torch.arange(n_strips * line, device=levels.device), count)[1]
    column = (strip // n_strips)[..., None].expand(-1, -1, _STRIP).flatten(1)
    row = (strip % n_strips * _STRIP)[..., None] + torch.arange(_STRIP, device=levels.device)
    row = row.flatten(1)  # (N, strips * _STRIP)
    scores = peaks[every_map, row, column]
    scores, cell = _highest(scores, column * (n_strips * _STRIP) + row, count)
    column, row = cell // (n_strips * _STRIP), cell % (n_strips * _STRIP)
    if shifts is None:
        chosen = scores.new_full((*scores.shape, 2), math.nan)
    else:
        chosen = shifts.view(*levels.shape, 2)[every_map, row + 1, column]
    is_peak = scores > threshold
    is_cut = is_peak[:, -1] & (scores.shape[1] < peaks[0].numel())
    cells = torch.stack([column - 1, row], dim=2).where(is_peak[..., None], 0)
    return _Peaks(scores.where(is_peak, 0.0), cells, chosen, strips.flatten(1).sum(1), is_cut)


def _highest(scores: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Give the `count` highest of (N, n) scores and their numbers, by falling score, then by number."""
    # Whole numbers that sort that way, whatever the device: the bits of non-negative floats sort as the floats do.
    keys = (scores.clamp(min=0.0).contiguous().view(torch.int32).long() << _NUMBER_BITS) + (_LAST_NUMBER - numbers)
    keys = keys.topk(min(count, keys.shape[1])).values
    return (keys >> _NUMBER_BITS).int().view(torch.float32), _LAST_NUMBER - (keys & _LAST_NUMBER)


def _keep_local_maxima(levels: Tensor, line: int, buffers: Tensor) -> Tensor:
    """Keep the cells that no neighbour exceeds, of framed maps laid in one line of cells.

    Args:
        levels: (n,) values of the maps.
        line: Cells per row.
        buffers: (2, n or more), overwritten; the result lies in the first.

    Returns:
        (n,) the values of the cells kept, 0 in others; NaN or inf wherever the maps are neither.
    """
    # Maxima over 3x3 cells as four maxima of shifted lines, between two buffers: many times as fast as pooling.
    one, other = buffers[0, : len(levels)], buffers[1, : len(levels)]
    torch.maximum(levels[:-1], levels[1:], out=one[:-1])
    torch.maximum(one[:-2], one[1:-1], out=other[:-2])  # of three cells in a row, the middle one at +1
    torch.maximum(other[: -2 - line], other[line:-2], out=one[: -2 - line])
    highest = torch.maximum(one[: -2 - 2 * line], one[line : -2 - line], out=other[: -2 - 2 * line])
    inner = slice(line + 1, -line - 1)
    peaks = one
    peaks[: line + 1] = 0
    peaks[-line - 1 :] = 0
    torch.eq(levels[inner], highest, out=peaks[inner])
    return peaks.mul_(levels)


def _select(maps: Tensor, peaks: _Peaks, max_keypoints: int, spacing: float) -> _Selection:
    """Take peaks from the highest down, none closer than `spacing` cells to one taken before."""
    centres = _refine(maps, peaks)
    every_map = torch.arange(len(maps), device=maps.device)
    points = centres.new_zeros(len(maps), max_keypoints, 2)
    scores = centres.new_zeros(len(maps), max_keypoints)
    left = peaks.scores
    for slot in range(min(max_keypoints, left.shape[1])):
        scores[:, slot], best = left.max(1)  # the first of equal ones
        points[:, slot] = centres[every_map, best]
        distances = torch.linalg.vector_norm(centres - points[:, slot, None], dim=2)
        # Two peaks never share a point, so at spacing 0 only the one just taken leaves.
        left = left * (distances > 0 if spacing == 0 else distances >= spacing)
    points.masked_fill_(scores[..., None] == 0, 0.0)
    return _Selection(points, scores, peaks.is_cut & (scores[:, -1] == 0))


def _refine(maps: Tensor, peaks: _Peaks) -> Tensor:
    """Place peaks to a fraction of a cell: (N, M, 2) points in cells, (0.5, 0.5) the centre of the top-left cell."""
    height, width = maps.shape[1:]
    column, row = peaks.cells.unsqueeze(3).unbind(2)  # (N, M, 1) each
    columns, rows = _three_cells(column, width), _three_cells(row, height)
    every_map = torch.arange(len(maps), device=maps.device)[:, None, None]
    across = _top_of_parabola(maps[every_map, row, columns], columns - column)
    down = _top_of_parabola(maps[every_map, rows, column], rows - row)
    shifts = torch.stack([across, down], dim=2)
    return peaks.cells + 0.5 + shifts.where(peaks.shifts.isnan(), peaks.shifts)


def _three_cells(cell: Tensor, length: int) -> Tensor:
    """Give a cell and its two neighbours along an axis; at its ends the cell and the two next to it on one side."""
    n_cells = min(3, length)
    return (cell - 1).clamp(0, length - n_cells) + torch.arange(n_cells, device=cell.device)


def _top_of_parabola(values: Tensor, places: Tensor) -> Tensor:
    """Place the top of a parabola through the logarithms of three values, at most half a cell from place 0.

    Args:
        values: (..., 3); with fewer than three, the top is at 0.
        places: (..., 3) successive whole numbers.
    """
    if values.shape[-1] < 3:
        return torch.zeros(values.shape[:-1], device=values.device)
    kind = torch.finfo(values.dtype)
    # What has vanished was at most the smallest number of its type.
    smallest = max(kind.smallest_normal * kind.eps, torch.finfo(torch.float32).tiny)
    before, middle, after = values.float().clamp(min=smallest).log().unbind(-1)
    bend = before - 2 * middle + after
    top = places[..., 1] + 0.5 * (before - after) / bend
    return top.where(bend < 0, 0.0).clamp(-0.5, 0.5)


def _has_plateaus(maps: Tensor, peaks: _Peaks) -> Tensor:
    """Tell for each map whether one of its peaks has a neighbour of the same value; (N,) bool."""
    height, width = maps.shape[1:]
    column, row = peaks.cells[..., None, None].unbind(2)  # (N, M, 1, 1) each
    step = torch.arange(-1, 2, device=maps.device)
    columns, rows = (column + step).clamp(0, width - 1), (row + step[:, None]).clamp(0, height - 1)
    around = maps[torch.arange(len(maps), device=maps.device)[:, None, None, None], rows, columns].float()
    scores = peaks.scores[..., None, None]
    is_equal = (around == scores) & (scores > 0) & ((columns != column) | (rows != row))
    return is_equal.flatten(1).any(1)


def _merge_plateaus(levels: Tensor, peaks: Tensor, line: int, threshold: float) -> Tensor:
    """Leave one cell of each plateau in `peaks`, and none of flat ground beside a higher cell.

    Args:
        levels: (n,) values of framed maps, laid in one line of cells.
        peaks: (n,) the same with 0 in every cell that has a higher neighbour; changed in place.
        line: Cells per row.
        threshold: Cells not above it are left alone.

    Returns:
        (n, 2) the way from each cell that stands for a plateau to the plateau's centre, in cells; NaN along axes in
        which the plateau is one cell wide, and in all other cells.
    """
    shifts = levels.new_full((len(levels), 2), math.nan)
    forward = torch.tensor([1, line - 1, line, line + 1], device=levels.device)
    cells = (peaks > threshold).nonzero()  # (n, 1)
    around = cells + torch.cat([forward, -forward])  # (n, 8)
    is_equal = levels[around] == levels[cells]
    is_flat = is_equal.any(1)
    cells, around, is_equal = cells[is_flat], around[is_flat], is_equal[is_flat]
    if len(cells) == 0:
        return shifts
    is_joined = peaks[around] == levels[cells]
    numbers = torch.zeros_like(levels, dtype=torch.int64)
    numbers[cells.squeeze(1)] = torch.arange(len(cells), device=levels.device)
    start, step = is_joined[:, : len(forward)].nonzero(as_tuple=True)
    plateau = _connect(start, numbers[around[start, step]], len(cells))
    # A neighbour of the same value that is not in `peaks` has a higher neighbour: this flat ground is no peak.
    is_slope = _reduce((is_equal & ~is_joined).any(1).long(), plateau, "amax") > 0
    cells = cells.squeeze(1)
    keeper, shift = _centre(torch.stack([cells % line, cells // line], dim=1), plateau)
    kept = cells[keeper[~is_slope]]
    peaks[cells] = 0
    peaks[kept] = levels[kept]
    shifts[kept] = shift[~is_slope]
    return shifts


def _connect(starts: Tensor, ends: Tensor, count: int) -> Tensor:
    """Number the connected components of a graph of `count` nodes with these edges: (count,) int64, without gaps."""
    nodes = torch.arange(count, device=starts.device)
    root = nodes  # the lowest node of its component that a node knows
    while not torch.equal(one := root[starts], other := root[ends]):
        lower = torch.minimum(one, other)
        root = root.scatter_reduce(0, torch.cat([one, other]), torch.cat([lower, lower]), "amin")
        while not torch.equal(root, further := root[root]):
            root = further
    return ((root == nodes).cumsum(0) - 1)[root]


def _centre(xy: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Find the middle of groups of cells.

    Args:
        xy: (n, 2) int64 positions of the cells.
        group: (n,) the group of each.

    Returns:
        The index of the cell nearest to each group's centre of mass, and the way from there to the centre of mass,
        (groups, 2): 0 where that lies in no cell of the group, NaN along axes in which the group is one cell wide.
    """
    size = group.bincount()[:, None]
    # Sums of whole numbers come out the same in any order, so on every device.
    total = torch.stack([_reduce(axis, group, "sum") for axis in xy.unbind(1)], dim=1)
    way = (total[group] - xy * size[group]) / size[group].double()
    distance = way.square().sum(1)
    is_nearest = distance == _reduce(distance, group, "amin")[group]
    index = torch.arange(len(xy), device=xy.device)
    keeper = _reduce(index.where(is_nearest, len(xy)), group, "amin")
    way = way[keeper]
    way = way.where(way.abs().amax(1, keepdim=True) <= 0.5, 0.0)
    is_wide = torch.stack([_reduce(axis, group, "amin") < _reduce(axis, group, "amax") for axis in xy.unbind(1)], dim=1)
    return keeper, way.where(is_wide, math.nan).float()


def _reduce(values: Tensor, group: Tensor, how: str) -> Tensor:
    """Reduce (n,) values over each group of a numbering without gaps."""
    n_groups = int(group.max()) + 1
    return values.new_zeros(n_groups).scatter_reduce(0, group, values, how, include_self=False)


def _check_encoding(points: Tensor, visibility: Tensor, size: tuple[int, int], dtype: torch.dtype) -> None:
    if points.ndim != 4 or points.shape[-1] != 2 or not points.is_floating_point():
        raise ValueError(
            f"points: expected floating-point (B, C, K, 2), found {points.dtype} of shape {tuple(points.shape)}"
        )
    if visibility.shape != points.shape[:-1]:
        raise ValueError(
            f"visibility: expected shape {tuple(points.shape[:-1])}, one flag a point, found {tuple(visibility.shape)}"
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
    """Refuse heatmaps by their (B, C) sums, which NaN and inf pass on."""
    bad = (~totals.isfinite()).nonzero().tolist()
    if bad:
        image, channel = bad[0]
        raise ValueError(
            f"heatmaps: image {image}, channel {channel} holds NaN or inf ({len(bad)} of {totals.numel()} maps do); "
            "expected probabilities in [0, 1]. In training, this is a loss that diverged: lower the learning rate."
        )


@dataclass(frozen=True)
class HeatmapCodec:
    """Keep what `encode` and `decode` must agree on, so that training and inference cannot drift apart.

    Attributes:
        stride: Input pixels per heatmap cell.
        sigma_px: Standard deviation of the Gaussians in input pixels.
        max_keypoints: Detections kept per channel and image.
        score_threshold: Only peaks above it count.
        min_distance_px: No two detections of a channel are closer than this, in input pixels.

    Raises:
        ValueError: If a field is out of range.
    """

    stride: int
    sigma_px: float
    max_keypoints: int = MAX_KEYPOINTS
    score_threshold: float = SCORE_THRESHOLD
    min_distance_px: float = MIN_DISTANCE_PX

    def __post_init__(self) -> None:
        _check_scale(self.stride, self.sigma_px)
        _check_peak_settings(self.max_keypoints, self.score_threshold, self.min_distance_px)

    def encode(
        self, points: Tensor, visibility: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw (B, C, K, 2) points as heatmaps; see the function `encode`."""
        return encode(points, visibility, size, self.stride, self.sigma_px, dtype)

    def decode(self, heatmaps: Tensor) -> Detections:
        """Find the peaks of (B, C, h, w) heatmaps; see the function `decode`."""
        return decode(
            heatmaps,
            self.stride,
            max_keypoints=self.max_keypoints,
            score_threshold=self.score_threshold,
            min_distance_px=self.min_distance_px,
        )
