import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import peak_local_max
from torch import Tensor

from keypoint_detection.codec import heatmaps as codec_module
from keypoint_detection.codec.heatmaps import HeatmapCodec, encode, heatmap_size
from keypoint_detection.types import Detections

# The Gaussian of a corner point at stride 4 and sigma 1 px has its highest cell at exp(-4).
LOW_THRESHOLD = 0.005


def decode(heatmaps, stride, *, max_keypoints=20, score_threshold=0.01, min_distance_px=3.0):
    """Decode with the settings that most of these tests have in common."""
    return codec_module.decode(
        heatmaps,
        stride,
        max_keypoints=max_keypoints,
        score_threshold=score_threshold,
        min_distance_px=min_distance_px,
    )


def draw_by_loops(points: np.ndarray, size: tuple[int, int], stride: int, sigma_px: float) -> np.ndarray:
    """Draw (K, 2) points on one heatmap by the definition, in float64."""
    height, width = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
    heatmap = np.zeros((height, width))
    for j, i in product(range(height), range(width)):
        for x, y in points:
            squared = ((i + 0.5) * stride - x) ** 2 + ((j + 0.5) * stride - y) ** 2
            heatmap[j, i] = max(heatmap[j, i], math.exp(-squared / (2 * sigma_px**2)))
    return heatmap


def found(detections: Detections, image: int = 0, channel: int = 0) -> list[tuple[float, float]]:
    """List the detected points of one channel, sorted."""
    used = detections.scores[image, channel] > 0
    assert not detections.points[image, channel][~used].any()
    return sorted(map(tuple, detections.points[image, channel][used].tolist()))


def as_map(rows: list[list[float]], background: float = 0.0, frame: int = 3) -> Tensor:
    """Make a (1, 1, h, w) heatmap from rows of numbers inside a frame of background."""
    inner = torch.tensor(rows)
    heatmap = torch.full((inner.shape[0] + 2 * frame, inner.shape[1] + 2 * frame), background)
    heatmap[frame : frame + inner.shape[0], frame : frame + inner.shape[1]] = inner
    return heatmap[None, None]


def assert_same_points(ours: list[tuple[float, float]], truth: list[tuple[float, float]], tolerance: float) -> None:
    """Compare two sets of points in both directions, counts first."""
    assert len(ours) == len(truth), (ours, truth)
    if truth:
        distances = torch.cdist(torch.tensor(ours).double(), torch.tensor(truth).double())
        assert distances.amin(0).amax() <= tolerance, (ours, truth)
        assert distances.amin(1).amax() <= tolerance, (ours, truth)


# ----- encode


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("sigma_px", [0.7, 2.0, 30.0])
def test_heatmaps_are_those_of_the_definition(stride: int, sigma_px: float) -> None:
    rng = np.random.default_rng(3)
    size = (37, 22)
    points = rng.uniform(-6, 44, (2, 3, 4, 2)).astype(np.float32)
    visibility = rng.integers(0, 3, (2, 3, 4))
    visibility[1, 2] = 0
    ours = encode(torch.from_numpy(points), torch.from_numpy(visibility), size, stride, sigma_px)
    assert ours.shape == (2, 3, math.ceil(37 / stride), math.ceil(22 / stride))
    for b, c in product(range(2), range(3)):
        labelled = points[b, c][visibility[b, c] > 0]
        np.testing.assert_allclose(ours[b, c], draw_by_loops(labelled, size, stride, sigma_px), atol=1e-6)


def test_a_point_at_a_cells_centre_gives_one_and_the_hand_calculated_neighbours() -> None:
    heatmap = encode(torch.tensor([[[[2.5, 1.5]]]]), torch.tensor([[[2]]]), (3, 5), 1, 1.0)[0, 0]
    assert heatmap[1, 2] == 1
    assert heatmap[1, 1].item() == pytest.approx(math.exp(-0.5))
    assert heatmap[0, 1].item() == pytest.approx(math.exp(-1.0))


def test_padding_is_ignored_even_where_it_is_nan() -> None:
    points = torch.tensor([[[[4.0, 5.0], [math.nan, math.nan], [1.0, math.inf]]]])
    padded = encode(points, torch.tensor([[[1, 0, 0]]]), (12, 10), 1, 2.0)
    assert torch.equal(padded, encode(points[:, :, :1], torch.tensor([[[2]]]), (12, 10), 1, 2.0))


def test_a_labelled_nan_does_not_pass_unseen() -> None:
    assert encode(torch.full((1, 1, 1, 2), math.nan), torch.tensor([[[2]]]), (12, 10), 1, 2.0).isnan().any()


