"""Backbones: networks from an image to a feature map. Importing this package registers their short names."""

from keypoint_detection.models.backbones.backbone import Backbone
from keypoint_detection.models.backbones.dilated_cnn import DilatedCnn
from keypoint_detection.models.backbones.s3k import S3K
from keypoint_detection.models.backbones.timm_unet import TimmUnet
from keypoint_detection.models.backbones.unet import Unet
from keypoint_detection.models.backbones.vit_upsampler import VitUpsampler

__all__ = ["S3K", "Backbone", "DilatedCnn", "TimmUnet", "Unet", "VitUpsampler"]
