import math

import torch

from keypoint_detection.codec.peaks import find_peaks, keep_first_of_equals


def test_the_highest_peaks_come_in_order_and_the_cut_is_told() -> None:
    maps = torch.zeros(2, 20, 40)
    for height, row, column in [(0.2, 3, 5), (0.9, 10, 30), (0.5, 19, 0), (0.5, 0, 39)]:
        maps[0, row, column] = height
    peaks = find_peaks(maps, 3, 0.1)
    torch.testing.assert_close(peaks.scores, torch.tensor([[0.9, 0.5, 0.5], [0.0, 0.0, 0.0]]))
    assert peaks.cells[0].tolist() == [[30, 10], [0, 19], [39, 0]]
    assert peaks.is_cut.tolist() == [True, False]
    assert keep_first_of_equals(maps, peaks).cells.tolist() == peaks.cells.tolist()


def test_no_peak_above_the_threshold_leaves_no_slots() -> None:
    peaks = find_peaks(torch.full((3, 9, 9), 0.5), 4, 0.5)
    assert peaks.scores.shape == (3, 0)
    assert peaks.cells.shape == (3, 0, 2)
    assert not peaks.is_cut.any()


def test_totals_tell_maps_that_are_not_finite() -> None:
    maps = torch.rand(5, 11, 7, generator=torch.Generator().manual_seed(0))
    maps[1, 10, 6], maps[2, 0, 0], maps[4, 5, 3] = math.nan, math.inf, -math.inf
    totals = find_peaks(maps, 4, 0.1).totals
    assert totals.isfinite().tolist() == [True, False, False, True, False]


def test_of_equal_neighbours_the_first_by_column_then_row_stays() -> None:
    maps = torch.zeros(2, 12, 12)
    maps[0, 4, 2:7] = 0.6  # five in a row: the leftmost
    maps[0, 9:11, 8] = 0.4  # two in a column: the upper one
    maps[0, 7, 1], maps[0, 6, 2] = 0.5, 0.5  # a diagonal: that of the left column
    maps[1, 5, 5] = 0.6
    peaks = find_peaks(maps, 20, 0.1)
    assert (peaks.scores > 0).sum(1).tolist() == [9, 1]
    kept = keep_first_of_equals(maps, peaks)
    assert kept.cells[0].tolist() == [[2, 4], [1, 7], [8, 9]]
    torch.testing.assert_close(kept.scores, torch.tensor([[0.6, 0.5, 0.4], [0.6, 0.0, 0.0]]))
    assert kept.cells[1, 0].tolist() == [5, 5]