@pytest.mark.parametrize(("B", "C", "K"), [(2, 3, 0), (0, 3, 2), (2, 0, 2)])
def test_nothing_to_draw_gives_empty_heatmaps_and_no_detections(B: int, C: int, K: int) -> None:
    heatmaps = encode(torch.zeros(B, C, K, 2), torch.zeros(B, C, K, dtype=torch.int64), (9, 7), 2, 2.0)
    assert heatmaps.shape == (B, C, 5, 4)
    assert not heatmaps.any()
    detections = decode(heatmaps, 2, max_keypoints=6)
    assert detections.points.shape == (B, C, 6, 2)
    assert detections.scores.shape == (B, C, 6)
    assert not detections.points.any()
    assert not detections.scores.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_heatmaps_of_other_types_are_the_float32_ones_rounded(dtype: torch.dtype) -> None:
    points, visibility = torch.rand(2, 2, 3, 2, generator=torch.Generator().manual_seed(0)) * 20, torch.ones(2, 2, 3)
    ours = encode(points, visibility, (20, 20), 1, 2.0, dtype)
    assert ours.dtype == dtype
    assert torch.equal(ours, encode(points, visibility, (20, 20), 1, 2.0).to(dtype))


# ----- round trip


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[tuple[float, float]], tuple[int, int], int, float]:
    """Draw points, size, stride and sigma, the points in different parts of the image, anywhere in those."""
    stride = draw(st.sampled_from([1, 2, 4]))
    sigma_px = draw(st.floats(1, 4))
    # Two points this far apart have peaks of their own, whose five-cell windows the other does not reach.
    pitch = math.ceil(4 * sigma_px + 6 * stride)
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = (rows * pitch + draw(st.integers(0, 9)), columns * pitch + draw(st.integers(0, 9)))
    inside = st.floats(0, 1, width=32)
    points = []
    for j, i in product(range(rows), range(columns)):
        if draw(st.booleans()):
            # Points share a line of their pitch, so that neighbours stay a pitch apart; the lines reach the borders.
            points.append((draw(inside), draw(inside), i, j))
    spread = (size[1] - (columns - 1) * pitch, size[0] - (rows - 1) * pitch)
    offset = (draw(inside) * spread[0], draw(inside) * spread[1])
    jitter = stride / 2
    placed = [
        (
            min(max(i * pitch + offset[0] + (u - 0.5) * jitter, 0.0), float(size[1])),
            min(max(j * pitch + offset[1] + (v - 0.5) * jitter, 0.0), float(size[0])),
        )
        for u, v, i, j in points
    ]
    return placed, size, stride, sigma_px


@given(scenes())
@settings(max_examples=200, deadline=None)
def test_every_point_comes_back_and_none_is_invented(
    scene: tuple[list[tuple[float, float]], tuple[int, int], int, float],
) -> None:
    points, size, stride, sigma_px = scene
    labels = torch.tensor(points).view(1, 1, -1, 2)
    heatmaps = encode(labels, torch.ones(labels.shape[:-1], dtype=torch.int64), size, stride, sigma_px)
    assert_same_points(found(decode(heatmaps, stride, score_threshold=LOW_THRESHOLD)), points, 0.05)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("sigma_px", [1.0, 2.5, 4.0])
def test_points_within_half_a_pixel_of_a_border_come_back(stride: int, sigma_px: float) -> None:
    height, width = 40, 28
    near = [0.0, 0.01, 0.25, 0.5]
    xs = near + [width - d for d in near] + [13.3]
    ys = near + [height - d for d in near] + [20.7]
    points = torch.tensor(list(product(xs, ys))).view(-1, 1, 1, 2)  # one point an image
    heatmaps = encode(points, torch.ones(points.shape[:-1]), (height, width), stride, sigma_px)
    detections = decode(heatmaps, stride, score_threshold=LOW_THRESHOLD)
    for image, point in enumerate(points.view(-1, 2).tolist()):
        assert_same_points(found(detections, image), [tuple(point)], 0.05)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_points_on_the_edges_of_cells_come_back(stride: int) -> None:
    # Two or four cells share the highest value: a plateau, whose narrow axis still has a fraction.
    points = torch.tensor([[8.0, 9.3], [24.0, 16.0], [13.7, 24.0]])
    heatmaps = encode(points.view(1, 1, -1, 2), torch.ones(1, 1, 3), (32, 32), stride, 2.0)
    assert_same_points(found(decode(heatmaps, stride)), [tuple(p) for p in points.tolist()], 0.01)


