"""A detector from image to points as one module, in operations that can be exported."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_detection.codec.peak_shapes import measure_shapes
from keypoint_detection.codec.plain_decoder import decode_plainly
from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.inference.loading import LoadedDetector
from keypoint_detection.inference.plain_resizing import resize_plainly
from keypoint_detection.types import Detections


class ExportableDetector(nn.Module):
    """Compute everything from an image to its points, in operations that can be exported.

    Args:
        detector: the trained parts.
        dtype: type of the network's weights and arithmetic; decoding is in float32.
        heatmaps: return the heatmaps too.
        plain_resizing: resize with operations that give the same result everywhere, instead of torch's own.
    """

    def __init__(self, detector: LoadedDetector, dtype: torch.dtype, heatmaps: bool, plain_resizing: bool) -> None:
        super().__init__()
        self.inputs = detector.inputs
        self.network = copy.deepcopy(detector.network).to(dtype)
        self.heatmaps, self.plain_resizing = heatmaps, plain_resizing
        codec = detector.codec
        # The exporter accepts only plain numbers, not the parser's restricted ones.
        self.stride, self.max_keypoints = int(codec.stride), int(codec.max_keypoints)
        self.score_threshold, self.min_distance_px = float(codec.score_threshold), float(codec.min_distance_px)
        self.sigma_px = float(codec.sigma_px)
        self.calibration = detector.calibration
        self.vote_codec = detector.vote_codec

    @property
    def output_names(self) -> list[str]:
        """Name the outputs of `forward`; without a calibration there are no covariances or probabilities."""
        names = [*Detections._fields[: 2 if self.calibration is None else 4]]
        if self.vote_codec is not None:
            names += ["objects", "object_scores"] + ([] if self.vote_codec.of_margin is None else ["belonging"])
        return [*names, "heatmaps"] if self.heatmaps else names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Find the points of (B, H, W, 3) uint8 images.

        Returns:
            The fields of `Detections` in pixels of the images; if points are grouped, the object of each and the scores
            of the objects; if heatmaps are requested, also those of the network's input, (B, C, h, w).
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
                # The arithmetic of `fit_size`, on dynamic sizes.
                inner_height = torch.sym_min(rows, (2 * height * columns + width) // (2 * width))
                inner_width = torch.sym_min(columns, (2 * width * rows + height) // (2 * height))
            x = self._resize(x, (inner_height, inner_width))
            top, left = (rows - inner_height) // 2, (columns - inner_width) // 2
            padding = (left, columns - inner_width - left, top, rows - inner_height - top)
            x = F.pad(x, padding, value=LETTERBOX_GREY)
            scale_x, scale_y = width / inner_width, height / inner_height
        maps = self.network(x)
        logits = maps.logits.float()
        found = decode_plainly(
            logits,
            self.stride,
            max_keypoints=self.max_keypoints,
            score_threshold=self.score_threshold,
            min_distance_px=self.min_distance_px,
        )
        moved = torch.stack([(found.points[..., 0] - left) * scale_x, (found.points[..., 1] - top) * scale_y], dim=-1)
        outputs = [moved * (found.scores > 0)[..., None], found.scores]
        if self.calibration is not None:
            shapes = measure_shapes(logits.sigmoid(), found.points, self.stride, self.sigma_px)
            calibrated = self.calibration.apply(found._replace(covariances=shapes))
            assert calibrated.covariances is not None
            assert calibrated.probabilities is not None
            xx, xy, _, yy = calibrated.covariances.flatten(-2).unbind(-1)
            entries = [xx * scale_x * scale_x, xy * scale_x * scale_y, xy * scale_x * scale_y, yy * scale_y * scale_y]
            covariances = torch.stack(entries, -1).view(*xx.shape, 2, 2) * (found.scores > 0)[..., None, None]
            outputs += [covariances, calibrated.probabilities]
        if self.vote_codec is not None and maps.votes is not None:
            grouping = self.vote_codec.group(found, maps.votes.float()).grouping
            assert grouping is not None
            outputs += [grouping.objects, grouping.object_scores]
            outputs += [] if grouping.belonging is None else [grouping.belonging]
        return (*outputs, logits.sigmoid()) if self.heatmaps else tuple(outputs)

    def _resize(self, images: Tensor, size: tuple[Any, Any]) -> Tensor:
        if self.plain_resizing:
            return resize_plainly(images, size)
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
