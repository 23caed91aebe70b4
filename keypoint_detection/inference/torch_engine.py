"""Run a checkpoint with PyTorch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keypoint_detection.codec.points import find_points
from keypoint_detection.data.coco_keypoints import Coordinates
from keypoint_detection.inference.engines import Found
from keypoint_detection.inference.loading import LoadedDetector
from keypoint_detection.printing import first_line
from keypoint_detection.resizing import resize

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

# Number of images per batch if many are given: larger batches are hardly faster and take more memory.
IMAGES_AT_A_TIME = 16


class _Input(NamedTuple):
    """An image as the network gets it: its index in the list, (3, H, W) uint8, and the map to the original pixels."""

    position: int
    image: Tensor
    input_to_image: Tensor


class TorchEngine:
    """Run a detector with PyTorch; see `Engine`, and `Predictor.from_checkpoint` for the options.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, detector: LoadedDetector, device: str, precision: Precision, compile: bool) -> None:
        if precision not in (known := ("float32", "bfloat16", "float16")):
            raise ValueError(f"precision is {precision!r}; one of {', '.join(known)} is expected.")
        self.channels = list(detector.channels)
        self.coordinates: Coordinates = detector.inputs.coordinates
        self.lowest_score = detector.codec.score_threshold
        self.best_f1 = detector.best_f1_threshold
        self.device = _choose_device(device)
        self._precision = getattr(torch, precision)
        self._codec, self._vote_codec = detector.codec, detector.vote_codec
        self._inputs, self._calibration = detector.inputs, detector.calibration
        self.thresholds_px = () if detector.calibration is None else detector.calibration.thresholds_px
        self._network = detector.network.to(self.device)
        if compile:
            self._network.compile()

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
        groups: defaultdict[tuple[int, ...], list[_Input]] = defaultdict(list)
        for position, pixels in enumerate(images):
            # Copied if the memory is read-only, about which torch would warn.
            image = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
            size = self._inputs.image_size or (int(image.shape[1]), int(image.shape[2]))
            groups[size].append(_Input(position, *resize(image.contiguous(), size, self._inputs.resize)))
        found: dict[int, Found] = {}
        for group in groups.values():
            for start in range(0, len(group), IMAGES_AT_A_TIME):
                batch = group[start : start + IMAGES_AT_A_TIME]
                positions = (one.position for one in batch)
                found.update(zip(positions, self._detect_batch(batch, heatmaps), strict=True))
        return [found[position] for position in range(len(images))]

    def _detect_batch(self, batch: Sequence[_Input], heatmaps: bool) -> list[Found]:
        images = torch.stack([one.image for one in batch]).to(self.device)
        is_reduced = self._precision != torch.float32
        with torch.autocast(self.device.type, dtype=self._precision if is_reduced else None, enabled=is_reduced):
            network_maps = self._network(images)
        input_to_image = torch.stack([one.input_to_image for one in batch])
        found = find_points(network_maps, self._codec, self._vote_codec, self._calibration, input_to_image)
        maps = torch.sigmoid(network_maps.logits.float()) if heatmaps else None
        points, scores = found.points.cpu().numpy(), found.scores.cpu().numpy()
        groups = found.grouping
        of_objects = (None,) * 3 if groups is None else (groups.objects, groups.object_scores, groups.belonging)
        optional = (found.covariances, found.probabilities, *of_objects, maps)
        parts = [_split(part, len(batch)) for part in optional]
        return [Found(*one) for one in zip(points, scores, *parts, strict=True)]


def _split(tensor: Tensor | None, n: int) -> Sequence[NDArray[Any] | None]:
    """Return the rows of a tensor, or None n times if there is no tensor."""
    return [None] * n if tensor is None else list(tensor.cpu().numpy())


def _choose_device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device is {name!r}, which cannot be used ({first_line(error)}); use 'cpu' or 'auto'."
            ) from error
        return device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
