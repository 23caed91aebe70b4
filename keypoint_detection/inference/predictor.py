"""Find points in images with a trained detector, from Python; needs neither Lightning nor a config."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import torch
from PIL import Image
from torch import Tensor

from keypoint_detection.data.coco import PIXEL_INDEX_OFFSET_PX, Coordinates
from keypoint_detection.drawing import PointSet, draw_overlay
from keypoint_detection.geometry import apply_affine
from keypoint_detection.images import resize
from keypoint_detection.inference.inputs import ImageLike, to_image
from keypoint_detection.inference.loading import LoadedDetector, load_detector
from keypoint_detection.inference.results import Result
from keypoint_detection.inference.thresholds import choose_threshold

__all__ = ["Precision", "Predictor"]

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
Images: TypeAlias = list[Any] | tuple[Any, ...]

# Images that the network gets at a time when many are given: more is hardly faster and takes more memory.
IMAGES_AT_A_TIME = 16


class _Input(NamedTuple):
    """An image as the network gets it: its place in the list, (3, H, W) uint8, and the map to the original pixels."""

    position: int
    image: Tensor
    input_to_image: Tensor


class Predictor:
    """Find points in images with a trained detector; `Predictor.from_checkpoint` makes one.

    It keeps nothing from one call to the next, and several threads may use one.

    Args:
        detector: the trained parts.
        device: where the network runs, e.g. `cpu`, `cuda:1`; `auto` takes a GPU where there is one.
        precision: of the network's arithmetic; `bfloat16` and `float16` are faster on processors that have them, and
            move points by fractions of a pixel.
        compile: let `torch.compile` make the network faster; the first call then takes a minute.
        score_threshold: points that score less are left out. `best_f1` takes the threshold with the best F1 of the
            validation that the checkpoint carries; without one, the low threshold of training.
        coordinates: of the points: `continuous` where (0, 0) is the outer corner of the top-left pixel, `pixel_index`
            where it is its centre (OpenCV). None takes the convention of the labels that the detector was trained on.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        detector: LoadedDetector,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        compile: bool = False,
        score_threshold: float | Literal["best_f1"] = "best_f1",
        coordinates: Coordinates | None = None,
    ) -> None:
        if precision not in (known := ("float32", "bfloat16", "float16")):
            raise ValueError(f"precision is {precision!r}; one of {', '.join(known)} is expected.")
        self.channels = detector.channels
        self.device = _choose_device(device)
        self.coordinates: Coordinates = detector.inputs.coordinates if coordinates is None else coordinates
        self.score_threshold = choose_threshold(
            score_threshold, detector.best_f1_threshold, detector.codec.score_threshold
        )
        self._precision = getattr(torch, precision)
        self._codec, self._inputs = detector.codec, detector.inputs
        self._network = detector.network.to(self.device)
        if compile:
            self._network.compile()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        compile: bool = False,
        score_threshold: float | Literal["best_f1"] = "best_f1",
        coordinates: Coordinates | None = None,
    ) -> "Predictor":
        """Load a trained detector.

        Args:
            path: of the checkpoint, or `wandb://entity/project/name:alias`.
            device: see the class, as for all that follow.
            precision: of the network's arithmetic.
            compile: whether `torch.compile` makes the network faster.
            score_threshold: points that score less are left out.
            coordinates: the convention of the points.

        Raises:
            ValueError: the checkpoint cannot be used, or an option is out of range.
        """
        return cls(
            load_detector(str(path)),
            device=device,
            precision=precision,
            compile=compile,
            score_threshold=score_threshold,
            coordinates=coordinates,
        )

    @overload
    def __call__(self, images: ImageLike, *, heatmaps: bool = False) -> Result: ...

    @overload
    def __call__(self, images: Images, *, heatmaps: bool = False) -> list[Result]: ...

    def __call__(self, images: ImageLike | Images, *, heatmaps: bool = False) -> Result | list[Result]:
        """Find the points of one image, or of each image of a list.

        Args:
            images: NumPy arrays (H, W, 3) RGB or (H, W) grey, tensors (3, H, W), PIL images or paths of files; see
                `to_image`. Those of a list may differ in size.
            heatmaps: give the heatmaps too.

        Returns:
            The points in pixels of the image as it was given; for a list, a list in its order.

        Raises:
            ValueError, TypeError, ImageError: an image cannot be used; of a list, the message names which.
        """
        if isinstance(images, list | tuple):
            return self._detect_all([_read_entry(entry, index) for index, entry in enumerate(images)], heatmaps)
        return self._detect_all([to_image(images)], heatmaps)[0]

    def draw(self, image: ImageLike, min_score: float | None = None) -> Image.Image:
        """Draw the points of an image on it, for a notebook or a file.

        Args:
            image: see `__call__`.
            min_score: points that score less are not drawn; left out, the threshold of this predictor.
        """
        pixels = to_image(image)
        (result,) = self._detect_all([pixels], heatmaps=False)
        C, D = len(self.channels), max(map(len, result.xy.values()))
        points, scores = torch.zeros(C, D, 2), torch.zeros(C, D)
        for index, name in enumerate(self.channels):
            n_points = len(result.xy[name])
            points[index, :n_points] = torch.from_numpy(result.xy[name]) + self._offset
            scores[index, :n_points] = torch.from_numpy(result.scores[name])
        marks = PointSet(points, scores, true=torch.zeros(C, 0, 2), is_labelled=torch.zeros(C, 0, dtype=torch.bool))
        lowest = self.score_threshold if min_score is None else min_score
        return draw_overlay(pixels, marks, list(self.channels), min_score=lowest)

    @property
    def _offset(self) -> float:
        """How far continuous coordinates lie from those that are given out."""
        return PIXEL_INDEX_OFFSET_PX if self.coordinates == "pixel_index" else 0.0

    @torch.inference_mode()
    def _detect_all(self, images: Sequence[Tensor], heatmaps: bool) -> list[Result]:
        groups: defaultdict[tuple[int, ...], list[_Input]] = defaultdict(list)
        for position, image in enumerate(images):
            size = self._inputs.image_size or (int(image.shape[1]), int(image.shape[2]))
            groups[size].append(_Input(position, *resize(image, size, self._inputs.resize)))
        results: dict[int, Result] = {}
        for group in groups.values():
            for start in range(0, len(group), IMAGES_AT_A_TIME):
                batch = group[start : start + IMAGES_AT_A_TIME]
                positions = (one.position for one in batch)
                results.update(zip(positions, self._detect_batch(batch, heatmaps), strict=True))
        return [results[position] for position in range(len(images))]

    def _detect_batch(self, batch: Sequence[_Input], heatmaps: bool) -> list[Result]:
        images = torch.stack([one.image.to(self.device) for one in batch])
        is_reduced = self._precision != torch.float32
        with torch.autocast(self.device.type, dtype=self._precision if is_reduced else None, enabled=is_reduced):
            logits = self._network(images)
        maps = torch.sigmoid(logits.float())
        detections = self._codec.decode(maps)
        to_image_ = torch.stack([one.input_to_image for one in batch])
        points = (apply_affine(detections.points.cpu(), to_image_) - self._offset).numpy()
        scores = detections.scores.cpu().numpy()
        is_point = (scores > 0) & (scores >= self.score_threshold)
        names = list(self.channels)
        return [
            Result(
                {name: points[b, c][is_point[b, c]] for c, name in enumerate(names)},
                {name: scores[b, c][is_point[b, c]] for c, name in enumerate(names)},
                maps[b].cpu().numpy() if heatmaps else None,
            )
            for b in range(len(batch))
        ]


def _read_entry(entry: ImageLike, index: int) -> Tensor:
    try:
        return to_image(entry)
    except (TypeError, ValueError) as error:
        raise type(error)(f"images[{index}]: {error}") from error


def _choose_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
