"""Locate a peak to a fraction of a cell, for both the fast decoder and its definition."""

from collections.abc import Callable

import torch
from torch import Tensor

# How far, in logarithms, noise may lift a peak's flank above the parabola through its three highest cells. A network's
# noise seldom exceeds it; another peak less than five cells away does.
_EXCESS = 0.2


def top_of_parabola(read: Callable[[Tensor], Tensor], cell: Tensor, length: int) -> Tensor:
    """Place the top of a parabola fitted to cells along an axis, at most half a cell from the peak.

    Two parabolas give the slope and the bend: through the peak and the cells beside it (at an end of the axis, the
    three outermost cells), and through the peak and the cells two away. Each is weighted by the cells it is based on.

    Args:
        read: returns the logarithms of (N, M, n) cells of the axis.
        cell: (N, M, 1) the positions of the peaks.
        length: cells of the axis; with fewer than three, the top is in the middle of the peak's cell.

    Returns:
        (N, M) the offset from the middle of the peak's cell, in cells.
    """
    if length < 3:
        return torch.zeros(cell.shape[:-1], device=cell.device)
    near = (cell - 1).clamp(0, length - 3) + torch.arange(3, device=cell.device)
    before, middle, after = read(near).unbind(-1)
    slope, bend = (after - before) / 2, 2 * middle - before - after
    far = cell + torch.tensor([-2, 2], device=cell.device)
    far_before, far_after = read(far.clamp(0, length - 1)).unbind(-1)
    # Distant cells well above the parabola belong to another peak; there are none beyond the end of the axis.
    excess = torch.maximum(far_before + 2 * slope, far_after - 2 * slope) - (middle - 2 * bend)
    falls = (far_before < before) & (far_after < after)
    is_one_peak = falls & (excess < _EXCESS) & ((far >= 0) & (far < length)).all(-1)
    weight = (far_before + far_after - before - after).exp().where(is_one_peak, 0.0)
    slope = slope + weight * (far_after - far_before)
    bend = bend + weight * (2 * middle - far_before - far_after)
    top = near[..., 1] - cell.squeeze(-1) + slope / bend
    return top.where(bend > 0, 0.0).clamp(-0.5, 0.5)
