import math

import numpy as np
import pytest
import torch
from metrics.test_matching import match_by_loop, pair_by_loop

from keypoint_detection.metrics import evaluation
from keypoint_detection.metrics.evaluation import DetectionList, TruthList, measure


@pytest.mark.parametrize("chunk_elements", [1, 200, 1 << 20])
def test_chunks_and_crowds_do_not_change_the_matches(chunk_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "CHUNK_ELEMENTS", chunk_elements)
    rng = np.random.default_rng(0)
    rows, detections, truths = [], [], []
    for image in range(12):
        for channel in range(2):
            n_truths = int(rng.choice([0, 1, 2, 25])) if image else 0
            truth, found = rng.random((n_truths, 2)) * 20, rng.random((int(rng.integers(0, 9)), 2)) * 20
            scores = np.sort(rng.random(len(found)))[::-1].copy()
            rows.append((found, scores, truth))
            detections += [(image, channel, *point, score) for point, score in zip(found, scores, strict=True)]
            truths += [(image, channel, *point) for point in truth]
    found, truth = torch.tensor(detections, dtype=torch.float64), torch.tensor(truths, dtype=torch.float64)
    undefined = torch.full((len(truth),), math.nan, dtype=torch.float64)
    peaks = torch.full((len(found), 2, 2), math.nan, dtype=torch.float64)
    measured = measure(
        torch.arange(12),
        torch.full((12, 2), 20),
        DetectionList(found[:, 0].long(), found[:, 1].long(), found[:, 2:4], found[:, 4], peaks, peaks),
        TruthList(truth[:, 0].long(), truth[:, 1].long(), truth[:, 0].long(), truth[:, 2:], undefined, undefined),
        None,
        (1.0, 3.0),
        (),
        2,
    )
    for t, threshold in enumerate((1.0, 3.0)):
        expected = [
            match_by_loop(p[None], s[None], g[None], np.ones((1, len(g)), dtype=bool), threshold)[0] for p, s, g in rows
        ]
        np.testing.assert_array_equal(measured.is_true_positive[t].numpy(), np.concatenate(expected))
    errors = [pair_by_loop(p[None], s[None], g[None], np.ones((1, len(g)), dtype=bool))[0] for p, s, g in rows]
    np.testing.assert_allclose(measured.errors_px.numpy(), np.concatenate(errors))
    assert measured.lengths_px.numpy() == pytest.approx(math.hypot(20, 20))
