"""Affine maps between the frames that points live in, as (2, 3) matrices acting on (x, y).

Points are never multiplied by `@`: in mixed precision, torch would use half precision, which rounds coordinates to
whole pixels.
"""

import torch
from torch import Tensor

from keypoint_detection.types import Detections


def apply_affine(points: Tensor, matrices: Tensor) -> Tensor:
    """Map points with one affine matrix per leading index.

    Args:
        points: (B, ..., 2) coordinates.
        matrices: (B, 2, 3), one map for each of the B groups of points.

    Returns:
        The mapped points, shaped like `points`.

    >>> apply_affine(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, 0.0, 5.0], [0.0, 2.0, 0.0]]])).tolist()
    [[[7.0, 4.0]]]
    """
    flat = points.flatten(1, -2)  # (B, N, 2)
    matrices = matrices.to(flat)
    return (_multiply(flat, matrices[:, :, :2].mT) + matrices[:, None, :, 2]).view(points.shape)


def map_detections(detections: Detections, matrices: Tensor) -> Detections:
    """Map detections, and their covariances if they have any, with one affine matrix (B, 2, 3) per image."""
    covariances = detections.covariances
    if covariances is not None:
        linear = matrices[:, None, None, :, :2].to(covariances)
        covariances = _multiply(_multiply(linear, covariances), linear.mT)
    grouping = detections.grouping
    if grouping is not None:
        grouping = grouping._replace(votes=apply_affine(grouping.votes, matrices))
    points = apply_affine(detections.points, matrices)
    return detections._replace(points=points, covariances=covariances, grouping=grouping)


def compose_affine(first: Tensor, second: Tensor) -> Tensor:
    """Chain two (..., 2, 3) maps: the result applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return torch.cat([linear, offset], dim=-1)


def invert_affine(matrix: Tensor) -> Tensor:
    """Invert a (..., 2, 3) map; raises `torch.linalg.LinAlgError` if it is singular."""
    inverse = torch.linalg.inv(matrix[..., :2])
    return torch.cat([inverse, -inverse @ matrix[..., 2:]], dim=-1)


def _multiply(one: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product of (..., n, m) and (..., m, k) in their own precision."""
    return (one[..., :, :, None] * other[..., None, :, :]).sum(-2)
