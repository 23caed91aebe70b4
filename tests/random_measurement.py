"""A report of random points, for whatever shows reports."""

import torch
from ground_truths import make_truths

from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.types import Batch, Detections


def measure_random_points(
    channels: list[str], n_images: int = 3, *, has_detections: bool = True, has_truths: bool = True
) -> EvaluationReport:
    """Measure one point a channel and image, each some pixels off."""
    C, generator = len(channels), torch.Generator().manual_seed(0)
    points = 100 * torch.rand(n_images, C, 1, 2, generator=generator)
    batch = Batch(
        images=torch.zeros(n_images, 3, 8, 8, dtype=torch.uint8),
        truths=make_truths(points, visibility=torch.full((n_images, C, 1), 2 * has_truths)),
        image_ids=torch.arange(n_images),
        input_to_image=torch.eye(3)[:2].expand(n_images, 2, 3),
        image_sizes=torch.full((n_images, 2), 100),
    )
    scores = torch.rand(n_images, C, 1, generator=generator).clamp(min=0.01) * has_detections
    metrics = KeypointMetrics(channels, [2.0, 4.0])
    metrics.update(Detections(points + 4 * torch.rand(points.shape, generator=generator), scores), batch)
    return metrics.compute()
