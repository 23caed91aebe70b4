import copy
import dataclasses
import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from keypoint_detection import Predictor
from keypoint_detection.boxes.data_set import SyntheticBoxes
from keypoint_detection.checkpoints.content import (
    FORMAT,
    FORMAT_KEY,
    BoxesSettings,
    DataSettings,
    check_content,
    check_plain,
    check_resumable,
)
from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Unet

GOLDEN = torch.load(
    Path(__file__).parents[1] / "assets" / "golden" / "run" / "checkpoints" / "best.ckpt", weights_only=True
)
BOXES = dataclasses.asdict(SyntheticBoxes())
TRANSFORM = "torchvision.transforms.v2.{}".format
BLUR = [{"class_path": TRANSFORM("GaussianBlur"), "init_args": {"kernel_size": [3, 10**6]}}]
RESIZE = {"class_path": TRANSFORM("Resize"), "init_args": {"size": math.inf}}
NESTED = [{"class_path": TRANSFORM("RandomApply"), "init_args": {"transforms": [RESIZE], "p": 0.5}}]
STEM = "network.backbone.stem.weight"


@pytest.fixture
def content():
    return copy.deepcopy(GOLDEN)


def change(content, place, value):
    """Set what a path of keys leads to; a value of `...` deletes it."""
    *parents, last = place
    for key in parents:
        content = content[key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


def test_the_conventions_are_those_of_the_data():
    assert get_args(DataSettings.__annotations__["coordinates"]) == get_args(Coordinates)


def test_what_older_versions_lacked_is_filled_in_as_they_behaved(content):
    for name in ("flip_test", "decay_norms_and_biases", "encoder_lr_factor"):
        del content["hyper_parameters"][name]
    del content["datamodule_hyper_parameters"]["categories"]
    check_content(content)
    assert content["hyper_parameters"]["flip_test"] is False
    assert content["hyper_parameters"]["decay_norms_and_biases"] is True
    assert content["hyper_parameters"]["encoder_lr_factor"] == 1
    assert content["datamodule_hyper_parameters"]["categories"] is None


def test_a_checkpoint_of_this_format_lacks_nothing(content):
    check_content(content)
    content[FORMAT_KEY] = FORMAT
    check_content(content)
    del content["hyper_parameters"]["flip_test"]
    with pytest.raises(ValueError, match="hyper_parameters: object missing required field `flip_test`"):
        check_content(content)


def test_a_newer_format_is_refused(content):
    content[FORMAT_KEY] = FORMAT + 1
    with pytest.raises(ValueError, match=r"written by a newer version of kpd \(format 3; .* up to 2\): update kpd"):
        check_content(content)


def check_settings_and_content(content):
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        check_plain(content[key], key)
    check_content(content)


def itself():
    value = []
    value.append(value)
    return value


def doubled(times):
    """A list that takes 2 to the power of `times` steps to look through."""
    value = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["hyper_parameters", "heatmap_sigma"], ..., "hyper_parameters: object missing required field `heatmap_sigma`"),
        (["hyper_parameters", "new"], 1, "unknown field `new`: another version of kpd wrote it"),
        (["hyper_parameters", "lr"], math.nan, "hyper_parameters.lr: expected `float` > 0"),
        (["hyper_parameters", "heatmap_sigma"], math.inf, "heatmap_sigma: expected `float` <= "),
        (["hyper_parameters", "max_keypoints"], 10**9, "max_keypoints: expected `int` <= "),
        (["hyper_parameters", "max_keypoints"], True, "max_keypoints: expected `int`, got `bool`"),
        (["hyper_parameters", "channels"], [1], r"channels\[0\]: expected `str`, got `int`"),
        (["hyper_parameters", "backbone"], "Unet", "backbone: expected `object`, got `str`"),
        (["hyper_parameters", "backbone", "class_path"], ..., "backbone: object missing required field `class_path`"),
        (["hyper_parameters", "backbone", "init_args", "n_channels"], 10**9, "n_channels=1000000000 does not fit its"),
        (
            ["hyper_parameters", "backbone", "init_args", "n_channels"],
            torch.ones(1),
            "plain values expected",
        ),
        (["hyper_parameters", "optimizer", "init_args", "eps"], itself(), "hyper_parameters: too many entries"),
        (["datamodule_hyper_parameters", "augmentation"], doubled(60), "datamodule_hyper_parameters: too many entries"),
        (["datamodule_hyper_parameters", "image_size"], [10**9, 10**9], r"image_size\[0\]: expected `int` <= 16384"),
        (["datamodule_hyper_parameters", "image_size"], [2**14, 2**14], "at most 67108864 pixels expected, found"),
        (["datamodule_hyper_parameters", "num_workers"], 10**6, "num_workers: expected `int` <= 1024"),
        (["hyper_parameters", "ap_thresholds_px"], [1.0] * 101, "ap_thresholds_px: expected `array` of length <= 100"),
        (["hyper_parameters", "heatmap_sigma"], 1e9, "heatmap_sigma: expected `float` <= 1000"),
        (["validation", "calibration", "thresholds_px"], [1.0] * 101, "thresholds_px: expected `array` of length <= "),
        (["hyper_parameters", "optimizer"], "./evil.yaml", "optimizer: expected `object`, got `str`"),
        (["hyper_parameters", "lr_scheduler"], "./evil.yaml", "lr_scheduler: invalid enum value './evil.yaml'"),
        (["hyper_parameters", "backbone", "dict_kwargs"], {"x": 1}, r"backbone: .*Unet does not take dict_kwargs, .*x"),
        (["datamodule_hyper_parameters", "image_size"], [-1, 8], r"image_size\[0\]: expected `int` >= 1"),
        (["datamodule_hyper_parameters", "image_size"], ..., "missing required field `image_size`"),
        (["datamodule_hyper_parameters", "coordinates"], "polar", "coordinates: invalid enum value 'polar'"),
        (["datamodule_hyper_parameters"], 3, "datamodule_hyper_parameters: expected `object`, got `int`"),
        (["datamodule_hyper_parameters", 7], 1, "names expected as keys, found"),
        (["datamodule_hyper_parameters", "augmentation"], 3, r"augmentation: expected `array \| null`, got `int`"),
        (["datamodule_hyper_parameters", "augmentation"], ["x"], r"augmentation\[0\]: expected `object`, got `str`"),
        (["datamodule_hyper_parameters", "augmentation"], [{}], "missing required field `class_path`"),
        (
            ["datamodule_hyper_parameters", "augmentation"],
            BLUR,
            "takes numbers of at most 8192, found kernel_size=1000",
        ),
        (
            ["datamodule_hyper_parameters", "augmentation"],
            NESTED,
            "takes numbers of at most 8192, found transforms=inf",
        ),
        (["datamodule_hyper_parameters", "synthetic"], "x", r"synthetic: expected `object \| null`, got `str`"),
        (["datamodule_hyper_parameters", "synthetic"], BOXES | {"n_train": 2**40}, "n_train: expected `int` <= "),
        (["datamodule_hyper_parameters", "synthetic"], BOXES | {"width": 2**20}, "width: expected `int` <= 16384"),
        (["datamodule_hyper_parameters", "synthetic"], BOXES | {"folder": None}, "folder: expected `str`, got `null`"),
        (["validation", "calibration", "intercepts"], [0.0], r"calibration: lists of one length expected, .*\[1, 3\]"),
        (["validation", "calibration", "peak_factor"], -1.0, "peak_factor: expected `float` > 0"),
        (["validation", "report"], ..., "validation: object missing required field `report`"),
        (["pytorch-lightning_version"], "x", "pytorch-lightning_version: expected `str` matching regex"),
        (["state_dict"], [], "state_dict: expected `object`, got `array`"),
        (["state_dict", STEM], 3, r"state_dict\[...\]: expected `Tensor`, got `int`"),
        (["state_dict", STEM], torch.ones(2, 2).to_sparse(), "dense tensor of real numbers"),
        (["state_dict", STEM], torch.ones(2, dtype=torch.complex64), "dense tensor of real numbers"),
        (["state_dict", STEM], torch.ones(2).to(torch.float8_e4m3fn), "dense tensor of real numbers"),
        (["state_dict", STEM], torch.ones(2, device="meta"), "dense tensor of real numbers"),
        (["state_dict", STEM], torch.ones(1).expand(10**12), "is larger than the data stored for it"),
    ],
)
def test_what_a_checkpoint_may_not_contain_is_named(content, place, value, message):
    change(content, place, value)
    with pytest.raises(ValueError, match=message):
        check_settings_and_content(content)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["optimizer_states"], ..., "contains a detector but no training state.*--model.init_from="),
        (["KeypointsDataModule"], torch.ones(3), "its values are not of the kinds in a kpd checkpoint"),
        (["optimizer_states"], [], "optimizer_states: expected `array` of length >= 1"),
        (["loops"], ..., "object missing required field `loops`"),
        (["loops", "fit_loop", "epoch_progress", "current", "ready"], -1, "ready: expected `int` >= 0"),
        (["loops", "fit_loop", "epoch_loop.batch_progress", "is_last_batch"], None, "expected `bool`, got `null`"),
        (["global_step"], "7", "global_step: expected `int`, got `str`"),
    ],
)
def test_what_a_resumed_training_needs_is_named(content, place, value, message):
    change(content, place, value)
    with pytest.raises(ValueError, match=message):
        check_resumable(content)


