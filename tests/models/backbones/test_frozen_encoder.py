"""What a training does with an encoder that stays as it is."""

from pathlib import Path

import pytest
import timm
import torch

from keypoint_detection import Predictor
from keypoint_detection.cli import run

ENCODER = "network.backbone.encoder."


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def encoder_of(path, key="state_dict"):
    state = torch.load(path, weights_only=True)[key]
    return {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}


def test_a_frozen_encoder_stays_out_of_the_optimiser_and_in_the_checkpoint(discs):
    weights = timm.create_model("test_vit").state_dict()
    torch.save(weights, "weights.pth")
    words = [
        "--data.image_size=[32, 32]",
        "--data.batch_size=4",
        "--data.num_workers=0",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    cli = run(
        [
            "fit",
            f"--data.train={discs}",
            "--model.backbone=VitUpsampler",
            "--model.backbone.encoder=test_vit",
            "--model.backbone.pretrained=weights.pth",
            "--model.backbone.width=4",
            "--model.freeze_encoder_steps=1",
            "--model.encoder_lr_factor=0.1",
            "--trainer.callbacks+=EMAWeightAveraging",
            "--trainer.callbacks.decay=0.5",
            "--trainer.max_steps=3",
            *words,
        ]
    )
    Path("weights.pth").unlink()
    optimised = {id(one) for group in cli.trainer.optimizers[0].param_groups for one in group["params"]}
    backbone = cli.model.network.backbone
    assert optimised == {id(one) for one in cli.model.parameters()} - {id(one) for one in backbone.encoder.parameters()}
    assert not backbone.train().encoder.training
    (last,) = Path().glob("runs/*/checkpoints/last.ckpt")
    kept = encoder_of(last)
    assert len(kept) == len(weights) - 2  # the classifier
    assert all(value.equal(weights[name]) for name, value in kept.items())
    (result,) = Predictor.from_checkpoint(last)([torch.zeros(3, 50, 40, dtype=torch.uint8)], heatmaps=True)
    assert result.heatmaps.shape == (3, 16, 16)
    resumed = run(["fit", f"--ckpt_path={last}", "--trainer.max_steps=4"])
    assert resumed.trainer.global_step == 4
    assert all(value.equal(weights[name]) for name, value in encoder_of(last).items())
