import logging

from jsonargparse import Namespace

from keypoint_detection.checkpoints.settings import settings_of
from keypoint_detection.training.resuming import report_overrides

CHECKPOINT = {
    "hyper_parameters": {
        "lr": 0.1,
        "backbone": {"class_path": "Unet", "init_args": {"n_channels": 4, "kernel_size": 3}},
        "_instantiator": "somewhere",
    },
    "datamodule_hyper_parameters": {"image_size": [32, 48], "resize": "stretch", "train": "mine.json"},
}


def test_a_checkpoint_brings_its_model_and_what_it_saw_but_no_files():
    assert settings_of(CHECKPOINT, with_files=False) == {
        "model.lr": 0.1,
        "model.backbone": {"class_path": "Unet", "init_args": {"n_channels": 4, "kernel_size": 3}},
        "data.image_size": [32, 48],
        "data.resize": "stretch",
    }


def test_resuming_brings_the_files_too():
    assert settings_of(CHECKPOINT, with_files=True)["data.train"] == "mine.json"


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
