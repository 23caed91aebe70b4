"""What each process of the distributed test runs; a module of its own, so that spawned processes can import it."""

import json
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from ground_truths import make_truths

from keypoint_detection.confidence import Calibration
from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.types import Batch, Detections, GroundTruths

CALIBRATION = Calibration((2.0, 8.0), (0.5, 1.0), (0.5, 1.0), (-1.0, 0.0), 2.0)

# By rank. Images 4 and 0 are repeated, across ranks and within one; the numbers are uneven.
UNEVEN = ([[0, 1, 4], [5, 0, 6], [9]], [[2, 3], [4, 7, 8, 10]])
ONE_WITHOUT_IMAGES = ([[0, 1, 4], [5, 6]], [])


def make_image(image_id: int) -> tuple[Detections, Batch, torch.Tensor]:
    """Make the same image in whichever process it is asked for."""
    generator = torch.Generator().manual_seed(image_id)
    C, K, D = 3, 1 + image_id % 3, 5
    points = torch.rand(1, C, K, 2, generator=generator) * 100
    visibility = torch.randint(0, 3, (1, C, K), generator=generator)
    if image_id in (2, 3, 4, 7, 8, 10):
        visibility.zero_()  # rank 1 sees no point at all
    batch = Batch(
        images=torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        truths=make_truths(
            points,
            visibility=visibility,
            box_sizes=torch.where(torch.rand(1, C, K, generator=generator) < 0.5, torch.nan, 60.0),
        ),
        image_ids=torch.tensor([image_id]),
        input_to_image=torch.tensor([[[1.7, 0.1, 3.0], [-0.1, 1.7, 5.0]]]),
        image_sizes=torch.tensor([[170, 180 + image_id]]),
    )
    found = torch.rand(1, C, D, 2, generator=generator) * 170
    n = min(K, D)
    affine = batch.input_to_image[0]
    found[:, :, :n] = (
        points[:, :, :n] @ affine[:, :2].T + affine[:, 2] + torch.randn(1, C, n, 2, generator=generator) * 3
    )
    found = (found - affine[:, 2]) @ torch.linalg.inv(affine[:, :2]).T  # the metric wants input pixels
    scores = torch.randint(0, 6, (1, C, D), generator=generator).div(5).sort(-1, descending=True).values
    roots = torch.rand(1, C, D, 2, 2, generator=generator)
    losses = torch.rand(1, C, generator=generator)
    return Detections(found, scores, roots @ roots.mT + torch.eye(2)), batch, losses


def join(image_ids: list[int]) -> tuple[Detections, Batch, torch.Tensor]:
    """Make a batch, padded to the largest number of points."""
    samples = [make_image(image_id) for image_id in image_ids]
    K = max(batch.points.shape[2] for _, batch, _ in samples)

    def pad(tensor: torch.Tensor) -> torch.Tensor:
        padded = tensor.new_zeros(1, tensor.shape[1], K, *tensor.shape[3:])
        padded[:, :, : tensor.shape[2]] = tensor
        return padded

    batches = [batch._replace(truths=batch.truths.map(pad)) for _, batch, _ in samples]
    batch = Batch(
        truths=GroundTruths(*map(torch.cat, zip(*(one.truths for one in batches), strict=True))),
        **{
            name: torch.cat([getattr(one, name) for one in batches])
            for name in Batch._fields
            if name not in ("truths", "failures")
        },
        # Every fifth image comes with one that could not be read.
        failures=tuple((1000 + image_id, "gone") for image_id in image_ids if image_id % 5 == 0),
    )
    detections = Detections(*(torch.cat(tensors) for tensors in zip(*(d[:3] for d, _, _ in samples), strict=True)))
    return detections, batch, torch.cat([losses for _, _, losses in samples])


def fill(metric: KeypointMetrics, batches: list[list[int]]) -> KeypointMetrics:
    for image_ids in batches:
        detections, batch, losses = join(image_ids)
        metric.update(detections, batch, losses)
    return metric


def make_metric() -> KeypointMetrics:
    return KeypointMetrics(["a", "b", "c"], [2, 4, 8])


def run_rank(rank: int, world_size: int, folder: str) -> None:
    # The timeout ends a test whose other process has died.
    timeout = timedelta(seconds=120)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", timeout, world_size, rank)
    try:
        metric = fill(make_metric(), UNEVEN[rank])
        reports = {
            "uneven": metric.compute().with_intervals(20, seed=3).with_calibration(CALIBRATION),
            "later": fill(metric, [[100 + rank]]).compute(),  # what was gathered must not stay behind
            "one without images": fill(make_metric(), ONE_WITHOUT_IMAGES[rank]).compute(),
        }
        text = json.dumps({name: report.as_dict() for name, report in reports.items()})
        Path(folder, f"{rank}.json").write_text(text)
    finally:
        dist.destroy_process_group()
