"""Find points in images with a trained detector, from Python; needs neither Lightning nor a config."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.data.coco_keypoints import Coordinates, offset_px
from keypoint_detection.drawing import PointSet, draw_overlay
from keypoint_detection.images import ImageError
from keypoint_detection.inference.engines import Engine, Found
from keypoint_detection.inference.inputs import ImageLike, to_pixels
from keypoint_detection.inference.results import Result, number_objects
from keypoint_detection.inference.thresholds import choose_threshold

if TYPE_CHECKING:
    from keypoint_detection.inference.torch_engine import Precision

Images: TypeAlias = list[Any] | tuple[Any, ...]


class Predictor:
    """Find points in images with a trained detector; create it by `from_checkpoint` or `from_onnx`.

    It keeps no state between calls, and several threads may share one.

    Args:
        engine: what runs the detector.
        score_threshold: points with lower scores are left out. `best_f1` uses the threshold with the best F1 in the
            validation stored in the checkpoint; without one, the low threshold of training.
        coordinates: convention of the points: in `continuous`, (0, 0) is the outer corner of the top-left pixel, in
            `pixel_index` its centre (OpenCV). None uses the convention of the labels that the detector was trained on.

    Raises:
        ValueError: the threshold is out of range, or there is no such convention.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        score_threshold: float | Literal["best_f1"],
        coordinates: Coordinates | None,
    ) -> None:
        if coordinates not in (None, *get_args(Coordinates)):
            known = " or ".join(map(repr, get_args(Coordinates)))
            raise ValueError(f"coordinates is {coordinates!r}; {known} is expected.")
        self.engine = engine
        self.channels = engine.channels
        self.coordinates: Coordinates = coordinates or engine.coordinates
        self.score_threshold = choose_threshold(score_threshold, engine.best_f1, engine.lowest_score)
        # The offset from the returned coordinates to continuous ones.
        self._offset = offset_px(self.coordinates)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        precision: "Precision" = "float32",
        compile: bool = False,
        flip_test: bool | None = None,
        score_threshold: float | Literal["best_f1"] = "best_f1",
        coordinates: Coordinates | None = None,
        trust: Sequence[str] = (),
    ) -> "Predictor":
        """Load a trained detector.

        Args:
            path: path of the checkpoint, or `wandb://entity/project/name:alias`.
            device: where the network runs, e.g. `cpu`, `cuda:1`; `auto` uses a GPU if there is one.
            precision: precision of the network's arithmetic; `bfloat16` and `float16` are faster on processors that
                support them, and move points by fractions of a pixel.
            compile: speed up the network with `torch.compile`; the first call then takes a minute.
            flip_test: average the heatmaps with those of the mirrored image: more precise, at twice the runtime; needs
                a detector trained with `data.flip_pairs`. None does as in training.
            score_threshold: see the class.
            coordinates: see the class.
            trust: names of modules that the checkpoint may import, e.g. that of your own backbone; modules that are
                already imported need not be named.

        Raises:
            ValueError: the checkpoint cannot be used, or an option is out of range.
        """
        from keypoint_detection.checkpoints.trust import trusting
        from keypoint_detection.inference.loading import load_detector
        from keypoint_detection.inference.torch_engine import TorchEngine

        with trusting(trust):
            detector = load_detector(str(path), flip_test=flip_test)
        engine = TorchEngine(detector, device, precision, compile)
        return cls(engine, score_threshold=score_threshold, coordinates=coordinates)

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        n_threads: int | None = None,
        score_threshold: float | Literal["best_f1"] = "best_f1",
        coordinates: Coordinates | None = None,
    ) -> "Predictor":
        """Load a detector written by `kpd export`; needs onnxruntime, NumPy and Pillow, but not torch.

        Args:
            path: path of the .onnx file.
            n_threads: number of threads; None leaves it to onnxruntime.
            score_threshold: see the class.
            coordinates: see the class.

        Raises:
            ValueError: the file was not written by `kpd export`, or an option is out of range.
        """
        from keypoint_detection.inference.onnx_engine import OnnxEngine

        return cls(OnnxEngine(str(path), n_threads), score_threshold=score_threshold, coordinates=coordinates)

    @overload
    def __call__(self, images: ImageLike, *, heatmaps: bool = False) -> Result: ...

    @overload
    def __call__(self, images: Images, *, heatmaps: bool = False) -> list[Result]: ...

    def __call__(self, images: ImageLike | Images, *, heatmaps: bool = False) -> Result | list[Result]:
        """Find the points of one image, or of each image of a list.

        Args:
            images: NumPy arrays (H, W, 3) RGB or (H, W) grey, tensors (3, H, W), PIL images or paths of files; see
                `to_pixels`. Those of a list may differ in size.
            heatmaps: return the heatmaps too; an exported detector has them only if exported with `--heatmaps=true`.

        Returns:
            The points in pixels of the given image; for a list, a list in the same order.

        Raises:
            ValueError, TypeError, ImageError: an image cannot be used; for a list, the message says which.
        """
        if isinstance(images, list | tuple):
            pixels = [_read_entry(entry, index) for index, entry in enumerate(images)]
            return [self._as_result(found) for found in self.engine.detect(pixels, heatmaps)]
        (found,) = self.engine.detect([to_pixels(images)], heatmaps)
        return self._as_result(found)

    def draw(self, image: ImageLike, min_score: float | None = None) -> Image.Image:
        """Draw the points of an image on it, for a notebook or a file.

        Args:
            image: see `__call__`.
            min_score: points with lower scores are not drawn; by default, the threshold of this predictor.
        """
        pixels = to_pixels(image)
        result = self(pixels)
        points = [result.xy[name] + self._offset for name in self.channels]
        objects = None if result.object_of is None else [result.object_of[name] for name in self.channels]
        marks = PointSet.of_predictions(points, [result.scores[name] for name in self.channels], objects)
        lowest = self.score_threshold if min_score is None else min_score
        return draw_overlay(pixels, marks, self.channels, min_score=lowest)

    def _as_result(self, found: Found) -> Result:
        is_point = (found.scores > 0) & (found.scores >= self.score_threshold)

        def by_channel(values: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
            return {} if values is None else {name: values[c][is_point[c]] for c, name in enumerate(self.channels)}

        object_of, object_scores = None, None
        if found.objects is not None and found.object_scores is not None:
            numbers, object_scores = number_objects(found.objects, found.object_scores, is_point)
            object_of = {name: numbers[c][is_point[c]] for c, name in enumerate(self.channels)}
        return Result(
            by_channel(found.points - np.float32(self._offset)),
            by_channel(found.scores),
            self.engine.thresholds_px,
            by_channel(found.probabilities),
            by_channel(found.covariances),
            found.heatmaps,
            object_of,
            object_scores,
            by_channel(found.belonging),
        )


def _read_entry(entry: ImageLike, index: int) -> NDArray[np.uint8]:
    try:
        return to_pixels(entry)
    except (TypeError, ValueError, ImageError) as error:
        raise type(error)(f"images[{index}]: {error}") from error
