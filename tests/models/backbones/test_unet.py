import pytest
import torch
from torch import nn

from keypoint_detection.models.backbones import Unet


@pytest.mark.parametrize("n_downsampling_layers", [0, 1, 3])
def test_features_have_the_resolution_of_the_picture(n_downsampling_layers):
    unet = Unet(4, n_downsampling_layers, 1)
    features = unet(torch.zeros(2, 3, 16, 24))
    assert features.shape == (2, unet.out_channels, 16 // unet.stride, 24 // unet.stride)
    assert unet.size_multiple == 2**n_downsampling_layers


def test_the_parameters_set_the_layers():
    unet = Unet(n_channels=6, n_downsampling_layers=2, n_resnet_blocks=4, kernel_size=5)
    convolutions = [module for module in unet.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 + 2 * 4 + 2  # stem, down, residual, up
    assert {convolution.kernel_size for convolution in convolutions} == {(5, 5)}
    assert [convolution.in_channels for convolution in convolutions].count(12) == 2  # two concatenated skips


def test_every_parameter_takes_part():
    unet = Unet(4, 2, 1)
    unet(torch.rand(2, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in unet.parameters())


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size is 4; an odd number is expected"):
        Unet(kernel_size=4)
