import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keypoint_detection.drawing import (
    Drawable,
    Heatmaps,
    LabelledPanel,
    PointSet,
    as_jpeg,
    draw_contact_sheet,
    draw_overlay,
)
from keypoint_detection.marks import PALETTE, Pen, colour_of, fit_radius


def points(predicted=(), scores=(), true=()):
    return PointSet(
        np.array(predicted, np.float32).reshape(1, -1, 2),
        np.array(scores, np.float32).reshape(1, -1),
        np.array(true, np.float32).reshape(1, -1, 2),
        np.ones((1, len(true)), dtype=bool),
    )


def marked(image, colour):
    """Mean (x, y) in continuous coordinates of the pixels of one colour, above the legend."""
    pixels = np.array(image)[:500]
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    assert len(rows) > 0
    return [columns.mean() + 0.5, rows.mean() + 0.5]


def over(heatmaps, size=(100, 160)):
    """Heatmaps that cover an image of a size, (height, width)."""
    scales = heatmaps.shape[2] / size[1], heatmaps.shape[1] / size[0]
    return Heatmaps(heatmaps, np.array([[scales[0], 0, 0], [0, scales[1], 0]]))


BLANK = np.full((100, 160, 3), 128, np.uint8)


@pytest.mark.parametrize("point", [[50.0, 30.0], [80.5, 60.5], [20.25, 70.75]])
def test_a_cross_is_drawn_exactly_where_the_point_is(point):
    image = draw_overlay(BLANK, points(predicted=[point], scores=[0.9]), ["a"], min_score=0.1)
    factor = image.width / 160
    assert factor == 5
    assert marked(image, PALETTE[0]) == pytest.approx([factor * value for value in point], abs=0.75)


def test_a_circle_is_centred_on_the_truth():
    image = draw_overlay(BLANK, points(true=[[40.0, 50.0]]), ["a"], min_score=0.1)
    assert marked(image, PALETTE[0]) == pytest.approx([200, 250], abs=0.75)


def test_weak_predictions_and_unlabelled_truths_are_not_drawn():
    sets = points(predicted=[[50.0, 30.0]], scores=[0.05], true=[[40.0, 50.0]])
    sets = sets._replace(is_labelled=np.zeros((1, 1), bool))
    assert (np.array(draw_overlay(BLANK, sets, ["a"], min_score=0.1))[:500] == 128).all()


def test_heatmaps_stand_beside_the_picture_in_the_colour_of_their_channel():
    heatmaps = np.zeros((2, 100, 160), np.float32)
    heatmaps[1, 30:40, 50:60] = 1
    empty = PointSet.of_predictions([np.zeros((0, 2))] * 2, [np.zeros(0)] * 2)
    image = np.array(draw_overlay(BLANK, empty, ["a", "b"], over(heatmaps), min_score=0.1)).astype(int)
    assert image.shape[1] == 2 * 800
    inside, outside = image[35 * 5, 800 + 55 * 5], image[10, 800 + 10]
    assert np.abs(inside - PALETTE[1]).sum() < np.abs(outside - PALETTE[1]).sum() / 2
    assert len(set(outside.tolist())) == 1


def test_the_legend_grows_with_the_number_of_channels():
    empty = PointSet.of_predictions([], [])
    few, many = (draw_overlay(BLANK, empty, [f"channel {i}" for i in range(n)], min_score=0.1).height for n in (1, 60))
    assert many > few > 500


def test_a_narrow_strip_is_not_enlarged_beyond_reason():
    strip = np.full((40, 5000, 3), 128, np.uint8)
    assert draw_overlay(strip, points(), ["a"], min_score=0.1).width == 5000
    assert draw_overlay(strip[:, :500], points(), ["a"], min_score=0.1).width == 8 * 500


