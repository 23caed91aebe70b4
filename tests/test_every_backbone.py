"""What holds for every backbone, from the command line to the exported file."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.models import backbones
from keypoint_detection.models.backbones import S3K, DilatedCnn, TimmUnet, Unet, VitUpsampler
from keypoint_detection.models.network import HeatmapNetwork

SHORT = str(Path(__file__).with_name("conf") / "short.yaml")

# By short name, the options that make it small.
SMALL = {
    "Unet": {"n_channels": 4},
    "DilatedCnn": {"n_channels": 4},
    "S3K": {"n_channels": 4},
    "TimmUnet": {"encoder": "resnet10t", "pretrained": False, "width": 4},
    "VitUpsampler": {"encoder": "test_vit", "pretrained": False, "frozen": False, "width": 4},
}
FAMILIES = {"Unet": Unet, "DilatedCnn": DilatedCnn, "S3K": S3K, "TimmUnet": TimmUnet, "VitUpsampler": VitUpsampler}


def make_network(name: str) -> HeatmapNetwork:
    torch.manual_seed(0)
    return HeatmapNetwork(FAMILIES[name](**SMALL[name]), 2).eval()


def test_every_backbone_is_tried_here():
    assert {*SMALL} == {*FAMILIES} == {*backbones.__all__} - {"Backbone"}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(64, 64), (49, 71), (33, 100)])
def test_images_of_any_size_give_heatmaps_of_their_size(name, size):
    network = make_network(name)
    with torch.no_grad():
        logits = network(torch.randint(256, (1, 3, *size), dtype=torch.uint8)).logits
    stride = network.backbone.stride
    assert logits.shape == (1, 2, -(-size[0] // stride), -(-size[1] // stride))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_of_a_backbone_takes_part(name):
    network = make_network(name).train()
    network(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)).logits.square().sum().backward()
    idle = [key for key, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert idle == []


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_on_it_is_trained_by_short_name_and_used_from_its_checkpoint(name, discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [f"--model.backbone.{key}={value}" for key, value in SMALL[name].items()]
    run(["fit", "--config", SHORT, f"--data.train={discs}", f"--model.backbone={name}", *options])
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    run(["test", f"--ckpt_path={best}", f"--data.test={discs}", "--trainer.accelerator=cpu", "--data.num_workers=0"])
    (result,) = Predictor.from_checkpoint(best)([np.zeros((48, 64, 3), np.uint8)], heatmaps=True)
    assert result.heatmaps is not None
    stored = torch.load(best, weights_only=True)["state_dict"]
    assert {key.removeprefix("network.") for key in stored} == set(make_network(name).state_dict())


@pytest.mark.parametrize("name", SMALL)
def test_onnx_computes_what_torch_does_on_images_of_any_size(name, tmp_path):
    network = make_network(name)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    example = torch.zeros(2, 3, 40, 72, dtype=torch.uint8)
    torch.onnx.export(
        network, (example,), tmp_path / "a.onnx", dynamo=True, dynamic_shapes=(free,), opset_version=18, verbose=False
    )
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for size in [(40, 72), (64, 64), (49, 71)]:
        images = torch.randint(256, (1, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            expected = network(images).logits
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-4)


OWN = """
import torch
from keypoint_detection.models.backbones import Backbone

class Halves(Backbone):
    '''Two convolutions at half the resolution.

    Args:
        width: channels.
    '''

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 2, width, 4
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, width, 4, 2, 1), torch.nn.ReLU())

    def forward(self, images):
        return self.layers(images)
"""


def test_a_backbone_of_the_users_own_works_everywhere_by_its_dotted_path(discs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    Path("mine_of_halves.py").write_text(OWN)
    words = ["--data.num_workers=0", "--trainer.accelerator=cpu"]
    backbone = ["--model.backbone=mine_of_halves.Halves", "--model.backbone.width=5"]
    run(["fit", "--config", SHORT, f"--data.train={discs}", *backbone])
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    run(["test", f"--ckpt_path={best}", f"--data.test={discs}", *words])
    output = ["--output.folder=found", "--output.format=csv", "--output.score_threshold=0.01"]
    run(["predict", f"--ckpt_path={best}", f"--data.predict={discs.parent / 'images'}", *output, *words])
    assert len(list(Path("found").iterdir())) > 0
    (result,) = Predictor.from_checkpoint(best)([np.zeros((48, 64, 3), np.uint8)], heatmaps=True)
    assert result.heatmaps.shape == (3, 24, 32)
    run(["export", f"--ckpt_path={best}", f"--images={discs.parent / 'images'}"])
    assert "Compared with PyTorch in float32 on 12 images" in capsys.readouterr().out
    assert Predictor.from_onnx("detector.onnx").channels == ["red", "left", "right"]
