import pytest

from keypoint_detection.models.backbones import Backbone, Unet


def test_a_backbone_remembers_its_arguments_with_their_defaults():
    assert Unet(8, n_resnet_blocks=1).init_args == {
        "n_channels": 8,
        "n_downsampling_layers": 4,
        "n_resnet_blocks": 1,
        "kernel_size": 3,
    }


def test_a_wrong_argument_is_refused():
    with pytest.raises(TypeError, match="n_chanels"):
        Unet(n_chanels=8)


def test_a_backbone_must_compute_something():
    class Half(Backbone):
        """Lacks a forward pass."""

    with pytest.raises(ValueError, match=r"test_backbone\..*Half has no method forward"):
        Half()
