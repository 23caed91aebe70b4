"""The network of S3K: residual blocks at a quarter of the resolution, trained from scratch."""

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.layers import ResidualBlock, normalised_convolution


class S3K(Backbone):
    """Residual encoder-decoder after Vecerik et al. 2020, for robots' views of one object, trained from scratch.

    A stem, two convolutions of stride 2, residual blocks, and two transposed convolutions, each joined by the features
    of its own scale; after "S3K: Self-Supervised Semantic Keypoints for Robotic Manipulation via Multi-View
    Consistency" (https://arxiv.org/abs/2009.14711). Choose it if `Unet` blurs points that are close together: learned
    up-sampling is sharper, but costs more time and memory.

    Args:
        n_channels: channels of every layer.
        n_resnet_blocks: residual blocks at a quarter of the resolution. With the default, the network sees 61 x 61
            pixels around a point; each block adds 16.
    """

    def __init__(self, n_channels: PositiveInt = 32, n_resnet_blocks: NonNegativeInt = 3) -> None:
        super().__init__()
        # The features of the stem and of the decoder are concatenated.
        self.stride, self.out_channels, self.size_multiple = 1, 2 * n_channels, 4
        self.stem = normalised_convolution(3, n_channels, stride=1)
        self.down_to_half = normalised_convolution(n_channels, n_channels, stride=2)
        self.down_to_quarter = normalised_convolution(n_channels, n_channels, stride=2)
        self.residual = nn.Sequential(*(ResidualBlock(n_channels, kernel_size=3) for _ in range(n_resnet_blocks)))
        self.up_to_half = _up(n_channels, n_channels)
        self.up_to_full = _up(2 * n_channels, n_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Compute full-resolution features (B, 2 * n_channels, H, W)."""
        full = self.stem(images)  # (B, n_channels, H, W)
        half = self.down_to_half(full)  # (B, n_channels, H/2, W/2)
        x = self.residual(self.down_to_quarter(half))  # (B, n_channels, H/4, W/4)
        x = torch.cat([self.up_to_half(x), half], dim=1)
        return torch.cat([self.up_to_full(x), full], dim=1)


def _up(in_channels: int, out_channels: int) -> nn.Module:
    """Double the resolution; a kernel of twice the stride covers every cell equally often."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
