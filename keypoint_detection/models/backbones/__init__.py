"""Backbones: networks from an image to a feature map. Importing this package registers their short names."""

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.timm_unet import TimmUnet
from keypoint_detection.models.backbones.unet import Unet

__all__ = ["Backbone", "TimmUnet", "Unet"]
