import csv
from types import SimpleNamespace

import torch
from ground_truths import make_truths

from keypoint_detection.metrics.keypoint_metrics import KeypointMetrics
from keypoint_detection.reporting.worst_images import WorstImages
from keypoint_detection.types import Batch, Detections


def test_the_worst_come_first_in_the_list_and_are_drawn(tmp_path):
    offsets = torch.tensor([1.0, 7.0, 0.0, 3.0, 5.0])
    n = len(offsets)
    truth = torch.full((n, 1, 1, 2), 20.0)
    batch = Batch(
        images=torch.zeros(n, 3, 40, 40, dtype=torch.uint8),
        truths=make_truths(truth),
        image_ids=torch.arange(n) + 100,
        input_to_image=torch.eye(3)[:2].expand(n, 2, 3),
        image_sizes=torch.full((n, 2), 40),
    )
    scores = torch.full((n, 1, 1), 0.9)
    scores[2] = 0  # nothing was found in image 102
    detections = Detections(truth + torch.stack([offsets, 0 * offsets], dim=1)[:, None, None], scores)
    outputs = SimpleNamespace(logits=torch.zeros(n, 1, 40, 40), detections_input=detections)
    metrics = KeypointMetrics(["a"], [2.0])
    metrics.update(detections, batch)
    module = SimpleNamespace(channels={"a": ["a"]}, report=metrics.compute())
    trainer = SimpleNamespace(
        is_global_zero=True, loggers=[], callbacks=[], log_dir=str(tmp_path), default_root_dir=str(tmp_path)
    )

    callback = WorstImages(n_images=3)
    callback.on_test_batch_end(trainer, module, outputs, batch, 0)
    callback.on_test_end(trainer, module)

    with (tmp_path / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image_id"]) for row in rows] == [102, 101, 104, 103, 100]
    assert [float(row["max_error_px"]) for row in rows[1:]] == [7, 5, 3, 1]
    drawn = sorted(path.name for path in (tmp_path / "worst").iterdir())
    assert drawn == ["001-image-102.png", "002-image-101.png", "003-image-104.png"]
