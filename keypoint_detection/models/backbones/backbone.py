"""The interface of every backbone."""

import inspect
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

# The statistics of ImageNet, which pretrained encoders expect and which suit photographs in general.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """Turn normalised images (B, 3, H, W) into features (B, out_channels, H / stride, W / stride).

    A subclass sets `stride`, `out_channels` and `size_multiple` in its `__init__`, whose typed parameters become
    `--model.backbone.*` on the command line. Their values are stored in `init_args`, so that the backbone can be
    rebuilt from a checkpoint.

    Attributes:
        stride: input pixels per feature cell: 1, 2 or 4.
        out_channels: channels of the feature map.
        size_multiple: height and width of the input must be multiples of it; the detector pads images accordingly.
        pixel_mean: mean of RGB in [0, 1], subtracted from the image.
        pixel_std: standard deviation of RGB, by which the image is divided.
        init_args: the arguments that the backbone was created with, including defaults.
    """

    stride: int
    out_channels: int
    size_multiple: int
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Backbone":
        """Create the instance and store its arguments.

        Raises:
            ValueError: the class lacks a method that every backbone has.
        """
        if cls.__abstractmethods__:
            lacking = ", ".join(sorted(cls.__abstractmethods__))
            raise ValueError(
                f"{cls.__module__}.{cls.__qualname__} has no method {lacking}: a backbone turns images (B, 3, H, W) "
                "into features (B, out_channels, H / stride, W / stride) in forward(self, images)."
            )
        instance = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        bound.apply_defaults()
        instance.init_args = {name: value for name, value in bound.arguments.items() if name != "self"}
        for parameter in bound.signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                instance.init_args |= instance.init_args.pop(parameter.name, {})
        return instance

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Provide `copy.deepcopy` and `pickle` with the arguments that `__new__` requires."""
        return (), self.init_args

    def load_pretrained(self) -> None:
        """Load pretrained weights, if the backbone has any; called once, by a new training run."""

    def pretrained_part(self) -> nn.Module | None:
        """Return the part that can start with trained weights, which training can freeze or change more slowly."""
        return None

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute the features (B, out_channels, H / stride, W / stride) of normalised images (B, 3, H, W)."""
