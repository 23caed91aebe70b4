import json
import logging

import pytest
from jsonargparse import Namespace

from keypoint_detection.checkpoints.settings import find_checkpoint_path, report_overrides, settings_of

CHECKPOINT = {
    "hyper_parameters": {
        "lr": 0.1,
        "backbone": {"class_path": "Unet", "init_args": {"n_channels": 4, "kernel_size": 3}},
        "_instantiator": "somewhere",
    },
    "datamodule_hyper_parameters": {"image_size": [32, 48], "resize": "stretch", "train": "mine.json"},
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], None),
        (["test", "--ckpt_path=a.ckpt"], "a.ckpt"),
        (["test", "--ckpt_path", "a.ckpt", "--ckpt_path=b.ckpt"], "b.ckpt"),
        (["fit", "--ckpt_path=null"], None),
        (["fit", "--config=c.yaml"], "from_config.ckpt"),
        (["fit", "-c", "c.yaml", "--ckpt_path=a.ckpt"], "a.ckpt"),
        (["fit", "--config", "none.yaml"], None),
    ],
)
def test_the_last_checkpoint_that_is_named_counts(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("ckpt_path: from_config.ckpt")
    assert find_checkpoint_path(words) == expected


def test_a_checkpoint_brings_its_model_and_what_it_saw_but_no_files():
    model, data = settings_of(CHECKPOINT)
    assert json.loads(model.removeprefix("--model=")) == {
        "lr": 0.1,
        "backbone": {"class_path": "Unet", "init_args": {"n_channels": 4, "kernel_size": 3}},
    }
    assert json.loads(data.removeprefix("--data=")) == {"image_size": [32, 48], "resize": "stretch"}


def test_only_what_differs_is_reported(caplog):
    backbone = Namespace(class_path="Unet", init_args=Namespace(n_channels=8, kernel_size=3))
    config = Namespace(
        model=Namespace(lr=0.1, backbone=backbone), data=Namespace(image_size=(32, 48), resize="letterbox")
    )
    with caplog.at_level(logging.INFO, logger="keypoint_detection"):
        report_overrides(CHECKPOINT, config)
    assert [record.getMessage() for record in caplog.records] == [
        "model.backbone.init_args.n_channels: 8 as given (the checkpoint has 4)",
        "data.resize: letterbox as given (the checkpoint has stretch)",
    ]
