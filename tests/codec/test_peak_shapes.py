import math

import pytest
import torch

from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.codec.peak_shapes import measure_shapes


def draw_gaussian(x, y, covariance, stride, size=(40, 50)):
    """A heatmap (1, 1, h, w) with one Gaussian of any shape at (x, y) input pixels."""
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    offsets = torch.stack([columns * stride - x, rows * stride - y], dim=-1)  # (h, w, 2)
    squared = (offsets @ torch.linalg.inv(covariance) * offsets).sum(-1)
    return 0.6 * torch.exp(-squared / 2)[None, None]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("covariance", [[[4.0, 0.0], [0.0, 4.0]], [[9.0, 3.0], [3.0, 5.0]], [[6.0, -4.0], [-4.0, 9.0]]])
def test_the_covariance_of_a_gaussian_is_found_wherever_its_centre_lies(stride, covariance):
    expected = torch.tensor(covariance)
    for x, y in [(20.3 * stride, 20.9 * stride), (25.5 * stride, 17.0 * stride)]:
        heatmap = draw_gaussian(x, y, expected, stride)
        found = measure_shapes(heatmap, torch.tensor([[[[x, y]]]]), stride, sigma_px=2.0)
        assert found.shape == (1, 1, 1, 2, 2)
        torch.testing.assert_close(found[0, 0, 0], expected, rtol=0.02, atol=0.1)


def test_a_peak_on_the_border_is_as_wide_as_its_half_says():
    found = measure_shapes(draw_gaussian(0.5, 20.5, 4 * torch.eye(2), 1), torch.tensor([[[[0.5, 20.5]]]]), 1, 2.0)
    # The half window of whole cells, the peak's own among them, counts the middle twice as much as the whole one does.
    assert found[0, 0, 0, 1, 1] == pytest.approx(4.0, rel=0.02)
    assert 2.5 < found[0, 0, 0, 0, 0] < 4.5


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_ground_has_a_finite_positive_covariance(level):
    found = measure_shapes(torch.full((1, 1, 9, 9), level), torch.tensor([[[[4.5, 4.5], [0.0, 0.0]]]]), 1, 2.0)
    assert found.isfinite().all()
    assert (torch.linalg.eigvalsh(found) > 0).all()


def test_decoding_measures_the_slots_that_are_used():
    codec = HeatmapCodec(stride=2, sigma_px=2.0, max_keypoints=5, score_threshold=0.05, min_distance_px=2.0)
    points = torch.tensor([[[[20.0, 30.0], [70.0, 50.0]], [[44.0, 21.0], [0.0, 0.0]]]])
    heatmaps = codec.encode(points, torch.tensor([[[2, 2], [2, 0]]]), (80, 100))
    found = codec.decode(heatmaps)
    assert (found.scores > 0).sum() == 3
    assert found.covariances is not None
    assert found.covariances.shape == (1, 2, 5, 2, 2)
    used = found.covariances[found.scores > 0]
    torch.testing.assert_close(used, (4 * torch.eye(2)).expand(3, 2, 2), rtol=0, atol=0.1)
    assert found.covariances[found.scores == 0].abs().sum() == 0


def test_decoding_nothing_measures_nothing():
    codec = HeatmapCodec(stride=2, sigma_px=2.0, max_keypoints=5, score_threshold=0.05, min_distance_px=2.0)
    for shape in [(1, 2, 9, 9), (0, 2, 9, 9)]:
        found = codec.decode(torch.zeros(shape))
        assert found.covariances is not None
        assert math.prod(found.covariances.shape) == shape[0] * 2 * 5 * 4
        assert found.covariances.abs().sum() == 0