def test_noise_moves_a_point_less_than_it_moves_a_parabola_through_three_cells() -> None:
    generator = torch.Generator().manual_seed(3)
    points = 10 + 12 * torch.rand(500, 1, 1, 2, generator=generator)
    heatmaps = encode(points, torch.ones(500, 1, 1), (32, 32), 1, 2.0)
    noisy = heatmaps * torch.exp(0.02 * torch.randn(heatmaps.shape, generator=generator)) / 2
    decoded = decode(noisy, 1, max_keypoints=1).points[:, 0, 0]
    ours = (decoded - points[:, 0, 0]).abs().median()
    column = decoded[:, 0].long()
    before, middle, after = (
        noisy[torch.arange(500), 0, decoded[:, 1].long(), column + step].log() for step in (-1, 0, 1)
    )
    of_three = column + 0.5 + (after - before) / (2 * (2 * middle - before - after)).clamp(min=1e-6)
    of_three = of_three.clamp(column, column + 1)
    theirs = (of_three - points[:, 0, 0, 0]).abs().median()
    assert ours < 0.75 * theirs


@pytest.mark.parametrize("stride", [1, 2])
def test_close_points_do_not_pull_each_other(stride: int) -> None:
    # Between points of sigma 1 three cells apart, the cells two away from one belong to the other.
    points = torch.tensor([[10.2, 20.4], [13.4, 20.1], [10.0, 24.0]]) * stride
    heatmaps = encode(points.view(1, 1, -1, 2), torch.ones(1, 1, 3), (48 * stride, 48 * stride), stride, 1.0 * stride)
    assert_same_points(found(decode(heatmaps, stride)), [tuple(p) for p in points.tolist()], 0.05 * stride)


# Near the top, neighbouring values of bfloat16 are 1/256 apart: an error of sigma^2 / 100 px or so, three times that
# where the parabola stands on one side of a peak on the border.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("stride", [1, 2])
def test_half_precision_heatmaps_come_back_less_exactly(dtype: torch.dtype, tolerance: float, stride: int) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(64, 1, 1, 2, generator=generator) * torch.tensor([30.0, 24.0])
    detections = decode(encode(points, torch.ones(64, 1, 1), (24, 30), stride, 2.0, dtype), stride)
    assert detections.points.dtype == detections.scores.dtype == torch.float32
    for image, point in enumerate(points.view(-1, 2).tolist()):
        assert_same_points(found(detections, image), [tuple(point)], tolerance)


# ----- peaks


@pytest.mark.parametrize("size", [(64, 48), (37, 53), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peaks_of_noise_are_those_of_scikit_image(size: tuple[int, int], dtype: torch.dtype) -> None:
    heatmaps = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2), dtype=dtype).float().to(dtype)
    # peak_local_max(min_distance=1) takes the cells that none of their eight neighbours reaches. Two such cells are two
    # cells apart at least, their sub-pixel centres one.
    detections = decode(heatmaps, 1, max_keypoints=600, score_threshold=0.3, min_distance_px=0)
    for b, c in product(range(2), range(3)):
        theirs = peak_local_max(
            heatmaps[b, c].numpy(), min_distance=1, threshold_abs=0.3, exclude_border=False
        )  # (row, column)
        ours = detections.points[b, c][detections.scores[b, c] > 0]
        assert len(ours) == len(theirs) > 0
        assert torch.equal(
            detections.scores[b, c, : len(ours)], heatmaps[b, c].float()[tuple(theirs.T)].sort(descending=True).values
        )
        centres = torch.from_numpy(theirs[:, ::-1].copy()) + 0.5
        order = heatmaps[b, c][tuple(theirs.T)].argsort(descending=True)
        assert (ours - centres[order]).abs().amax() <= 0.5


@pytest.mark.parametrize("min_distance_px", [3.0, 11.0, 200.0])
@pytest.mark.parametrize("max_keypoints", [1, 20])
def test_the_highest_peaks_win_their_surroundings(min_distance_px: float, max_keypoints: int) -> None:
    heatmaps = torch.rand(3, 1, 60, 50, generator=torch.Generator().manual_seed(4))
    every = decode(heatmaps, 2, max_keypoints=3000, min_distance_px=0)
    detections = decode(heatmaps, 2, max_keypoints=max_keypoints, min_distance_px=min_distance_px)
    for image in range(3):
        assert (every.scores[image, 0] > 0).sum() > 300
        expected: list[tuple[float, float]] = []
        for x, y in every.points[image, 0][every.scores[image, 0] > 0].tolist():
            if all(math.hypot(x - a, y - b) >= min_distance_px for a, b in expected):
                expected.append((x, y))
        assert_same_points(found(detections, image), expected[:max_keypoints], 1e-6)


