import numpy as np
import pytest
from spot_detector import blob_image

from keypoint_detection import Predictor
from keypoint_detection.inference.suggesting import (
    Impression,
    choose_images,
    make_thumbnail,
    measure_doubts,
    take_impression,
)


@pytest.mark.parametrize("size", [(60, 80), (61, 83)])
@pytest.mark.parametrize("mirrored", [None, [0]])
def test_a_point_that_stays_where_it_is_does_not_shift(checkpoint, size, mirrored):
    detector = Predictor.from_checkpoint(checkpoint, score_threshold=0.0, coordinates="continuous")
    found = take_impression(detector, blob_image(20.25, 30.5, size), mirrored)
    assert found.scores[0][0] > 0.9
    assert found.shifts[0][0] < 0.1  # a tenth of 5 px


def test_the_mirror_image_is_compared_with_the_twin_of_a_channel(checkpoint):
    class Sides:
        """Finds a left point at the left and a right point at the right of every image."""

        channels = ("left", "right")

        def __call__(self, images):
            detector = Predictor.from_checkpoint(checkpoint, score_threshold=0.0, coordinates="continuous")
            results = detector(images)
            for image, result in zip(images, results, strict=True):
                points = result.xy.pop("spot")[:1]
                is_left = points[:, 0] < image.shape[1] / 2
                scores = result.scores.pop("spot")[:1]
                result.xy.update(left=points[is_left], right=points[~is_left])
                result.scores.update(left=scores[is_left], right=scores[~is_left])
            return results

    pixels = blob_image(20.25, 30.5)
    assert take_impression(Sides(), pixels, [1, 0]).shifts[0][0] < 0.1
    assert take_impression(Sides(), pixels, [0, 1]).shifts[0][0] == pytest.approx(0.5, abs=0.1)  # one copy of two


def impression(*channels):
    scores = [np.array([score for score, _ in points], np.float32) for points in channels]
    shifts = [np.array([shift for _, shift in points], np.float32) for points in channels]
    return Impression(scores, shifts, np.zeros(1, np.float32))


def test_doubts_by_hand():
    sure = impression([(1.0, 0.0)], [(1.0, 0.0), (1.0, 0.0)])
    doubts = measure_doubts(
        [
            sure,
            sure,
            sure,
            impression([(0.6, 0.0)], [(1.0, 0.0), (1.0, 0.0)]),  # a low score: 0.4 and 0
            impression([(1.0, 0.5)], [(1.0, 0.0), (1.0, 0.0)]),  # a shift: 0.5 and 0
            impression([(1.0, 0.0)], [(1.0, 0.0), (1.0, 0.0), (0.3, 1.0)]),  # one too many: 0 and 0.3
            impression([], [(1.0, 0.0), (1.0, 0.0)]),  # nothing found: 2 and 0
            impression([(1.0, 0.0)], [(1.0, 0.0)]),  # one of two: 0 and 1
        ],
        score_threshold=0.5,
    )
    worst = np.array([0, 0, 0, 0.4, 0.5, 0.3, 2, 1])
    assert doubts == pytest.approx(worst / 2 + worst / 2, abs=1e-6)


def test_images_alike_are_not_chosen_together():
    rng = np.random.default_rng(0)
    scenes = rng.random((4, 50)).astype(np.float32)
    thumbnails = np.stack([scenes[0], scenes[0] + 0.001, scenes[1], scenes[2], scenes[3]])
    doubts = np.array([1.0, 0.99, 0.5, 0.4, 0.3])
    none = np.zeros((0, 50), np.float32)
    assert choose_images(doubts, thumbnails, none, 3) == [0, 2, 3]
    assert choose_images(doubts, thumbnails, none, 9) == [0, 2, 3, 4, 1]
    assert choose_images(doubts, thumbnails, scenes[:1], 2) == [2, 3]
    assert choose_images(doubts[:1], thumbnails[:1], none, 5) == [0]
    copies = np.stack([scenes[0], scenes[0], scenes[1]])
    assert choose_images(doubts[:3], copies, none, 3) == [0, 2]
    assert choose_images(doubts[:3], copies, scenes[1:2], 3) == [0]


def test_a_thumbnail_is_grey_and_small():
    assert make_thumbnail(np.full((480, 640, 3), 255, np.uint8)) == pytest.approx(np.ones(32 * 24))


def test_without_doubts_the_farthest_image_comes_next():
    thumbnails = np.array([[0.0], [0.1], [0.2], [0.5], [0.9], [1.0]], np.float32)
    assert choose_images(None, thumbnails, np.zeros((0, 1), np.float32), 4) == [0, 5, 3, 2]
    assert choose_images(None, thumbnails, np.array([[0.0]], np.float32), 2) == [5, 3]
