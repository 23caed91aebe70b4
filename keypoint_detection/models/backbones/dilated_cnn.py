"""Dilated convolutions at full resolution, trained from scratch."""

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone

# Increasing dilations give a wide view without losing resolution; the last layer smooths the resulting grid pattern.
DILATIONS = (1, 1, 2, 4, 8, 16, 1, 1, 2, 4, 8, 16, 1)
NEGATIVE_SLOPE = 0.01


class DilatedCnn(Backbone):
    """Dilated 3x3 convolutions at full resolution, after Yu and Koltun 2015, for small images and the finest detail.

    Nothing is down-sampled (https://arxiv.org/abs/1511.07122, section 3): twelve convolutions with dilations 1 1 2 4 8
    16, twice over, and one with dilation 1, each followed by a leaky ReLU. The network sees 131 x 131 pixels around a
    point. Choose it if images are small and fine detail matters; a step takes several times as long as with `Unet`.

    Args:
        n_channels: channels of every layer. The runtime grows with its square.
    """

    def __init__(self, n_channels: PositiveInt = 32) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 1, n_channels, 1
        widths = (3, *(n_channels for _ in DILATIONS))
        layers: list[nn.Module] = []
        for in_channels, out_channels, dilation in zip(widths, widths[1:], DILATIONS, strict=False):
            convolution = nn.Conv2d(in_channels, out_channels, 3, padding="same", dilation=dilation)
            # Without norms, torch's default initialisation would shrink the signal to nothing over thirteen layers.
            nn.init.kaiming_normal_(convolution.weight, a=NEGATIVE_SLOPE)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Compute full-resolution features (B, n_channels, H, W)."""
        features: Tensor = self.layers(images)
        return features
