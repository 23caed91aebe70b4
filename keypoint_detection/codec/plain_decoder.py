"""The definition of decoding, in plain operations on tensors that can be traced and exported.

`heatmaps.decode` computes the same result several times faster, in ways that no exporter can follow; tests hold it to
this definition. The two differ only for probabilities so close to 1 that float32 rounds them to 1, while their logits
still differ.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from keypoint_detection.codec.subpixel import top_of_parabola
from keypoint_detection.types import Detections

# This many candidates per slot suffice: around a peak there is room for eight others that it suppresses.
_CANDIDATES_PER_SLOT = 9
# Chains of peaks, each of which would suppress the next, are followed up to this length.
_N_ROUNDS = 8


def decode_plainly(
    logits: Tensor, stride: int, *, max_keypoints: int, score_threshold: float, min_distance_px: float
) -> Detections:
    """Find the peaks of heatmaps given as logits; returns what `heatmaps.decode` returns.

    Args:
        logits: (B, C, h, w) of any size from three cells per side; `sigmoid` makes them probabilities.
        stride: input pixels per heatmap cell, along each axis.
        max_keypoints: detections kept per channel, the D of the result.
        score_threshold: only peaks above it count.
        min_distance_px: no two detections of a channel are closer than this, in input pixels.

    Returns:
        Points in input pixels and scores, descending; unused slots are all zero.
    """
    B, C, height, width = logits.shape
    maps = logits.flatten(0, 1).float()  # (N, h, w)
    # Pooling pads with minus infinity, so that cells on the border count.
    is_peak = (maps == F.max_pool2d(maps, 3, stride=1, padding=1)) & (maps > _logit(score_threshold))
    # Among equal neighbours, the first by column, then row, counts: one in the column to the left, or the one above.
    framed = F.pad(maps, (1, 1, 1, 1), value=-torch.inf)
    left = torch.maximum(torch.maximum(framed[:, :-2, :-2], framed[:, 1:-1, :-2]), framed[:, 2:, :-2])
    is_peak &= maps > torch.maximum(left, framed[:, :-2, 1:-1])
    candidates = maps.masked_fill(~is_peak, -torch.inf).mT.flatten(1)  # numbered by column, then row
    n_candidates = torch.sym_min(_CANDIDATES_PER_SLOT * max_keypoints, height * width)
    peaks, cells = candidates.topk(n_candidates)  # (N, M)
    column = (cells // height)[..., None]
    row = cells[..., None] - height * column  # exporters cannot compute the remainder of a dynamic size
    logs = F.logsigmoid(maps)

    def read(columns: Tensor, rows: Tensor) -> Tensor:
        index = (rows * width + columns).flatten(1)
        return logs.flatten(1).gather(1, index).view(*cells.shape, -1)

    across = top_of_parabola(lambda columns: read(columns, row.expand_as(columns)), column, width)
    down = top_of_parabola(lambda rows: read(column.expand_as(rows), rows), row, height)
    points = stride * (torch.cat([column, row], dim=2) + 0.5 + torch.stack([across, down], dim=2))  # (N, M, 2)

    distances = torch.linalg.vector_norm(points[:, :, None] - points[:, None], dim=3)
    suppresses = (distances < min_distance_px).tril(-1)  # (N, M, M): the column, which is higher, suppresses the row
    is_real = peaks > -torch.inf
    is_kept = is_real
    for _ in range(_N_ROUNDS):
        is_kept = is_real & ~(suppresses & is_kept[:, None]).any(2)

    order = torch.arange(n_candidates, device=maps.device)
    # Those kept come first, in order; with fewer candidates than slots, some slots stay unused.
    slots = torch.sym_min(max_keypoints, n_candidates)
    first = torch.where(is_kept, -order, -order - n_candidates).topk(slots).indices  # (N, D)
    is_used = is_kept.gather(1, first)
    scores = peaks.gather(1, first).sigmoid().masked_fill(~is_used, 0.0)
    chosen = points.gather(1, first[..., None].expand(-1, -1, 2)).masked_fill(~is_used[..., None], 0.0)
    missing: Any = max_keypoints - slots
    return Detections(
        F.pad(chosen, (0, 0, 0, missing)).view(B, C, max_keypoints, 2),
        F.pad(scores, (0, missing)).view(B, C, max_keypoints),
    )


def _logit(probability: float) -> float:
    return -math.inf if probability <= 0 else math.log(probability) - math.log1p(-probability)
