import numpy as np
import pytest
import timm
import torch
from torch import nn

from keypoint_detection.models.backbones import VitUpsampler
from keypoint_detection.models.network import HeatmapNetwork

SMALL = {"pretrained": False, "frozen": False, "width": 8}


@pytest.mark.parametrize("encoder", ["test_vit", "vit_tiny_patch16_dinov3_qkvb", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_transformers_with_learned_and_rotary_positions_take_images_of_any_size(encoder, stride):
    network = HeatmapNetwork(VitUpsampler(encoder, output_stride=stride, **SMALL), 3).eval()
    with torch.no_grad():
        logits = network(torch.randint(256, (1, 3, 50, 70), dtype=torch.uint8)).logits
    assert logits.shape == (1, 3, -(-50 // stride), -(-70 // stride))
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("encoder", "multiples"), [("test_vit", [16, 16, 16]), ("eva02_tiny_patch14_224", [14, 14, 28])]
)
def test_the_size_is_a_multiple_of_tokens_and_of_cells(encoder, multiples):
    assert [VitUpsampler(encoder, output_stride=s, **SMALL).size_multiple for s in (1, 2, 4)] == multiples


def test_every_parameter_takes_part_so_that_several_processes_can_train():
    backbone = VitUpsampler("test_vit", **SMALL)
    backbone(torch.rand(2, 3, 32, 48)).square().sum().backward()
    assert [name for name, one in backbone.named_parameters() if one.grad is None] == []
    assert VitUpsampler("test_vit", image_skip=False, **SMALL)(torch.rand(1, 3, 32, 48)).shape == (1, 8, 16, 24)


def test_features_come_from_blocks_evenly_spaced_up_to_the_last():
    assert VitUpsampler("test_vit", n_features=3, **SMALL)._blocks == [1, 3, 5]
    assert VitUpsampler("test_vit", n_features=1, **SMALL)._blocks == [5]
    with pytest.raises(ValueError, match=r"n_features is 7; test_vit has 6 blocks"):
        VitUpsampler("test_vit", n_features=7, **SMALL)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_vit").state_dict(), path)
    return str(path)


def test_pretrained_features_are_those_of_the_whole_model(weights):
    backbone = VitUpsampler("test_vit", weights, n_features=1)
    backbone.load_pretrained()
    whole = timm.create_model("test_vit").eval()
    whole.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.rand(1, 3, 160, 160)
    seen = []
    backbone.fusion.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        backbone(images)
        expected = whole.forward_features(images)[:, 1:]  # without the class token
    (found,) = seen
    torch.testing.assert_close(found.flatten(2).mT, expected)


def test_a_frozen_encoder_stays_in_evaluation_and_gets_no_gradient(weights):
    backbone = VitUpsampler("test_vit", weights, width=8).train()
    assert not any(module.training for module in backbone.encoder.modules())
    assert backbone.fusion.training
    backbone(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(one.grad is None for one in backbone.encoder.parameters())
    assert all(one.requires_grad for one in VitUpsampler("test_vit", weights, frozen=False).parameters())


def test_the_image_decides_within_a_token():
    backbone = VitUpsampler("test_vit", output_stride=1, **SMALL).eval()
    assert isinstance(backbone.skip, nn.Module)
    images = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        blank = backbone(images)
        images[..., 9, 20] = 5.0
        changed = (backbone(images) - blank).abs().sum(dim=(0, 1))
    row, column = np.unravel_index(int(changed.argmax()), changed.shape)
    assert abs(row - 9) <= 2
    assert abs(column - 20) <= 2


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("vit_tini_patch16_224", "Did you mean vit_tiny_patch16_224"),
        ("resnet18", "backbone TimmUnet"),
        ("test_vit.nothing", "has no weights 'nothing'; it has r160_in1k"),
    ],
)
def test_what_is_no_transformer_of_any_size_is_refused(encoder, message):
    with pytest.raises(ValueError, match=message):
        VitUpsampler(encoder, **SMALL)


def test_random_weights_cannot_be_frozen():
    with pytest.raises(ValueError, match="keep random weights forever"):
        VitUpsampler("test_vit", pretrained=False)


def test_without_a_network_the_way_out_is_one_that_is_taken(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    way = "Or start from random weights: --model.backbone.pretrained=false --model.backbone.frozen=false"
    with pytest.raises(ValueError, match=way):
        VitUpsampler("vit_tiny_patch16_224").load_pretrained()
    VitUpsampler("vit_tiny_patch16_224", pretrained=False, frozen=False)
