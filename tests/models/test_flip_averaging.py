"""Averaging the heatmaps with those of the mirrored image."""

import pytest
import torch
import torch.nn.functional as F

from keypoint_detection.models.backbones import Backbone, TimmUnet, Unet
from keypoint_detection.models.network import HeatmapNetwork


class Pooling(Backbone):
    """The mean of each cell: what it sees in a mirror is the mirror image of what it sees."""

    def __init__(self, stride: int, multiple: int) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = stride, 3, multiple

    def forward(self, images):
        return F.avg_pool2d(images, self.stride)


def pooling_network(stride, multiple):
    network = HeatmapNetwork(Pooling(stride, multiple), 3).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[:, :, 1, 1] = torch.eye(3)
    return network


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("multiple", [4, 32])
@pytest.mark.parametrize("width", [40, 41, 42, 43, 64])
def test_mirrored_heatmaps_lie_exactly_on_those_of_the_image(stride, multiple, width):
    network = pooling_network(stride, multiple)
    images = torch.randint(256, (2, 3, 35, width), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(images).logits
        network.mirrored_channels = [0, 1, 2]
        found = network(images).logits
    assert found.shape == (2, 3, -(-35 // stride), -(-width // stride))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected)


FAMILIES = [
    lambda: Unet(4),
    lambda: TimmUnet("resnet10t", False, 1, 4),
    lambda: TimmUnet("resnet10t", False, 2, 4),
    lambda: TimmUnet("resnet10t", False, 4, 4),
]


def noisy_network(make):
    """Random weights with logits of every size, and statistics of norms that are not the initial ones."""
    torch.manual_seed(0)
    network = HeatmapNetwork(make(), 3)
    with torch.no_grad():
        network(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8))
        network.head.weight.mul_(20)
    return network.eval()


@pytest.mark.parametrize("make", FAMILIES)
def test_the_probabilities_are_the_mean_of_both_with_twins_swapped(make):
    network = noisy_network(make)
    images = torch.randint(256, (1, 3, 64, 76), dtype=torch.uint8)
    with torch.no_grad():
        plain, mirrored = network(images).logits.sigmoid(), network(images.flip(3)).logits.sigmoid()
        network.mirrored_channels = [2, 1, 0]
        found = network(images).logits.sigmoid()
    n_columns = plain.shape[3]
    for channel, twin in enumerate([2, 1, 0]):
        for column in range(n_columns):
            mean = (plain[0, channel, :, column] + mirrored[0, twin, :, n_columns - 1 - column]) / 2
            torch.testing.assert_close(found[0, channel, :, column], mean)
    assert (found - plain).abs().max() > 0.01


@pytest.mark.parametrize("make", FAMILIES)
def test_an_image_and_its_mirror_image_get_mirrored_heatmaps(make):
    network = noisy_network(make)
    network.mirrored_channels = [1, 0, 2]
    images = torch.randint(256, (1, 3, 50, 68), dtype=torch.uint8)
    with torch.no_grad():
        one, other = network(images).logits, network(images.flip(3)).logits
    torch.testing.assert_close(other, one.flip(3)[:, [1, 0, 2]], atol=1e-4, rtol=1e-4)


def test_training_is_not_averaged():
    network = noisy_network(FAMILIES[0])
    network.mirrored_channels = [2, 1, 0]
    n_calls = []
    network.backbone.register_forward_hook(lambda *_: n_calls.append(1))
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    network.train()(images)
    assert len(n_calls) == 1
    network.eval()(images)
    assert len(n_calls) == 3
