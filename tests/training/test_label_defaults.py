import logging
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from keypoint_detection.boxes.scene import KEYPOINT_NAMES
from keypoint_detection.cli import run
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.models.backbones import Unet
from keypoint_detection.training.label_defaults import fill_in_group, fill_in_max_keypoints


def settings_of(**data):
    defaults = {"train": None, "synthetic": None, "image_root": None, "coordinates": "continuous"}
    defaults |= {"missing_images": "error", "outside_images": "error"}
    return Namespace(**(defaults | {"categories": None, "visible_only": False} | data))


def filled_in(channels, **data):
    model = Namespace(channels=channels, max_keypoints=None)
    fill_in_max_keypoints(model, settings_of(**data))
    return model.max_keypoints


def grouped(group=None, **data):
    model = Namespace(channels=None, group=group)
    fill_in_group(model, settings_of(**data))
    return model.group


def own_lines(caplog):
    """The log lines of the package: threads of W&B from earlier tests may write some, too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("keypoint_detection")]


def annotate(*keypoints):
    return [{"id": n, "image_id": 1, "category_id": 1, "keypoints": one} for n, one in enumerate(keypoints)]


@pytest.mark.parametrize(
    ("channels", "expected"), [(["red", "left"], 1), ({"all": ["red", "left", "right"], "red": ["red"]}, 3), (None, 1)]
)
def test_a_channel_keeps_as_many_points_as_an_image_of_the_training_file_has(discs, channels, expected, caplog):
    with caplog.at_level(logging.INFO):
        assert filled_in(channels, train=str(discs)) == expected
    (said,) = own_lines(caplog)
    assert f"At most {expected} point" in said
    assert str(discs) in said


def test_points_that_do_not_count_are_not_counted(write_coco):
    entries = [{"id": n, "image_id": 1, "category_id": 1, "keypoints": [1, 2, n, 3, 4, 1]} for n in (1, 2)]
    path = str(write_coco(annotations=entries))
    assert filled_in(["nose", "tail"], train=path) == 2
    assert filled_in(["nose", "tail"], train=path, visible_only=True) == 1
    assert filled_in(["tail"], train=path, visible_only=True) == 1  # nothing is labelled


def test_an_image_that_is_drawn_shows_one_box():
    assert filled_in(list(KEYPOINT_NAMES), synthetic=Namespace()) == 1
    assert filled_in({"corner": KEYPOINT_NAMES[:4], "flap": KEYPOINT_NAMES[4:]}, synthetic=Namespace()) == 8
    assert filled_in(list(KEYPOINT_NAMES), synthetic=Namespace(max_boxes=3)) == 3
    assert [grouped(synthetic=Namespace(max_boxes=number)) for number in (1, 3)] == [False, True]


@pytest.mark.parametrize(
    ("keypoints", "expected"),
    [
        ([[1, 2, 2, 3, 4, 2], [5, 6, 2, 0, 0, 0]], True),
        ([[1, 2, 2, 3, 4, 2]], False),
        ([[1, 2, 2, 0, 0, 0], [5, 6, 2, 0, 0, 0]], False),  # single points have no others to be grouped with
        ([[1, 2, 2, 3, 4, 2], [0, 0, 0, 0, 0, 0]], False),
    ],
)
def test_points_are_grouped_if_an_image_has_several_objects(write_coco, keypoints, expected, caplog):
    path = str(write_coco(annotations=annotate(*keypoints)))
    with caplog.at_level(logging.INFO):
        assert grouped(train=path) == expected
        assert grouped(group=False, train=path) is False
    assert own_lines(caplog) == [
        f"Points are grouped into objects: 1 image of {path} has several objects. --model.group=false leaves that out."
    ] * int(expected)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert grouped(group=True, train=path) is True
    assert any("there is nothing to learn" in line for line in own_lines(caplog)) != expected


def test_the_number_is_that_of_the_checkpoint_unless_it_is_given(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[1] / "conf" / "tiny.yaml"
    run(["fit", f"--config={config}", f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_steps=1"])
    (path,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert torch.load(path, weights_only=True)["hyper_parameters"]["max_keypoints"] == 1
    assert "max_keypoints: 1\n" in (path.parents[1] / "config.yaml").read_text()
    assert load_detector(str(path), flip_test=False).codec.max_keypoints == 1
    words = [
        "validate",
        f"--ckpt_path={path}",
        f"--data.val={discs}",
        "--trainer.accelerator=cpu",
        "--data.num_workers=0",
    ]
    assert run(words).model.codec.max_keypoints == 1
    assert run([*words, "--model.max_keypoints=4"]).model.codec.max_keypoints == 4


def test_without_a_training_file_there_is_a_fixed_maximum():
    detector = KeypointDetector(channels=["a"], backbone=Unet)
    assert detector.codec.max_keypoints == detector.hparams["max_keypoints"] == 20
