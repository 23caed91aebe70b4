"""Find the peaks of many heatmaps at once, in whole cells.

A peak is a cell that none of its eight neighbours exceeds, or a plateau: connected cells of one value without a higher
neighbour. The search reads each heatmap once, in a few passes over blocks that stay in the processor's cache; the rare
heatmaps with plateaus are searched again, with the cells of each plateau merged into one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Peaks", "find_peaks", "has_plateaus"]

# Cells that decoding works on at a time, so that its buffers stay in the processor's cache.
_CELLS_AT_A_TIME = 2**20
# Cells of a column whose largest peak stands for them in the first round of the search for the highest peaks.
_STRIP = 16
# The lower part of a sorting key numbers the cells; the bits of a float stand above it.
_NUMBER_BITS = 31
_LAST_NUMBER = 2**_NUMBER_BITS - 1


class Peaks(NamedTuple):
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


def find_peaks(maps: Tensor, count: int, threshold: float, with_plateaus: bool) -> Peaks:
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
    return Peaks(scores[:, :n_most], cells[:, :n_most], shifts[:, :n_most], totals, is_cut)


def _find_framed(levels: Tensor, buffers: Tensor, count: int, threshold: float, with_plateaus: bool) -> Peaks:
    """Do the work of `find_peaks` on maps in a frame one cell wide, filled up below to whole strips of rows."""
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
    return Peaks(scores.where(is_peak, 0.0), cells, chosen, strips.flatten(1).sum(1), is_cut)


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


def has_plateaus(maps: Tensor, peaks: Peaks) -> Tensor:
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
    below = torch.tensor([line - 1, line, line + 1], device=levels.device)
    cells = (peaks > threshold).nonzero()  # (n, 1)
    around = cells + torch.cat([below, -below, below.new_tensor([-1, 1])])  # (n, 8)
    is_equal = levels[around] == levels[cells]
    is_flat = is_equal.any(1)
    cells, around, is_equal = cells[is_flat], around[is_flat], is_equal[is_flat]
    if len(cells) == 0:
        return shifts
    is_joined = peaks[around] == levels[cells]
    numbers = torch.zeros_like(levels, dtype=torch.int64)
    numbers[cells.squeeze(1)] = torch.arange(len(cells), device=levels.device)
    # Runs of cells along a row are joined by counting, and two runs by their first contact.
    below_left, straight_below, below_right, left = is_joined[:, [0, 1, 2, 6]].unbind(1)
    run = (~left).cumsum(0) - 1
    is_first = ~(left & straight_below.roll(1))
    contacts = [below_left & ~straight_below, straight_below & is_first, below_right & ~straight_below]
    start, step = torch.stack(contacts, dim=1).nonzero(as_tuple=True)
    plateau = _connect(run[start], run[numbers[around[start, step]]], int(run[-1]) + 1)[run]
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