def test_truncation_keeps_the_best_in_order() -> None:
    heatmap = torch.zeros(1, 1, 30, 30)
    heights = [0.3, 0.9, 0.5, 0.7, 0.2]
    for n, height in enumerate(heights):
        heatmap[0, 0, 3 + 5 * n, 4] = height
    detections = decode(heatmap, 1, max_keypoints=3)
    assert detections.scores[0, 0].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert detections.points[0, 0].tolist() == [[4.5, 8.5], [4.5, 18.5], [4.5, 13.5]]


def test_equal_scores_are_ordered_by_column_then_row() -> None:
    heatmap = torch.zeros(1, 1, 40, 40)
    cells = [(35, 2), (3, 9), (20, 9), (11, 30)]
    for row, column in cells:
        heatmap[0, 0, row, column] = 0.5
    points = decode(heatmap, 1, max_keypoints=3).points[0, 0].tolist()
    assert points == [[2.5, 35.5], [9.5, 3.5], [9.5, 20.5]]


def test_of_two_truths_too_close_the_higher_comes_back() -> None:
    heatmap = as_map([[0.5, 0.9, 0.5, 0.6, 0.5]])
    assert_same_points(found(decode(heatmap, 1, min_distance_px=3.0)), [(4.5, 3.5)], 0.1)
    assert_same_points(found(decode(heatmap, 1, min_distance_px=1.5)), [(4.5, 3.5), (6.5, 3.5)], 0.1)
    assert_same_points(found(decode(heatmap, 2, min_distance_px=3.0)), [(9.0, 7.0), (13.0, 7.0)], 0.2)


def test_only_values_above_the_threshold_count() -> None:
    heatmap = as_map([[0.25, 0.0, 0.0, 0.0, 0.5]])
    assert found(decode(heatmap, 1, score_threshold=0.25)) == [(7.5, 3.5)]
    assert found(decode(torch.zeros(1, 1, 8, 8), 1, score_threshold=0.0)) == []


@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize("column", [0, 2, 4])
def test_a_single_cell_is_a_peak_anywhere(row: int, column: int) -> None:
    heatmap = torch.zeros(1, 1, 7, 5)
    heatmap[0, 0, row, column] = 0.8
    assert_same_points(found(decode(heatmap, 4)), [((column + 0.5) * 4, (row + 0.5) * 4)], 2.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (9, 2)])
def test_maps_narrower_than_a_parabola_give_the_cell(size: tuple[int, int]) -> None:
    heatmap = torch.zeros(1, 1, *size)
    heatmap[0, 0, 0, 0] = 0.8
    assert_same_points(found(decode(heatmap, 1)), [(0.5, 0.5)], 0.5)


# ----- equal cells


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[0.5, 0.5]], (4.0, 3.5)), ([[0.5], [0.5]], (3.5, 4.0)), ([[0.5, 0.5], [0.5, 0.5]], (4.0, 4.0))],
    ids=["2x1", "1x2", "2x2"],
)
def test_two_or_four_equal_cells_have_their_peak_in_the_middle(
    rows: list[list[float]], expected: tuple[float, float]
) -> None:
    assert_same_points(found(decode(as_map(rows), 1)), [expected], 1e-6)
    assert_same_points(found(decode(as_map(rows), 1, min_distance_px=0)), [expected], 1e-6)


def test_a_peak_rounded_to_coarse_values_comes_back() -> None:
    # Near 2.5, neighbouring logits of bfloat16 are 1/64 apart: of two or three cells at the top some become equal.
    points = torch.rand(200, 1, 1, 2, generator=torch.Generator().manual_seed(3)) * 20 + 10
    logits = torch.logit(encode(points, torch.ones(200, 1, 1), (40, 40), 1, 4.0) * 0.92, eps=1e-4)
    detections = decode(logits.bfloat16().float().sigmoid(), 1, min_distance_px=2.0)
    for image, point in enumerate(points.view(-1, 2).tolist()):
        assert_same_points(found(detections, image)[:1], [tuple(point)], 0.5)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 70)])
def test_a_constant_map_gives_one_point(size: tuple[int, int]) -> None:
    assert len(found(decode(torch.full((1, 1, *size), 0.02), 1, min_distance_px=0))) == 1


def test_equal_cells_of_quantised_noise_are_found_once() -> None:
    heatmaps = (torch.rand(2, 2, 30, 41, generator=torch.Generator().manual_seed(5)) * 4).ceil() / 4
    detections = decode(heatmaps, 1, max_keypoints=1000, score_threshold=0.3, min_distance_px=0)
    for b, c in product(range(2), range(2)):
        expected = count_peaks(heatmaps[b, c].numpy(), 0.3)
        assert len(found(detections, b, c)) == expected > 5


