"""Losses between predicted logits and Gaussian target heatmaps, one number per heatmap."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from keypoint_detection.codec.votes import VoteTargets
from keypoint_detection.models.network import VOTE_SCALE_PX

LossName = Literal["bce", "mse", "focal"]

# Errors of votes below this many input pixels count quadratically, larger ones linearly.
VOTE_KNEE_PX = 4.0
# The exponent of the focal weight, as in Li et al. 2020, section 4.
FOCAL_BETA = 2.0


def heatmap_loss(name: LossName, logits: Tensor, targets: Tensor) -> Tensor:
    """Compare logits with target heatmaps, map by map.

    `bce` is the binary cross-entropy, `mse` the squared error of the probabilities, and `focal` the quality focal loss
    for soft targets (Li et al. 2020, https://arxiv.org/abs/2006.04388, equation 1): the cross-entropy weighted by the
    squared error. All are computed in float32.

    Args:
        name: which loss.
        logits: (B, C, h, w) of any float type.
        targets: (B, C, h, w) in [0, 1].

    Returns:
        (B, C) float32: the mean over the cells of each map.

    >>> heatmap_loss("mse", torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item()
    0.25
    """
    logits, targets = logits.float(), targets.float()
    if name == "bce":
        cells = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    elif name == "mse":
        cells = (torch.sigmoid(logits) - targets).square()
    else:
        weight = (torch.sigmoid(logits) - targets).abs().pow(FOCAL_BETA)
        cells = weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    per_map: Tensor = cells.mean(dim=(-2, -1))
    return per_map


def vote_loss(votes: Tensor, targets: VoteTargets) -> Tensor:
    """Compare votes with their targets: the smooth L1 error of both coordinates, in cells near points.

    Args:
        votes: (B, C, 2, h, w) input pixels.
        targets: what they should be.

    Returns:
        (B, C) float32: the sum over a map's cells near points, in units of the network's votes, divided by the number
        of all cells, as the heatmaps' losses are.
    """
    errors = F.smooth_l1_loss(votes.float(), targets.votes, reduction="none", beta=VOTE_KNEE_PX).sum(2) / VOTE_SCALE_PX
    per_map: Tensor = (errors * targets.is_near).mean(dim=(-2, -1))
    return per_map


def target_entropy(targets: Tensor) -> Tensor:
    """Compute the entropy of soft targets (B, C, h, w): the minimum cross-entropy of any prediction, (B, C)."""
    targets = targets.float()
    entropy: Tensor = torch.special.entr(targets) + torch.special.entr(1 - targets)
    return entropy.mean(dim=(-2, -1))
