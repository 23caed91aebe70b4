import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from spot_detector import blob_image, make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.checkpoints.files import CheckpointError
from keypoint_detection.images import ImageError
from keypoint_detection.inference.results import Point

EXIF_ORIENTATION = 0x0112
ROTATE_90_CLOCKWISE = 6


def only_point(result) -> Point:
    points = list(result)
    assert len(points) == len(result) == 1
    return points[0]


@pytest.mark.parametrize("size", [(48, 64), (60, 80), (100, 64), (40, 200)])
def test_points_are_in_pixels_of_the_image_given(checkpoint, size):
    x, y = 0.3 * size[1], 0.6 * size[0]
    point = only_point(Predictor.from_checkpoint(checkpoint)(blob_image(x, y, size)))
    assert point.channel == "spot"
    assert (point.x, point.y) == pytest.approx((x, y), abs=0.05 * max(1, size[1] / 64))


def test_every_form_of_an_image_gives_the_same_point(checkpoint, tmp_path):
    pixels = blob_image(33.25, 21.5)
    forms = [
        pixels,
        pixels[..., 0],
        pixels[..., ::-1],
        pixels.astype(np.float32) / 255,
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels[..., 0])[None],
        Image.fromarray(pixels),
        save(pixels, tmp_path / "a.png"),
        str(tmp_path / "a.png"),
    ]
    detector = Predictor.from_checkpoint(checkpoint)
    points = [only_point(detector(form)) for form in forms]
    assert points == [points[0]] * len(forms)
    together = [only_point(result) for result in detector(forms)]
    assert [point[1:4] for point in together] == [pytest.approx(points[0][1:4])] * len(forms)


def test_images_of_a_list_may_differ_in_size_where_no_size_was_set(tmp_path):
    detector = Predictor.from_checkpoint(make_checkpoint(tmp_path))
    places = [(10.5, 20.0, (48, 64)), (30.0, 40.5, (64, 48)), (50.0, 10.0, (48, 64))]
    found = [only_point(result) for result in detector([blob_image(x, y, size) for x, y, size in places])]
    assert [(point.x, point.y) for point in found] == [pytest.approx(place[:2], abs=0.05) for place in places]


def test_exif_orientation_is_followed(checkpoint, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATE_90_CLOCKWISE
    upright = blob_image(20.0, 50.0, (80, 60))
    path = save(np.rot90(upright), tmp_path / "a.png", exif=exif)
    point = only_point(Predictor.from_checkpoint(checkpoint)(path))
    assert (point.x, point.y) == pytest.approx((20.0, 50.0), abs=0.1)


def test_pixel_index_coordinates_lie_half_a_pixel_lower(checkpoint):
    image = blob_image(33.25, 21.5)
    continuous = only_point(Predictor.from_checkpoint(checkpoint, coordinates="continuous")(image))
    index = only_point(Predictor.from_checkpoint(checkpoint, coordinates="pixel_index")(image))
    assert (index.x, index.y) == pytest.approx((continuous.x - 0.5, continuous.y - 0.5))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 40, 60), np.uint8), "transpose"),
        (np.zeros((40, 60, 4), np.uint8), "alpha"),
        (np.zeros((2, 40, 60, 3), np.uint8), "list"),
        (np.full((40, 60, 3), 2.0), "values from 2 to 2"),
        (np.full((40, 60, 3), np.nan), "nan"),
        (np.zeros((40, 60, 3), np.int64), "int64"),
        (torch.zeros(40, 60, 3, dtype=torch.uint8), "permute"),
        (torch.zeros(40, 60, dtype=torch.uint8), r"image\[None\]"),
        (np.zeros((0, 60, 3), np.uint8), "shape"),
        ("none.png", "none.png: no such file"),
    ],
)
def test_what_is_not_an_image_is_refused(checkpoint, image, message):
    detector = Predictor.from_checkpoint(checkpoint)
    with pytest.raises((ValueError, ImageError), match=message):
        detector(image)
    with pytest.raises((ValueError, ImageError), match=r"images\[1\]"):
        detector([np.zeros((40, 60, 3), np.uint8), image])


def test_bfloat16_is_as_good_as_its_precision(checkpoint):
    image = torch.from_numpy(blob_image(33.25, 21.5)).permute(2, 0, 1) / 255
    point = only_point(Predictor.from_checkpoint(checkpoint)(image.bfloat16()))
    assert (point.x, point.y) == pytest.approx((33.25, 21.5), abs=0.3)


@pytest.mark.parametrize("option", [{"coordinates": "pixel-index"}, {"device": "abacus"}, {"device": "cuda:99"}])
def test_options_out_of_range_are_refused(checkpoint, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} is '"):
        Predictor.from_checkpoint(checkpoint, **option)


def test_points_have_an_order_and_channels_a_name(checkpoint):
    result = Predictor.from_checkpoint(checkpoint)(blob_image(33.25, 21.5))
    assert result[0] == next(iter(result))
    with pytest.raises(IndexError):
        result[1]
    with pytest.raises(KeyError, match="no channel 'snuot', but 'spot'"):
        result.xy["snuot"]


