"""Small batches for the tests of the metric."""

import torch
from ground_truths import make_truths

from keypoint_detection.types import Batch, Detections


def make_batch(
    image_ids: list[int],
    points: dict[tuple[int, int], list[tuple[float, float]]],
    detections: dict[tuple[int, int], list[tuple[float, float, float]]] | None = None,
    n_channels: int = 2,
    instances: dict[tuple[int, int], int] | None = None,
    box_size: float = 20.0,
    area: float = 400.0,
    noise: float = 0.0,
) -> tuple[Detections, Batch]:
    """Put points at (image, channel), in input pixels; the image is twice as large and shifted by (10, 0).

    Detections (x, y, score) are given in image pixels, and returned in input pixels; left out, they are the points
    themselves plus noise in x.
    """
    B, C = len(image_ids), n_channels
    K = max([1, *(len(row) for row in points.values())])
    batch = Batch(
        images=torch.zeros(B, 3, 4, 4, dtype=torch.uint8),
        truths=make_truths(
            torch.zeros(B, C, K, 2),
            visibility=torch.zeros(B, C, K, dtype=torch.long),
            instances=torch.full((B, C, K), -1),
            box_sizes=torch.full((B, C, K), box_size),
            areas=torch.full((B, C, K), area),
        ),
        image_ids=torch.tensor(image_ids),
        input_to_image=torch.tensor([[2.0, 0.0, 10.0], [0.0, 2.0, 0.0]]).repeat(B, 1, 1),
        image_sizes=torch.tensor([[30, 40]]).repeat(B, 1),
    )
    for (b, c), row in points.items():
        for k, point in enumerate(row):
            batch.points[b, c, k] = torch.tensor(point)
            batch.visibility[b, c, k] = 2
            batch.truths.instances[b, c, k] = (instances or {}).get((b, c), 0)
    if detections is None:
        detections = {key: [(2 * x + 10 + noise, 2 * y, 0.9) for x, y in row] for key, row in points.items()}
    D = max([1, *(len(row) for row in detections.values())])
    found = Detections(torch.zeros(B, C, D, 2), torch.zeros(B, C, D))
    for (b, c), detected in detections.items():
        for d, (x, y, score) in enumerate(detected):
            found.points[b, c, d] = torch.tensor([(x - 10) / 2, y / 2])
            found.scores[b, c, d] = score
    return found, batch