def test_marks_and_legend_grow_with_the_image():
    sizes = []
    for height in (480, 3000):
        image = np.full((height, height * 4 // 3, 3), 128, np.uint8)
        drawn = draw_overlay(image, points(predicted=[[height / 2, height / 2]], scores=[0.9]), ["a"], min_score=0.1)
        assert drawn.width == image.shape[1]
        rows = np.nonzero((np.array(drawn)[:height] == PALETTE[0]).all(axis=2))[0]
        sizes.append((np.ptp(rows) / height, (drawn.height - height) / height))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)
    assert min(sizes[1]) > 0.02


@pytest.mark.parametrize("draw", [Pen.outline, Pen.cross])
def test_no_two_of_seventy_channels_look_alike_and_neighbours_differ_in_shape(draw):
    marks = []
    for channel in range(70):
        image = Image.new("RGB", (40, 40), "grey")
        draw(Pen(ImageDraw.Draw(image), 8, 1), 20, 20, channel)
        marks.append(np.array(image))
    assert len({mark.tobytes() for mark in marks}) == 70
    shapes = [(mark == colour_of(channel)).all(axis=2) for channel, mark in enumerate(marks)]
    assert all(shape.any() for shape in shapes)
    # Without colours, one channel is told from the four that follow it.
    assert all((one != other).any() for lag in (1, 2, 3, 4) for one, other in zip(shapes, shapes[lag:], strict=False))


def test_the_legend_shows_the_marks():
    """Channels 0 and 7 share a colour."""
    nothing = PointSet.of_predictions([np.zeros((0, 2))] * 8, [np.zeros(0)] * 8)
    legend = np.array(draw_overlay(BLANK, nothing, list("abcdefgh"), min_score=0.1))[500:]
    columns = np.nonzero((legend == PALETTE[0]).all(axis=2).any(axis=0))[0]
    first, last = columns[columns < columns.mean()], columns[columns > columns.mean()]
    marks = [legend[:, part.min() : part.max() + 1] for part in (first, last)]
    assert marks[0].shape != marks[1].shape or (marks[0] != marks[1]).any()


def test_names_in_other_scripts_are_legible():
    """A character that the font lacks would be a box, the same for all."""
    names = ["\u2014", "\u03b1", "\u0436", "\ue123"]
    assert len({np.array(draw_overlay(BLANK, points(), [name], min_score=0.1))[-30:].tobytes() for name in names}) == 4


def test_a_contact_sheet_strikes_occluded_points_through_and_says_so():
    def sheet(visibility):
        panel = LabelledPanel(
            "a", np.zeros((100, 100, 3), np.uint8), np.full((1, 1, 2), 50.0), np.array([[visibility]])
        )
        return np.array(draw_contact_sheet([[panel]], ["p"], "labels"))

    hidden, visible, unlabelled = map(sheet, (1, 2, 0))
    n_coloured = [int((one[-420:] == PALETTE[0]).all(axis=2).sum()) for one in (hidden, visible, unlabelled)]
    assert n_coloured[0] > 1.3 * n_coloured[1] > n_coloured[2] == 0
    headings = [one[:-420] for one in (hidden, visible, unlabelled)]
    assert (headings[1] == headings[2]).all()
    assert (headings[0] != headings[1]).any()


def test_names_in_the_legend_are_white():
    legend = np.array(draw_overlay(BLANK, points(), ["a_long_name"], min_score=0.1))[500:]
    assert (legend == 255).all(axis=2).sum() > 100


def test_marks_of_dense_points_are_smaller_and_those_of_good_predictions_are_not():
    near = points(predicted=[[50.0, 50.0]], scores=[0.9], true=[[50.5, 50.0]])
    alone = points(true=[[50.0, 50.0]])
    dense = points(true=[[50.0 + 0.5 * number, 50.0] for number in range(20)])
    heights = []
    for one in (alone, near, dense):
        is_mark = (np.array(draw_overlay(BLANK, one, ["a"], min_score=0.1))[:500] == PALETTE[0]).all(axis=2)
        heights.append(np.ptp(np.nonzero(is_mark)[0]))
    assert heights[1] == heights[0] > 1.3 * heights[2]


def test_heatmaps_that_coincide_are_mixed():
    heatmaps = np.zeros((2, 100, 160), np.float32)
    heatmaps[:, 30:40, 50:60] = 0.9
    empty = PointSet.of_predictions([np.zeros((0, 2))] * 2, [np.zeros(0)] * 2)
    image = np.array(draw_overlay(BLANK, empty, ["a", "b"], over(heatmaps), min_score=0.1)).astype(float)
    opacity = 1 - 0.25 * 0.25
    expected = opacity * np.mean(PALETTE[:2], axis=0) + (1 - opacity) * 0.6 * 128
    assert image[35 * 5, 800 + 55 * 5] == pytest.approx(expected, abs=1)


def test_weak_heatmaps_can_be_seen_and_the_legend_has_their_maximum():
    heatmaps = np.zeros((1, 100, 160), np.float32)
    heatmaps[0, 30:40, 50:60] = 0.04
    empty = PointSet.of_predictions([np.zeros((0, 2))], [np.zeros(0)])
    image = np.array(draw_overlay(BLANK, empty, ["a"], over(heatmaps), min_score=0.1)).astype(float)
    assert image[35 * 5, 800 + 55 * 5] == pytest.approx(0.75 * np.array(PALETTE[0]) + 0.25 * 0.6 * 128, abs=1)
    heatmaps[0, 30:40, 50:60] = 0.001  # noise stays noise
    image = np.array(draw_overlay(BLANK, empty, ["a"], over(heatmaps), min_score=0.1)).astype(float)
    assert image[35 * 5, 800 + 55 * 5] == pytest.approx([0.6 * 128] * 3, abs=6)


def test_an_image_is_drawn_at_its_own_resolution_with_its_points_where_they_are():
    """The network saw a 40 x 64 letterbox of a 300 x 600 image: scaled by 64 / 600, with bars of 4 px."""
    scale = 64 / 600
    original = np.full((300, 600, 3), 128, np.uint8)
    seen = points(predicted=[[400 * scale, 100 * scale + 4]], scores=[0.9])
    heatmaps = np.zeros((1, 20, 32), np.float16)
    heatmaps[0, 7, 21] = 1  # rows 14 to 16 and columns 42 to 44 of the letterbox
    image_of = np.array([[1 / scale, 0, 0], [0, 1 / scale, -4 / scale]])
    drawable = Drawable(np.zeros((40, 64, 3), np.uint8), seen, heatmaps, image_of, (300, 600))
    image = np.array(drawable.draw_original(original, 2000, ["a"], 0.1))
    assert image.shape[1] == 2 * 1200  # enlarged to 480 rows and more
    rows, columns = np.nonzero((image[:600, :1200] == PALETTE[0]).all(axis=2))
    assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx([800, 200], abs=1)
    tinted = (np.ptp(image[:600, 1200:].astype(int), axis=2) > 20).nonzero()
    assert [tinted[1].min() / 2, (tinted[1].max() + 1) / 2] == pytest.approx([42 / scale, 44 / scale], abs=1)
    assert [tinted[0].min() / 2, (tinted[0].max() + 1) / 2] == pytest.approx([10 / scale, 12 / scale], abs=1)
    small = np.array(drawable.draw_original(original, 400, ["a"], 0.1))
    assert small.shape[1] == 2 * 1200  # 200 rows, enlarged
    rows, columns = np.nonzero((small[:600, :1200] == PALETTE[0]).all(axis=2))
    assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx([800, 200], abs=1)


def test_the_legend_of_many_channels_leaves_room_for_a_large_image():
    names = [f"left_or_right_part_{number}" for number in range(17)]
    points = PointSet.of_predictions([np.zeros((0, 2), np.float32)] * 17, [np.zeros(0, np.float32)] * 17)
    overlay = draw_overlay(np.zeros((1500, 2000, 3), np.uint8), points, names, min_score=0.1)
    assert overlay.width == 2000
    assert 1500 * 1.05 < overlay.height <= 1500 * 1.15


@pytest.mark.parametrize(("scale", "radius"), [(1.0, 4.0), (1.5, 4.0), (4.0, 10.0)])
def test_the_marks_of_points_that_coincide_stay_legible(scale, radius):
    assert fit_radius(np.zeros((4, 2)), scale) == radius


def test_a_jpeg_is_no_wider_than_needed():
    image = Image.open(io.BytesIO(as_jpeg(Image.new("RGB", (300, 100), "red"), max_width_px=150)))
    assert (image.format, image.size) == ("JPEG", (150, 50))
    assert Image.open(io.BytesIO(as_jpeg(Image.new("RGB", (30, 10)), max_width_px=150))).size == (30, 10)