def count_peaks(heatmap: np.ndarray, threshold: float) -> int:
    """Count cells that no neighbour exceeds and that exceed those before them by column, then row."""
    height, width = heatmap.shape
    count = 0
    for j, i in product(range(height), range(width)):
        around = set(product(range(max(j - 1, 0), min(j + 2, height)), range(max(i - 1, 0), min(i + 2, width))))
        before = {(b, a) for b, a in around if (a, b) < (i, j)}
        highest = all(heatmap[cell] <= heatmap[j, i] for cell in around)
        count += heatmap[j, i] > threshold and highest and all(heatmap[cell] < heatmap[j, i] for cell in before)
    return count


# ----- bad input


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_and_inf_are_refused_with_their_place(bad: float, dtype: torch.dtype) -> None:
    heatmaps = torch.zeros(3, 4, 70, 90, dtype=dtype)
    heatmaps[2, 1, 69, 0] = bad
    heatmaps[2, 3] = bad
    with pytest.raises(ValueError, match=r"image 2, channel 1 contains NaN or inf \(2 of 12 maps do\)"):
        decode(heatmaps, 1)


def test_bad_arguments_are_refused_by_name() -> None:
    points, visibility = torch.zeros(2, 1, 3, 2), torch.ones(2, 1, 3)
    with pytest.raises(ValueError, match=r"points: expected .*\(B, C, K, 2\), found .* \(2, 1, 3\)"):
        encode(points[..., 0], visibility, (8, 8), 1, 2.0)
    with pytest.raises(ValueError, match=r"points: expected floating-point .*found torch.int64"):
        encode(points.long(), visibility, (8, 8), 1, 2.0)
    with pytest.raises(ValueError, match=r"visibility: expected one flag per point, \(2, 1, 3\).*found \(2, 1\)"):
        encode(points, visibility[..., 0], (8, 8), 1, 2.0)
    with pytest.raises(ValueError, match=r"size: expected a positive \(height, width\).*\(0, 8\)"):
        encode(points, visibility, (0, 8), 1, 2.0)
    with pytest.raises(ValueError, match=r"dtype: expected a floating-point type.*torch.uint8"):
        encode(points, visibility, (8, 8), 1, 2.0, torch.uint8)
    with pytest.raises(ValueError, match=r"heatmaps: expected .*\(B, C, h, w\).*\(8, 8\)"):
        decode(torch.zeros(8, 8), 1)
    with pytest.raises(ValueError, match=r"heatmaps: expected .*\(1, 1, 0, 8\)"):
        decode(torch.zeros(1, 1, 0, 8), 1)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("stride", 0, "stride: expected a whole number.* found 0"),
        ("sigma_px", 0.0, "sigma_px: expected a positive number.*found 0.0"),
        ("sigma_px", math.nan, "sigma_px: expected a positive number.*found nan"),
        ("max_keypoints", 0, "max_keypoints: expected 1 or more.*found 0"),
        ("score_threshold", 1.5, "score_threshold: expected a number from 0 to 1, found 1.5"),
        ("min_distance_px", -1.0, "min_distance_px: expected 0 or more.*found -1.0"),
    ],
)
def test_the_codec_refuses_fields_out_of_range(field: str, value: float, text: str) -> None:
    fields = {"stride": 1, "sigma_px": 2.0, "max_keypoints": 9, "score_threshold": 0.1, "min_distance_px": 2.0}
    with pytest.raises(ValueError, match=text):
        HeatmapCodec(**{**fields, field: value})


def test_the_codec_hands_its_fields_on() -> None:
    codec = HeatmapCodec(stride=2, sigma_px=3.0, max_keypoints=4, score_threshold=0.2, min_distance_px=5.0)
    points, visibility = torch.tensor([[[[9.0, 11.0], [21.5, 3.2]]]]), torch.tensor([[[2, 1]]])
    heatmaps = codec.encode(points, visibility, (25, 31))
    assert heatmaps.dtype == torch.float32
    assert heatmaps.shape[2:] == heatmap_size((25, 31), 2) == (13, 16)
    assert torch.equal(heatmaps, encode(points, visibility, (25, 31), 2, 3.0))
    expected = decode(heatmaps, 2, max_keypoints=4, score_threshold=0.2, min_distance_px=5.0)
    assert codec.decode(heatmaps).points.tolist() == expected.points.tolist()
    assert_same_points(found(expected), [(9.0, 11.0), (21.5, 3.2)], 0.01)
