"""Find the peaks of many heatmaps together, in whole cells.

A peak is a cell that none of its eight neighbours exceeds and that exceeds those before it by column, then by row: of
two equal neighbours, the first is the peak. The search reads each heatmap once, in a few passes over blocks that stay
in the processor's cache; ties are then resolved among the few peaks found.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Number of cells decoded at a time, so that the buffers stay in the processor's cache.
_CELLS_AT_A_TIME = 2**20
# Cells of a column represented by their largest peak in the first round of the search for the highest peaks.
_STRIP = 16
# The lower part of a sorting key is the cell number; the upper part holds the bits of a float.
_NUMBER_BITS = 31
_LAST_NUMBER = 2**_NUMBER_BITS - 1


class Peaks(NamedTuple):
    """The highest peaks of N maps, by descending score, then by column, then by row.

    Attributes:
        scores: (N, M) float32, 0 in slots without a peak.
        cells: (N, M, 2) int64, (column, row).
        totals: (N,) sums over cells; finite if the whole map is.
        is_cut: (N,) bool; whether lower peaks may have been left out.
    """

    scores: Tensor
    cells: Tensor
    totals: Tensor
    is_cut: Tensor


def find_peaks(maps: Tensor, count: int, threshold: float) -> Peaks:
    """Find the `count` highest cells above the threshold that no neighbour exceeds, in each of (N, h, w) maps."""
    N, height, width = maps.shape
    few = min(N, max(1, _CELLS_AT_A_TIME // (height * width)))
    # A frame lower than every probability separates the maps, so that all work can run along one flat line of cells.
    # The three buffers are reused for every few maps: fresh memory would cost as much as the work itself.
    rows = math.ceil(height / _STRIP) * _STRIP + 2
    levels = torch.full((few, rows, width + 2), -1.0, device=maps.device)
    buffers = torch.empty(2, levels.numel(), device=maps.device)
    found = []
    for part in torch.split(maps, few):
        levels[: len(part), 1 : height + 1, 1:-1] = part
        found.append(_find_framed(levels[: len(part)], buffers, count, threshold))
    scores, cells, totals, is_cut = (torch.cat(parts) for parts in zip(*found, strict=True))
    n_used = int((scores > 0).sum(1).amax())
    return Peaks(scores[:, :n_used], cells[:, :n_used], totals, is_cut)


def _find_framed(levels: Tensor, buffers: Tensor, count: int, threshold: float) -> Peaks:
    """Do the work of `find_peaks` on maps in a frame one cell wide, padded at the bottom to whole strips of rows."""
    N, line = len(levels), levels.shape[2]
    n_strips = levels.shape[1] // _STRIP
    every_map = torch.arange(N, device=levels.device)[:, None]
    peaks = _keep_local_maxima(levels.view(-1), line, buffers).view_as(levels)[:, 1:-1]

    # First the strips with the highest peaks, then their highest peaks. Both are numbered column by column, so that
    # ties are taken in the same order.
    strips = peaks.view(N, n_strips, _STRIP, line).amax(2)  # (N, n_strips, line)
    strip = _highest(strips.mT.flatten(1), torch.arange(n_strips * line, device=levels.device), count)[1]
    column = (strip // n_strips)[..., None].expand(-1, -1, _STRIP).flatten(1)
    row = (strip % n_strips * _STRIP)[..., None] + torch.arange(_STRIP, device=levels.device)
    row = row.flatten(1)  # (N, strips * _STRIP)
    scores = peaks[every_map, row, column]
    scores, cell = _highest(scores, column * (n_strips * _STRIP) + row, count)
    column, row = cell // (n_strips * _STRIP), cell % (n_strips * _STRIP)
    is_peak = scores > threshold
    is_cut = is_peak[:, -1] & (scores.shape[1] < peaks[0].numel())
    cells = torch.stack([column - 1, row], dim=2).where(is_peak[..., None], 0)
    return Peaks(scores.where(is_peak, 0.0), cells, strips.flatten(1).sum(1), is_cut)


def _highest(scores: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest of (N, n) scores and their numbers, by descending score, then by number."""
    # Integers sort that way on every device, and the bits of non-negative floats sort as the floats do.
    keys = (scores.clamp(min=0.0).contiguous().view(torch.int32).long() << _NUMBER_BITS) + (_LAST_NUMBER - numbers)
    keys = keys.topk(min(count, keys.shape[1])).values
    return (keys >> _NUMBER_BITS).int().view(torch.float32), _LAST_NUMBER - (keys & _LAST_NUMBER)


def _keep_local_maxima(levels: Tensor, line: int, buffers: Tensor) -> Tensor:
    """Keep the cells that no neighbour exceeds, in framed maps laid out as one line of cells.

    Args:
        levels: (n,) values of the maps.
        line: cells per row.
        buffers: (2, n or more), overwritten; the result is in the first.

    Returns:
        (n,) the values of the cells kept, 0 in all others; not finite wherever the maps are not.
    """
    # Maxima over 3x3 cells as four maxima of shifted lines, between two buffers: many times faster than pooling.
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


def keep_first_of_equals(maps: Tensor, peaks: Peaks) -> Peaks:
    """Drop peaks beside an equal cell that comes before them by column, then row; see `find_peaks`."""
    height = maps.shape[1]
    column, row = peaks.cells[..., None].unbind(2)  # (N, M, 1) each
    columns, rows = column + column.new_tensor([-1, -1, -1, 0]), row + row.new_tensor([-1, 0, 1, -1])
    is_inside = (columns >= 0) & (rows >= 0) & (rows < height)
    every_map = torch.arange(len(maps), device=maps.device)[:, None, None]
    before = maps[every_map, rows.clamp(0, height - 1), columns.clamp(min=0)].float()
    scores = peaks.scores.where(~(is_inside & (before == peaks.scores[..., None])).any(2), 0.0)
    order = (scores == 0).sort(dim=1, stable=True).indices[:, : int((scores > 0).sum(1).amax())]
    return peaks._replace(scores=scores.gather(1, order), cells=peaks.cells.take_along_dim(order[..., None], 1))
