"""Convolutional upsampling of the features of a vision transformer."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.encoders import create_transformer, load_encoder_weights
from keypoint_detection.models.backbones.layers import normalised_convolution


class VitUpsampler(Backbone):
    """Upsampled features of a vision transformer: for few, varied images and a GPU.

    The tokens of several blocks, as images, pass through a 1x1 convolution and double in size by interpolation and 3x3
    convolutions, after ViTPose (Xu et al. 2022, https://arxiv.org/abs/2204.12484, section 3.1). Features of DINOv2
    (Oquab et al. 2023, https://arxiv.org/abs/2304.07193) recognise parts of objects without further training, so the
    transformer can stay frozen. Position embeddings are interpolated to the image's own size.

    Args:
        encoder: a plain timm vision transformer, e.g. `vit_small_patch14_dinov2.lvd142m`,
            `vit_small_patch16_dinov3`, `vit_tiny_patch16_224`.
        pretrained: the encoder's weights at the start of training: `true` downloads timm's own, `false` starts from
            random ones, a path reads a file (.safetensors, .pth). Nothing is loaded if the weights come from a kpd
            checkpoint.
        frozen: leave the encoder unchanged, which is faster and needs less memory; `false` trains it too, preferably
            with a `model.encoder_lr_factor` of 0.1 or less.
        n_features: how many blocks of the encoder return features, evenly spaced up to the last.
        output_stride: pixels per heatmap cell. Each step from 1 to 2 to 4 is faster and less precise.
        width: channels of every layer after the encoder.
        image_skip: let the last layers see the image itself. A token covers 14 or 16 pixels: without the image,
            positions within it are blurred.

    Raises:
        ValueError: timm has no such model, it is not a plain vision transformer, or it would stay frozen untrained.
    """

    def __init__(
        self,
        encoder: str = "vit_small_patch14_dinov2.lvd142m",
        pretrained: bool | str = True,
        frozen: bool = True,
        n_features: PositiveInt = 4,
        output_stride: Literal[1, 2, 4] = 2,
        width: PositiveInt = 64,
        image_skip: bool = True,
    ) -> None:
        super().__init__()
        if frozen and pretrained is False:
            raise ValueError(
                "backbone.frozen with backbone.pretrained=false would keep random weights forever; give the weights "
                "(true or a file), or frozen=false."
            )
        made, self._blocks = create_transformer(encoder, int(n_features))
        self.encoder, self._options = made.module, made.options
        self.pixel_mean, self.pixel_std = made.pixel_mean, made.pixel_std
        (token_px,) = made.reductions
        self.stride, self.out_channels = int(output_stride), int(width)
        self.size_multiple = math.lcm(token_px, self.stride)
        self._encoder_name, self._pretrained, self._frozen = encoder, pretrained, frozen
        n_doublings = math.ceil(math.log2(token_px / self.stride))
        # Input pixels per cell after each doubling, from coarse to fine.
        self._scales = [self.stride * 2**power for power in reversed(range(n_doublings))]
        self.fusion = _pointwise(made.channels[-1] * len(self._blocks), width)
        self.doublings = nn.ModuleList(normalised_convolution(width, width, stride=1) for _ in self._scales)
        self.skip = normalised_convolution(3, width, stride=self.stride) if image_skip else None
        self.join = normalised_convolution(2 * width, width, stride=1) if image_skip else None
        if frozen:
            self.encoder.requires_grad_(False)
            self.encoder.eval()

    def load_pretrained(self) -> None:
        """Load the weights that `pretrained` names into the encoder.

        Raises:
            ValueError: they cannot be found, read or downloaded, or they belong to another encoder.
        """
        if self._pretrained is not False:
            load_encoder_weights(self.encoder, self._encoder_name, self._pretrained, self._options)

    def pretrained_part(self) -> nn.Module:
        """Return the encoder."""
        return self.encoder

    def train(self, mode: bool = True) -> "VitUpsampler":
        """Switch between training and evaluation; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (B, width, H / output_stride, W / output_stride)."""
        height, width = images.shape[-2:]
        encoder: Any = self.encoder
        tokens = encoder.forward_intermediates(images, indices=self._blocks, norm=True, intermediates_only=True)
        x: Tensor = self.fusion(torch.cat(tokens, dim=1))  # (B, width, H / 14, W / 14), or 16
        for scale, convolution in zip(self._scales, self.doublings, strict=True):
            # 14 pixels cannot be divided by 4 exactly: each grid spans the whole image, and the last one is exact.
            size = ((height + scale - 1) // scale, (width + scale - 1) // scale)
            x = convolution(F.interpolate(x, size=size, mode="bilinear"))
        if self.skip is not None and self.join is not None:
            x = self.join(torch.cat([x, self.skip(images)], dim=1))
        return x


def _pointwise(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
