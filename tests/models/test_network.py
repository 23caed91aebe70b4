import copy
import pickle

import pytest
import torch

from keypoint_detection.models import backbones
from keypoint_detection.models.backbones import Backbone
from keypoint_detection.models.network import HeatmapNetwork

FAMILIES = [getattr(backbones, name) for name in backbones.__all__ if name != "Backbone"]


class Required(Backbone):
    """A backbone that cannot be made without an argument, and has statistics of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 2, width, 2
        self.pixel_mean, self.pixel_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        self.layer = torch.nn.Conv2d(3, width, 2, stride=2)

    def forward(self, images):
        return self.layer(images)


def make(family):
    return family(5) if family is Required else family()


@pytest.mark.parametrize("family", [*FAMILIES, Required])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_every_backbone_survives_copies_with_its_arguments(family, duplicate):
    backbone = make(family).eval()
    twin = duplicate(backbone)
    assert twin.init_args == backbone.init_args
    side = 4 * backbone.size_multiple
    images = torch.rand(1, 3, side, side)
    torch.testing.assert_close(twin(images), backbone(images))
    assert family(**backbone.init_args).init_args == backbone.init_args


def test_the_statistics_of_pixels_are_those_of_the_backbone():
    network = HeatmapNetwork(Required(5), 1)
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 4, 4), 2.0))


class Bare(Backbone):
    """A backbone that declares only one of three."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = 2

    def forward(self, images):
        return images


def test_a_backbone_that_does_not_say_what_it_gives_is_refused():
    with pytest.raises(ValueError, match="the backbone Bare does not set out_channels, size_multiple"):
        HeatmapNetwork(Bare(), 3)


class Careless(Backbone):
    """A backbone that promises one thing and does another."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.stride, self.out_channels, self.size_multiple = 4 if fault == "stride" else 2, 5, 2
        self.layer = torch.nn.Conv2d(3, 8 if fault == "channels" else 5, 2, stride=2)

    def forward(self, images):
        if self.fault == "error":
            return self.layer(images[:, :2])
        features = self.layer(images)
        return (features,) if self.fault == "tuple" else features


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "stride",
            r"returns a tensor of \(1, 5, 32, 32\) for an image of 64x64; a tensor of \(1, 5, 16, 16\) is expected",
        ),
        ("channels", r"returns a tensor of \(1, 8, 32, 32\).*out_channels=5 and stride=2"),
        ("tuple", "returns tuple for an image"),
        ("error", "Careless fails on an image of 64x64: RuntimeError: Given groups=1"),
    ],
)
def test_a_backbone_that_breaks_its_promise_is_refused(fault, message):
    network = HeatmapNetwork(Careless(fault), 3)
    with pytest.raises(ValueError, match=message):
        network.check_backbone()
    assert network.training


@pytest.mark.parametrize("family", [*FAMILIES, Required])
def test_a_backbone_that_keeps_its_promise_passes_and_stays_as_it_was(family):
    network = HeatmapNetwork(make(family), 3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    network.check_backbone()
    assert [module.training for module in network.modules()] == modes
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
