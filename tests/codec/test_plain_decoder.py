"""The fast decoder against its definition, and the definition against an exporter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keypoint_detection.codec.heatmaps import decode, encode
from keypoint_detection.codec.plain_decoder import decode_plainly


def noisy_logits(seed: int, size: tuple[int, int], stride: int, n_points: int, noise: float) -> torch.Tensor:
    """Gaussians at random places, the border among them, on noise of a network's kind: smooth, in logits."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    points = torch.rand(2, 2, n_points, 2, generator=generator) * torch.tensor([width, height]) * stride
    heatmaps = encode(points, torch.full((2, 2, n_points), 2), (height * stride, width * stride), stride, 1.5 * stride)
    logits = torch.logit(0.9 * heatmaps, eps=1e-4)
    rough = torch.randn(2, 2, height, width, generator=generator)
    return logits + noise * torch.nn.functional.avg_pool2d(rough, 3, stride=1, padding=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    size=st.sampled_from([(3, 3), (5, 40), (24, 32), (33, 17)]),
    stride=st.sampled_from([1, 2, 4]),
    n_points=st.integers(0, 6),
    noise=st.sampled_from([0.0, 0.3, 2.0]),
    spacing=st.sampled_from([0.0, 1.5, 3.0, 8.0]),
    max_keypoints=st.sampled_from([1, 4, 30]),
)
def test_the_fast_decoder_finds_what_the_definition_says(seed, size, stride, n_points, noise, spacing, max_keypoints):
    logits = noisy_logits(seed, size, stride, n_points, noise)
    options = {"max_keypoints": max_keypoints, "score_threshold": 0.01, "min_distance_px": spacing * stride}
    fast, plain = decode(logits.sigmoid(), stride, **options), decode_plainly(logits, stride, **options)
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)
    # Scores that differ by a rounding may change places; the points of all others are the same.
    gaps = fast.scores.diff(dim=-1, prepend=fast.scores.new_full((2, 2, 1), 2)).abs()
    is_alone = (gaps > 1e-5) & (fast.scores.diff(dim=-1, append=fast.scores.new_full((2, 2, 1), -1)).abs() > 1e-5)
    # A peak at the very top of the range has lost its shape to rounding in probabilities.
    is_clear = is_alone & (fast.scores < 0.9999)
    torch.testing.assert_close(fast.points[is_clear], plain.points[is_clear], rtol=0, atol=2e-3 * stride)


def test_nothing_above_the_threshold_is_nothing_found():
    found = decode_plainly(torch.full((1, 2, 8, 9), -9.0), 2, max_keypoints=3, score_threshold=0.01, min_distance_px=2)
    assert found.points.shape == (1, 2, 3, 2)
    assert found.scores.sum() == 0
    assert found.points.abs().sum() == 0


def test_both_decoders_find_the_same_among_equal_cells():
    logits = (torch.randn(2, 3, 20, 31, generator=torch.Generator().manual_seed(0)) * 2).round()
    logits[0, 0] = 1.0  # a blank image
    logits[0, 1, 4, 3:9] = 12.0
    options = {"max_keypoints": 200, "score_threshold": 0.3, "min_distance_px": 0.0}
    fast, plain = decode(logits.sigmoid(), 1, **options), decode_plainly(logits, 1, **options)
    assert (fast.scores > 0).sum() > 100
    assert (fast.scores[0, 0] > 0).sum() == 1
    torch.testing.assert_close(fast.scores, plain.scores)
    for ours, theirs in zip(fast.points.flatten(0, 1), plain.points.flatten(0, 1), strict=True):
        # Equal scores come in any order.
        np.testing.assert_allclose(in_order(ours), in_order(theirs), rtol=0, atol=1e-3)


def in_order(points):
    return sorted(points.round(decimals=2).tolist())


class _Decoder(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return decode_plainly(logits, 2, max_keypoints=5, score_threshold=0.05, min_distance_px=4.0)


@pytest.mark.parametrize("size", [(24, 32), (40, 20)])
def test_an_exported_decoder_takes_any_size(size):
    dynamic = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    program = torch.export.export(_Decoder(), (noisy_logits(0, (24, 32), 2, 3, 0.3),), dynamic_shapes=(dynamic,))
    logits = noisy_logits(1, size, 2, 3, 0.3)[:1]
    for exported, expected in zip(program.module()(logits), _Decoder()(logits), strict=True):
        torch.testing.assert_close(exported, expected)
