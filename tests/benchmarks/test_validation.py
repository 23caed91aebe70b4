"""What decoding and measuring cost beside the network itself, in one validation epoch.

Run alone: `pytest tests/benchmarks/test_validation.py -s -n 0`.
"""

import statistics
import time

import torch
from ground_truths import make_truths

from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Unet
from keypoint_detection.types import Batch, Maps

# As in the mouse data set of the documentation: 18 images of 192 x 256 with 4 points each.
N_IMAGES, SIZE, CHANNELS = 18, (192, 256), ["snout", "leftear", "rightear", "tailbase"]
N_REPEATS = 7


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (N_IMAGES, len(CHANNELS), 1)
    return Batch(
        images=torch.randint(0, 255, (N_IMAGES, 3, *SIZE), generator=generator, dtype=torch.uint8),
        truths=make_truths(
            torch.rand(*shape, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]]),
            box_sizes=torch.full(shape, 100.0),
            areas=torch.full(shape, 5000.0),
        ),
        image_ids=torch.arange(N_IMAGES),
        input_to_image=torch.tensor([[2.5, 0, 0], [0, 2.5, 0]]).expand(N_IMAGES, 2, 3),
        image_sizes=torch.tensor([[480, 640]]).expand(N_IMAGES, 2),
    )


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_decoding_and_metrics_beside_the_forward_pass():
    torch.set_num_threads(2)
    detector, batch = KeypointDetector(CHANNELS, Unet).eval(), make_batch()
    # Heatmaps as a trained network gives them: one clear peak and a low background of noise.
    heatmaps = detector.codec.encode(batch.points, batch.visibility, SIZE)
    heatmaps = heatmaps.mul(0.9).add(0.005 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(1)))
    logits = torch.logit(heatmaps)

    def measure() -> None:
        detections = detector.detect(Maps(logits))
        detector.test_metrics.update(detections, batch)
        report = detector.test_metrics.compute()
        detector.test_metrics.reset()
        assert report.overall.error_px_median < 0.5

    def forward() -> None:
        detector(batch.images)

    with torch.inference_mode():
        times = [(seconds(forward), seconds(measure)) for _ in range(N_REPEATS + 1)][1:]
    forwards, measures = zip(*times, strict=True)
    share = statistics.median(measures) / statistics.median(forwards)
    print(
        f"\nforward {statistics.median(forwards):.3f} s (min {min(forwards):.3f}), decoding and metrics "
        f"{statistics.median(measures):.4f} s (min {min(measures):.4f}): {100 * share:.1f} % of the forward time"
    )
