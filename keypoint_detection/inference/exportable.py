"""A detector from image to points as one module, in operations that can be exported."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_detection.codec.plain_decoder import decode_plainly
from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.inference.loading import LoadedDetector
from keypoint_detection.inference.plain_resizing import resize_plainly

__all__ = ["ExportableDetector"]


class ExportableDetector(nn.Module):
    """All that happens between an image and its points, in operations that can be exported.

    Args:
        detector: the trained parts.
        dtype: of the network's weights and arithmetic; decoding is in float32.
        heatmaps: give the heatmaps too.
        plain_resizing: resize by operations that come out the same wherever they run, rather than by torch's own.
    """

    def __init__(self, detector: LoadedDetector, dtype: torch.dtype, heatmaps: bool, plain_resizing: bool) -> None:
        super().__init__()
        self.inputs = detector.inputs
        self.network = copy.deepcopy(detector.network).to(dtype)
        self.heatmaps, self.plain_resizing = heatmaps, plain_resizing
        codec = detector.codec
        # The exporter takes plain numbers only, and the parser's restricted ones are not.
        self.stride, self.max_keypoints = int(codec.stride), int(codec.max_keypoints)
        self.score_threshold, self.min_distance_px = float(codec.score_threshold), float(codec.min_distance_px)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Find the points of (B, H, W, 3) uint8 images.

        Returns:
            (B, C, D, 2) points in pixels of the images and (B, C, D) scores; where heatmaps are asked for, those of the
            network's input as well, (B, C, h, w).
        """
        x = images.permute(0, 3, 1, 2)
        height, width = x.shape[2:]
        scale_x: Any = 1.0
        scale_y: Any = 1.0
        left: Any = 0
        top: Any = 0
        if self.inputs.image_size is not None:
            rows, columns = self.inputs.image_size
            inner_height: Any = rows
            inner_width: Any = columns
            if self.inputs.resize == "letterbox":
                # The arithmetic of `fit_size`, on sizes that are not known yet.
                inner_height = torch.sym_min(rows, (2 * height * columns + width) // (2 * width))
                inner_width = torch.sym_min(columns, (2 * width * rows + height) // (2 * height))
            x = self._resize(x, (inner_height, inner_width))
            top, left = (rows - inner_height) // 2, (columns - inner_width) // 2
            padding = (left, columns - inner_width - left, top, rows - inner_height - top)
            x = F.pad(x, padding, value=LETTERBOX_GREY)
            scale_x, scale_y = width / inner_width, height / inner_height
        logits = self.network(x).float()
        found = decode_plainly(
            logits,
            self.stride,
            max_keypoints=self.max_keypoints,
            score_threshold=self.score_threshold,
            min_distance_px=self.min_distance_px,
        )
        moved = torch.stack([(found.points[..., 0] - left) * scale_x, (found.points[..., 1] - top) * scale_y], dim=-1)
        points = moved * (found.scores > 0)[..., None]
        return (points, found.scores, logits.sigmoid()) if self.heatmaps else (points, found.scores)

    def _resize(self, images: Tensor, size: tuple[Any, Any]) -> Tensor:
        if self.plain_resizing:
            return resize_plainly(images, size)
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
