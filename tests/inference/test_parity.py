import numpy as np
import pytest

from keypoint_detection.inference.parity import Points, count_regrouped, match_points


def as_points(*triples, objects=None):
    values = np.array(triples, np.float32).reshape(-1, 3)
    objects = np.full(len(values), -1) if objects is None else np.array(objects)
    return Points(values[:, :2], values[:, 2], 2 * values[:, 2], 1 - values[:, 2], objects)


def test_points_are_paired_one_to_one_the_nearest_first():
    one = as_points((10.0, 10.0, 0.9), (10.6, 10.0, 0.8), (30.0, 10.0, 0.7))
    other = as_points((10.5, 10.0, 0.85), (9.75, 10.0, 0.5), (50.0, 10.0, 0.4))
    matched, unmatched = match_points(one, other)
    assert len(matched) == 2
    assert matched[:, :5] == pytest.approx(
        np.array([[0.1, 0.05, 0.1, 0.05, 0.8], [0.25, 0.4, 0.8, 0.4, 0.9]]), abs=1e-6
    )
    assert unmatched.tolist() == pytest.approx([0.7, 0.4])


def test_one_point_is_not_the_pair_of_two():
    matched, unmatched = match_points(as_points((10.0, 10.0, 0.9), (10.4, 10.0, 0.8)), as_points((10.1, 10.0, 0.9)))
    assert len(matched) == 1
    assert unmatched.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("swap", [False, True])
def test_where_one_finds_nothing_all_points_are_without_a_pair(swap):
    pair = [as_points(), as_points((1.0, 2.0, 0.9))]
    matched, unmatched = match_points(*(pair[::-1] if swap else pair))
    assert matched.shape == (0, 7)
    assert unmatched.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("objects", "n_regrouped"),
    [
        ([0, 0, 1], 0),
        ([1, 1, 0], 0),  # the same objects in another order
        ([0, 1, 1], 3),
        ([0, 0, -1], 1),
        ([-1, -1, -1], 3),
    ],
)
def test_points_that_change_their_object_are_counted(objects, n_regrouped):
    places = (10.0, 10.0, 0.9), (20.0, 10.0, 0.8), (30.0, 10.0, 0.7)
    matched, _ = match_points(as_points(*places, objects=[0, 0, 1]), as_points(*places, objects=objects))
    assert count_regrouped(matched, min_score=0.5) == n_regrouped
    assert count_regrouped(matched, min_score=0.85) == (matched[matched[:, 4] > 0.85, 6] < 0).sum()
