"""The network from images to logits of heatmaps: normalisation, backbone and head. Needs only torch."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.types import Maps

# sigmoid(-4) is 0.02: almost all of a heatmap is background. The first batch of training gives the exact share.
HEAD_BIAS = -4.0
HEAD_KERNEL_SIZE = 3
# Features that the votes have for themselves.
N_VOTE_FEATURES = 32
# Input pixels of a vote of 1, so that the votes across an object are neither tiny nor huge numbers.
VOTE_SCALE_PX = 64.0
# Maximum ratio of pixels in the padded image to those in the image.
MAX_PADDING_FACTOR = 4
# Minimum side of the image that a backbone is tried on, in pixels.
TRIAL_SIDE = 64
# Attributes that a subclass of Backbone must set.
DECLARED = ("stride", "out_channels", "size_multiple")


class HeatmapNetwork(nn.Module):
    """Turn images into the logits of one heatmap per channel, and into votes for the centres of objects.

    Normalisation and padding are part of the network, so that training, prediction and export cannot differ.

    Args:
        backbone: the network from normalised images to features.
        n_channels: output heatmaps.
        group: whether points vote for the centre of their object.

    Attributes:
        mirrored_channels: for each channel, the channel that it becomes in a mirrored image. If set, evaluation
            averages the heatmaps with those of the mirrored image; if None, it does not.
    """

    mirrored_channels: Sequence[int] | None = None
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, n_channels: int, group: bool = False) -> None:
        super().__init__()
        missing = [name for name in DECLARED if not hasattr(backbone, name)]
        if missing:
            raise ValueError(
                f"the backbone {type(backbone).__name__} does not set {', '.join(missing)}: a Backbone sets "
                f"{', '.join(DECLARED)} in its __init__."
            )
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.out_channels, n_channels, HEAD_KERNEL_SIZE, padding="same")
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, HEAD_BIAS)
        # Made after the head, whose initial weights are the same without it.
        self.vote_head = VoteHead(backbone.out_channels, n_channels) if group else None
        self.register_buffer("pixel_mean", _per_colour(backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", _per_colour(backbone.pixel_std), persistent=False)
        # With interleaved channels, convolutions take half the time of the default layout, on both CPUs and GPUs.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Maps:
        """Compute the logits of the heatmaps, and the votes.

        Args:
            images: (B, 3, H, W) uint8 RGB of any size.

        Returns:
            Maps of h = ceil(H / stride) rows, and columns likewise.
        """
        height, width = images.shape[-2:]
        if not torch.compiler.is_compiling():
            self.check_size((height, width))
        x = (images.to(self.pixel_mean.dtype).div(255) - self.pixel_mean) / self.pixel_std
        maps = self._compute_maps(x)
        if self.mirrored_channels is None or self.training:
            return maps
        stride = self.backbone.stride
        # Cells lie on a grid that starts at the left border: only a width of whole cells is mirrored onto the same
        # grid.
        whole = _pad_to_multiple(x, stride)
        mirrored = self._compute_maps(whole.flip(-1))
        width_cells, channels = maps.logits.shape[-1], list(self.mirrored_channels)
        logits = average_logits(maps.logits, mirrored.logits.flip(-1)[..., :width_cells][:, channels])
        if maps.votes is None or mirrored.votes is None:
            return Maps(logits)
        across, down = mirrored.votes.flip(-1)[..., :width_cells][:, channels].unbind(2)
        return Maps(logits, (maps.votes + torch.stack([-across, down], dim=2)) / 2)

    def _compute_maps(self, x: Tensor) -> Maps:
        """Compute the maps of normalised images (B, 3, H, W)."""
        height, width = x.shape[-2:]
        stride = self.backbone.stride
        x = _pad_to_multiple(x, self.backbone.size_multiple)
        features = self.backbone(x.contiguous(memory_format=torch.channels_last))
        rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
        logits = self.head(features)[..., :rows, :columns]
        if self.vote_head is None:
            return Maps(logits)
        votes = self.vote_head(features)[..., :rows, :columns].float() * VOTE_SCALE_PX
        return Maps(logits, votes.unflatten(1, (-1, 2)))

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse images that would have to be padded far beyond their size for the backbone.

        Args:
            size: (height, width) in pixels.

        Raises:
            ValueError: more than three quarters of the network's input would be padding.
        """
        multiple = self.backbone.size_multiple
        padded = tuple(_round_up(side, multiple) for side in size)
        if padded[0] * padded[1] > MAX_PADDING_FACTOR * size[0] * size[1]:
            raise ValueError(
                f"images of {size[0]}x{size[1]} (height x width) would be padded to {padded[0]}x{padded[1]}, because "
                f"{type(self.backbone).__name__} takes multiples of {multiple}. Give a larger data.image_size, or a "
                "backbone with fewer down-samplings."
            )

    @torch.no_grad()
    def check_backbone(self) -> None:
        """Try the backbone on a small image, as a user's own backbone may not keep its promises.

        Raises:
            ValueError: it fails, or its features are not of the shape that its attributes promise.
        """
        backbone, is_training = self.backbone, self.training
        side = _round_up(TRIAL_SIDE, backbone.size_multiple)
        name = f"the backbone {type(backbone).__name__}"
        self.eval()
        try:
            features: Any = backbone(torch.zeros(1, 3, side, side, device=self.pixel_mean.device))
        except Exception as error:  # code that is not ours can raise anything
            raise ValueError(f"{name} fails on an image of {side}x{side}: {type(error).__name__}: {error}") from error
        finally:
            self.train(is_training)
        expected = (1, backbone.out_channels, side // backbone.stride, side // backbone.stride)
        if not isinstance(features, Tensor) or tuple(features.shape) != expected:
            found = f"a tensor of {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"{name} returns {found} for an image of {side}x{side}; a tensor of {expected} is expected, as it sets "
                f"out_channels={backbone.out_channels} and stride={backbone.stride}."
            )

    @property
    def has_new_head(self) -> bool:
        """Whether the head still has its initial bias."""
        assert self.head.bias is not None
        return bool((self.head.bias == HEAD_BIAS).all())


