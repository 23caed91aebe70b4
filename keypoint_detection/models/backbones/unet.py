"""A small U-Net with residual blocks at its coarsest scale, trained from scratch."""

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.layers import ResidualBlock


class Unet(Backbone):
    """Small encoder-decoder with skip connections and full-resolution heatmaps, for training from scratch.

    After Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), with one convolution per scale, the same width at
    every scale and basic residual blocks (He et al. 2015, https://arxiv.org/abs/1512.03385) at the coarsest one.

    Args:
        n_channels: channels of every layer. Time and memory grow faster than in proportion, but more slowly than with
            its square.
        n_downsampling_layers: how many times the resolution is halved. Each layer doubles how far the network sees.
        n_resnet_blocks: residual blocks at the coarsest scale. With the defaults, the network sees about 330 x 330
            pixels around a point, and each block adds 64: points that look alike are distinguished by distant
            surroundings. Use fewer of both if close surroundings suffice, as on a single small object: the network then
            memorises less.
        kernel_size: side of every convolution's kernel in cells; odd.

    Raises:
        ValueError: the kernel size is even.
    """

    def __init__(
        self,
        n_channels: PositiveInt = 24,
        n_downsampling_layers: NonNegativeInt = 4,
        n_resnet_blocks: NonNegativeInt = 4,
        kernel_size: PositiveInt = 3,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"backbone.kernel_size is {kernel_size}; an odd number is expected, e.g. {kernel_size + 1}."
            )
        self.stride = 1
        self.out_channels = n_channels
        self.size_multiple = 2**n_downsampling_layers
        scales = range(n_downsampling_layers)
        self.stem = _convolution(3, n_channels, kernel_size)
        self.down = nn.ModuleList(_Down(n_channels, kernel_size) for _ in scales)
        self.residual = nn.Sequential(*(ResidualBlock(n_channels, kernel_size) for _ in range(n_resnet_blocks)))
        self.up = nn.ModuleList(_Up(n_channels, kernel_size) for _ in scales)

    def forward(self, images: Tensor) -> Tensor:
        """Compute full-resolution features (B, n_channels, H, W)."""
        x = self.stem(images)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.residual(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        features: Tensor = x
        return features


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding="same")


class _Down(nn.Module):
    def __init__(self, n_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = _convolution(n_channels, n_channels, kernel_size)
        self.norm = nn.BatchNorm2d(n_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv(x), kernel_size=2)  # (B, n_channels, H/2, W/2)
        normalised: Tensor = self.norm(torch.relu(x))
        return normalised


class _Up(nn.Module):
    def __init__(self, n_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = _convolution(2 * n_channels, n_channels, kernel_size)
        self.norm = nn.BatchNorm2d(n_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")  # (B, n_channels, 2H, 2W)
        normalised: Tensor = self.norm(torch.relu(self.conv(torch.cat([x, skip], dim=1))))
        return normalised
