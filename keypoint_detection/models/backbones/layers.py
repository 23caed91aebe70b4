"""Layers shared by several backbones."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm whose result is added to their input, after He et al. 2015.

    See https://arxiv.org/abs/1512.03385, figure 2.

    Args:
        n_channels: channels of the input and the output.
        kernel_size: kernel size of both convolutions, in cells; odd.
    """

    def __init__(self, n_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_channels, n_channels, kernel_size, padding="same")
        self.norm1 = nn.BatchNorm2d(n_channels)
        self.conv2 = nn.Conv2d(n_channels, n_channels, kernel_size, padding="same")
        self.norm2 = nn.BatchNorm2d(n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features (B, n_channels, h, w) from features of the same shape."""
        residual = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(x + residual)


def normalised_convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Make a 3x3 convolution with batch norm and ReLU; a stride above 1 reduces the resolution by that factor."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