# What a training refuses at its start, since its checkpoint could not be loaded; and the largest values allowed.
LIMITS = [
    ("ap_thresholds_px", tuple(range(1, 102)), tuple(range(1, 101))),
    ("heatmap_sigma", 1001.0, 1000.0),
    ("lr", math.inf, 1e9),
    ("max_keypoints", 100_001, 100_000),
    ("freeze_encoder_steps", 2**63, 2**62),
]
DATA_LIMITS = [
    ("image_size", (2**14 + 1, 8), (2**14, 8)),
    ("image_size", (2**14, 2**14), (2**13, 2**13)),
    ("num_workers", 1025, 1024),
    ("batch_size", 2**31 + 1, 2**31),
    ("cache_gb", math.inf, 1e9),
    ("split_seed", 2**63, 2**62),
]


@pytest.mark.parametrize(("name", "too_large", "largest"), LIMITS)
def test_a_model_takes_only_what_its_checkpoint_may_contain(name, too_large, largest, content):
    with pytest.raises(ValueError, match=rf"model\.{name} is .*: expected"):
        KeypointDetector(["a"], Unet, **{name: too_large})
    content["hyper_parameters"] = dict(KeypointDetector(["a"], Unet, **{name: largest}).hparams)
    check_settings_and_content(content)


