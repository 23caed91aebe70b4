"""Ground truths of which a test tells only what matters to it."""

import torch
from torch import Tensor

from keypoint_detection.types import PADDING, VISIBLE, GroundTruths


def make_truths(points: Tensor, **known: Tensor) -> GroundTruths[Tensor]:
    """Make visible points (B, C, K, 2) of the first annotation, without box and area, unless they are known."""
    shape = points.shape[:-1]
    truths = PADDING.map(lambda fill: torch.full(shape, fill))
    about = {"visibility": torch.full(shape, VISIBLE), "instances": torch.zeros(shape, dtype=torch.int64)}
    return truths._replace(points=points, **(about | known))
