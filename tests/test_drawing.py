import numpy as np
import pytest

from keypoint_detection.drawing import PALETTE, PointSet, draw_overlay


def points(predicted=(), scores=(), true=()):
    return PointSet(
        np.array(predicted, np.float32).reshape(1, -1, 2),
        np.array(scores, np.float32).reshape(1, -1),
        np.array(true, np.float32).reshape(1, -1, 2),
        np.ones((1, len(true)), dtype=bool),
    )


def marked(image, colour):
    """Mean (x, y) in continuous coordinates of the pixels of one colour, above the legend."""
    pixels = np.array(image)[:400]
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    assert len(rows) > 0
    return [columns.mean() + 0.5, rows.mean() + 0.5]


BLANK = np.full((100, 160, 3), 128, np.uint8)


@pytest.mark.parametrize("point", [[50.0, 30.0], [80.5, 60.5], [20.25, 70.75]])
def test_a_cross_is_drawn_exactly_where_the_point_is(point):
    image = draw_overlay(BLANK, points(predicted=[point], scores=[0.9]), ["a"], min_score=0.1)
    factor = image.width / 160
    assert factor == 4
    assert marked(image, PALETTE[0]) == pytest.approx([factor * value for value in point], abs=0.75)


def test_a_circle_is_centred_on_the_truth():
    image = draw_overlay(BLANK, points(true=[[40.0, 50.0]]), ["a"], min_score=0.1)
    assert marked(image, PALETTE[0]) == pytest.approx([160, 200], abs=0.75)


def test_weak_predictions_and_unlabelled_truths_are_not_drawn():
    sets = points(predicted=[[50.0, 30.0]], scores=[0.05], true=[[40.0, 50.0]])
    sets = sets._replace(is_labelled=np.zeros((1, 1), bool))
    assert (np.array(draw_overlay(BLANK, sets, ["a"], min_score=0.1))[:400] == 128).all()


def test_heatmaps_stand_beside_the_picture_in_the_colour_of_their_channel():
    heatmaps = np.zeros((2, 100, 160), np.float32)
    heatmaps[1, 30:40, 50:60] = 1
    empty = PointSet.of_predictions([np.zeros((0, 2))] * 2, [np.zeros(0)] * 2)
    image = np.array(draw_overlay(BLANK, empty, ["a", "b"], heatmaps, min_score=0.1)).astype(int)
    assert image.shape[1] == 2 * 640
    inside, outside = image[35 * 4, 640 + 55 * 4], image[10, 640 + 10]
    assert np.abs(inside - PALETTE[1]).sum() < np.abs(outside - PALETTE[1]).sum() / 2
    assert len(set(outside.tolist())) == 1


def test_the_legend_grows_with_the_number_of_channels():
    empty = PointSet.of_predictions([], [])
    few, many = (draw_overlay(BLANK, empty, [f"channel {i}" for i in range(n)], min_score=0.1).height for n in (1, 60))
    assert many > few > 400


def test_a_narrow_strip_is_not_enlarged_beyond_reason():
    strip = np.full((40, 5000, 3), 128, np.uint8)
    assert draw_overlay(strip, points(), ["a"], min_score=0.1).width == 5000
    assert draw_overlay(strip[:, :500], points(), ["a"], min_score=0.1).width == 8 * 500