@pytest.mark.parametrize(("name", "too_large", "largest"), DATA_LIMITS)
def test_a_data_module_takes_only_what_its_checkpoint_may_contain(name, too_large, largest, content):
    with pytest.raises(ValueError, match=rf"data\.{name} is .*expected"):
        KeypointsDataModule(**{name: too_large})
    content["datamodule_hyper_parameters"] = dict(KeypointsDataModule(**{name: largest}).hparams)
    check_settings_and_content(content)


def test_the_settings_of_drawn_images_are_those_of_their_class():
    assert set(BoxesSettings.__struct_fields__) == set(BOXES)


def test_settings_of_the_users_own_data_module_are_left_out(content):
    content["datamodule_hyper_parameters"] = {"root": "/data", "batch_size": 3}
    check_content(content)
    assert "datamodule_hyper_parameters" not in content


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, rf"contains weights that are NaN or infinite, e\.g\. {STEM}\. Undamaged .*: best\.ckpt\.$"),
        (1, r"has shape \(8, 3, 3, 3\) of whole numbers, and \(8, 3, 3, 3\) is expected"),
    ],
)
def test_weights_that_are_no_weights_are_refused(content, tmp_path, value, message):
    torch.save(content, tmp_path / "best.ckpt")
    content["state_dict"][STEM] = torch.full((8, 3, 3, 3), value)
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=message):
        Predictor.from_checkpoint(tmp_path / "last.ckpt")


def test_a_checkpoint_says_its_format(content, tmp_path):
    detector = KeypointDetector(["a"], Unet)
    saved = {}
    detector.on_save_checkpoint(saved)
    assert saved == {FORMAT_KEY: FORMAT}
    check_content(content)  # and fill in what today's format contains
    torch.save(content | saved, tmp_path / "a.ckpt")
    assert read_checkpoint(str(tmp_path / "a.ckpt"))[FORMAT_KEY] == FORMAT