def test_an_image_of_another_type_is_refused(checkpoint):
    with pytest.raises(TypeError, match="found int"):
        Predictor.from_checkpoint(checkpoint)(3)


def test_arrays_and_heatmaps_say_the_same_as_the_points(checkpoint):
    result = Predictor.from_checkpoint(checkpoint)(blob_image(33.0, 21.0), heatmaps=True)
    point = only_point(result)
    assert result.xy["spot"].tolist() == [[pytest.approx(point.x), pytest.approx(point.y)]]
    assert result.scores["spot"].tolist() == [pytest.approx(point.score)]
    assert result.heatmaps.shape == (1, 48, 64)
    assert result.heatmaps.max() == pytest.approx(point.score)


def test_an_image_without_points_gives_empty_arrays(checkpoint):
    result = Predictor.from_checkpoint(checkpoint)(np.zeros((40, 60, 3), np.uint8))
    assert (len(result), list(result), result.xy["spot"].shape) == (0, [], (0, 2))
    assert Predictor.from_checkpoint(checkpoint)([]) == []


def test_a_score_threshold_leaves_points_out(checkpoint):
    dim = (blob_image(33.0, 21.0) * 0.8).astype(np.uint8)
    assert len(Predictor.from_checkpoint(checkpoint, score_threshold=0.7)(dim)) == 1
    assert len(Predictor.from_checkpoint(checkpoint, score_threshold=0.8)(dim)) == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        Predictor.from_checkpoint(checkpoint, score_threshold=1.5)


def test_threads_get_what_one_thread_gets(checkpoint):
    detector = Predictor.from_checkpoint(checkpoint)
    images = [blob_image(10.0 + 5 * index, 30.0) for index in range(8)]
    expected = [only_point(detector(image)) for image in images]
    found: list[Point | None] = [None] * len(images)

    def detect(index):
        found[index] = only_point(detector(images[index]))

    threads = [threading.Thread(target=detect, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_the_points_are_drawn_where_they_are(checkpoint):
    picture = np.asarray(Predictor.from_checkpoint(checkpoint).draw(blob_image(40.0, 30.0)))
    factor = 8  # small images are enlarged to at least 480 rows
    assert picture.shape[1] == 80 * factor
    assert (
        (picture[30 * factor - 2 : 30 * factor + 2, 40 * factor - 2 : 40 * factor + 2] == (230, 159, 0)).all(-1).any()
    )


def test_a_backbone_of_the_users_own_is_found_only_once_imported(checkpoint):
    code = f"from keypoint_detection import Predictor; Predictor.from_checkpoint({str(checkpoint)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkpoint.parent)
    assert "import spot_detector first" in done.stderr


def test_the_python_interface_loads_nothing_that_training_needs():
    heavy = ("lightning", "pytorch_lightning", "wandb", "pycocotools", "torchmetrics")
    code = (
        "import sys; from keypoint_detection import Predictor; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a kpd checkpoint"):
        Predictor.from_checkpoint(tmp_path / "other.ckpt")


def test_a_validation_that_found_nothing_gives_no_threshold(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["validation"] = {"epoch": 1, "step": 1, "report": {"overall": {"score_threshold": float("nan")}}}
    torch.save(content, checkpoint)
    detector = Predictor.from_checkpoint(checkpoint)
    assert detector.score_threshold == pytest.approx(0.6)
    assert only_point(detector(blob_image(20.0, 30.0)))


def test_a_calibrated_detector_says_how_sure_it_is(calibrated_checkpoint):
    detector = Predictor.from_checkpoint(calibrated_checkpoint)
    result = detector(blob_image(40.0, 30.0))
    point = only_point(result)
    assert result.thresholds_px == (2.0, 5.0)
    odds = point.score / (1 - point.score)
    assert point.probability == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert result.probabilities["spot"][0, 0] == pytest.approx(odds / (odds + np.e**2), abs=1e-5)
    assert result.covariances["spot"].shape == (1, 2, 2)
    (xx, xy), (yx, yy) = point.covariance
    assert xx == pytest.approx(yy, rel=0.2)
    assert abs(xy) < 0.1 * xx
    assert xy == yx
    assert point.spread == pytest.approx(((xx + yy) / 2) ** 0.5)


def test_errors_grow_with_the_image(tmp_path, calibrated_checkpoint):
    detector = Predictor.from_checkpoint(calibrated_checkpoint)
    small = blob_image(32.0, 24.0, (48, 64))
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    one, other = only_point(detector(small)), only_point(detector(large))
    assert other.spread == pytest.approx(3 * one.spread, rel=0.05)


def test_without_a_calibration_nothing_is_claimed(checkpoint):
    result = Predictor.from_checkpoint(checkpoint)(blob_image(40.0, 30.0))
    point = only_point(result)
    assert point[4:] == (None,) * 4
    assert point.spread is None
    assert result.thresholds_px == ()
    assert result.probabilities == result.covariances == {}