class VoteHead(nn.Module):
    """Turn features (B, F, h, w) into votes (B, 2 C, h, w), or one row or column more.

    With features of its own, it leaves those of the heatmaps alone: with a single convolution, errors of single objects
    were a fifth larger. Votes vary so smoothly near a point that half the resolution is enough.

    Args:
        n_features: features of the backbone.
        n_channels: channels (C).
    """

    def __init__(self, n_features: int, n_channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(n_features, N_VOTE_FEATURES, HEAD_KERNEL_SIZE, stride=2, padding=1)
        self.output = nn.Conv2d(N_VOTE_FEATURES, 2 * n_channels, HEAD_KERNEL_SIZE, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the votes; see the class."""
        return F.interpolate(self.output(F.relu(self.hidden(features))), scale_factor=2, mode="bilinear")


def prior_logits(share: Tensor) -> Tensor:
    """Return the logits that fit heatmaps best when nothing is known about the image, after Lin et al. 2017.

    Without this, training spends its first few hundred steps just darkening the heatmaps: one point in a heatmap of
    192x256 is 3.5 away from -4 (https://arxiv.org/abs/1708.02002, section 3.3, uses the same remedy).

    Args:
        share: (C,) the means of the channels' heatmaps. A channel without a point takes the mean of all channels; if
            all are empty, HEAD_BIAS is kept.

    >>> prior_logits(torch.tensor([0.5, 0.0, 0.5])).round(decimals=4)
    tensor([ 0.0000, -0.6931,  0.0000])
    """
    share = share.double()
    logits = torch.logit(share.where(share > 0, share.mean()))
    return logits.where(logits.isfinite(), HEAD_BIAS).float()


def average_logits(one: Tensor, other: Tensor) -> Tensor:
    """Return the logits of the mean of two probabilities, given their logits; exact even near 0 or 1.

    >>> average_logits(torch.tensor([-30.0, 0.0]), torch.tensor([-30.0, 40.0])).round(decimals=4)
    tensor([-30.0000,   1.0986])
    """
    one, other = one.float(), other.float()
    yes = torch.logaddexp(F.logsigmoid(one), F.logsigmoid(other))
    no = torch.logaddexp(F.logsigmoid(-one), F.logsigmoid(-other))
    return yes - no


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Add zeros on the right and at the bottom to make both sides multiples."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, _round_up(width, multiple) - width, 0, _round_up(height, multiple) - height))


def _round_up(side: int, multiple: int) -> int:
    """Round up to a multiple, without a remainder operation, which exporters cannot apply to dynamic sizes."""
    return (side + multiple - 1) // multiple * multiple


def _per_colour(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
