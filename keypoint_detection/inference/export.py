"""Write a detector as one ONNX file that takes images and gives points, and hold it to PyTorch."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from keypoint_detection.codec.peak_shapes import measure_shapes
from keypoint_detection.codec.plain_decoder import decode_plainly
from keypoint_detection.images import LETTERBOX_GREY
from keypoint_detection.inference.engines import Engine, Found
from keypoint_detection.inference.loading import LoadedDetector
from keypoint_detection.inference.onnx_engine import METADATA_KEY, OnnxEngine
from keypoint_detection.inference.torch_engine import TorchEngine
from keypoint_detection.types import DataError, Detections

__all__ = ["MAX_DIFFERENCE_PX", "ExportableDetector", "Parity", "compare", "export_onnx"]

# Resizing by ONNX operators came with opset 18, which onnxruntime has known since 1.14.
OPSET = 18
# Points of an exported detector may not lie further from those of PyTorch, in pixels of the original images.
MAX_DIFFERENCE_PX = 0.05
# Whether a point reaches the score from which on points count can be decided by rounding.
SCORE_MARGIN = 0.01
N_TIMED = 5


class ExportableDetector(nn.Module):
    """All that happens between an image and its points, in operations that can be exported.

    Args:
        detector: the trained parts.
    """

    def __init__(self, detector: LoadedDetector) -> None:
        super().__init__()
        self.network, self.inputs = detector.network, detector.inputs
        codec = detector.codec
        # The exporter takes plain numbers only, and the parser's restricted ones are not.
        self.stride, self.max_keypoints = int(codec.stride), int(codec.max_keypoints)
        self.score_threshold, self.min_distance_px = float(codec.score_threshold), float(codec.min_distance_px)
        self.sigma_px = float(codec.sigma_px)
        self.calibration = detector.calibration

    @property
    def output_names(self) -> list[str]:
        """Name what `forward` gives; without a calibration the last two are missing."""
        return list(Detections._fields[: 2 if self.calibration is None else 4])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Find the points of (B, H, W, 3) uint8 images: the fields of `Detections`, in their pixels."""
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
            x = F.interpolate(x, size=(inner_height, inner_width), mode="bilinear", antialias=True)
            top, left = (rows - inner_height) // 2, (columns - inner_width) // 2
            padding = (left, columns - inner_width - left, top, rows - inner_height - top)
            x = F.pad(x, padding, value=LETTERBOX_GREY)
            scale_x, scale_y = width / inner_width, height / inner_height
        logits = self.network(x)
        found = decode_plainly(
            logits,
            self.stride,
            max_keypoints=self.max_keypoints,
            score_threshold=self.score_threshold,
            min_distance_px=self.min_distance_px,
        )
        moved = torch.stack([(found.points[..., 0] - left) * scale_x, (found.points[..., 1] - top) * scale_y], dim=-1)
        moved = moved * (found.scores > 0)[..., None]
        if self.calibration is None:
            return moved, found.scores
        shapes = measure_shapes(torch.sigmoid(logits), found.points, self.stride, self.sigma_px)
        calibrated = self.calibration.apply(found._replace(covariances=shapes))
        assert calibrated.covariances is not None
        assert calibrated.probabilities is not None
        xx, xy, _, yy = calibrated.covariances.flatten(-2).unbind(-1)
        entries = [xx * scale_x * scale_x, xy * scale_x * scale_y, xy * scale_x * scale_y, yy * scale_y * scale_y]
        covariances = torch.stack(entries, -1).view(*xx.shape, 2, 2) * (found.scores > 0)[..., None, None]
        return moved, found.scores, covariances, calibrated.probabilities


def export_onnx(detector: LoadedDetector, path: Path, version: str) -> None:
    """Write a detector as an ONNX file with its metadata inside.

    Args:
        detector: what is written.
        path: of the file; it appears when it is complete.
        version: of this package.

    Raises:
        DataError: onnx is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # without it the exporter fails with its own words
    except ModuleNotFoundError as error:
        raise DataError("exporting needs onnx: pip install 'keypoint-detection[onnx]'.") from error
    model = ExportableDetector(detector).eval()
    height, width = detector.inputs.image_size or (256, 256)
    # Neither the size of the network's input nor a multiple of it, so that no number is taken for a constant.
    example = torch.zeros(2, height + 16, width + 48, 3, dtype=torch.uint8)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("height", min=8), 2: torch.export.Dim("width", min=8)}
    with torch.inference_mode(mode=False), torch.no_grad():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=(sizes,),
            opset_version=OPSET,
            input_names=["images"],
            output_names=model.output_names,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    content = program.model_proto
    for node in content.graph.node:
        del node.metadata_props[:]  # stack traces with the paths of this machine
    metadata = {
        "channels": list(detector.channels),
        "types": detector.channels,
        "coordinates": detector.inputs.coordinates,
        "points": "continuous: (0, 0) is the outer corner of the top-left pixel of the image that was given",
        "score_threshold": detector.codec.score_threshold,
        "best_f1": detector.best_f1_threshold,
        "calibration": None if detector.calibration is None else detector.calibration.as_state(),
        "version": version,
    }
    onnx.helper.set_model_props(content, {METADATA_KEY: json.dumps(metadata)})
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        onnx.save(content, partial)
        partial.replace(path)


class Parity(NamedTuple):
    """How far an exported detector is from PyTorch.

    Attributes:
        n_images: compared.
        min_score: of the points that count: that with the best F1 of the validation, or the lowest that there are.
        n_points: of those, found by both.
        n_unmatched: found by only one of the two; not by less than a hundredth above `min_score`.
        max_difference_px: between points that count, in pixels of the images.
        max_weak_difference_px: between the others, which one level of one pixel can move.
        max_score_difference: of all points that both found.
        max_spread_difference_px: between points that count; 0 without a calibration.
        max_probability_difference: of all points that both found; 0 without a calibration.
        torch_ms: median time of one image in PyTorch, reading left out.
        onnx_ms: likewise in onnxruntime.
    """

    n_images: int
    min_score: float
    n_points: int
    n_unmatched: int
    max_difference_px: float
    max_weak_difference_px: float
    max_score_difference: float
    max_spread_difference_px: float
    max_probability_difference: float
    torch_ms: float
    onnx_ms: float

    @property
    def holds(self) -> bool:
        """Whether the two can stand for each other."""
        largest = max(self.max_difference_px, self.max_spread_difference_px)
        return self.n_unmatched == 0 and largest < MAX_DIFFERENCE_PX


def compare(detector: LoadedDetector, path: Path, images: Sequence[NDArray[np.uint8]]) -> Parity:
    """Compare an exported detector with PyTorch, point by point.

    Args:
        detector: that was exported.
        path: of the file.
        images: (H, W, 3) each.
    """
    one: Engine = TorchEngine(detector, "cpu", "float32", compile=False)
    other: Engine = OnnxEngine(str(path), torch.get_num_threads())
    min_score = one.best_f1 or one.lowest_score
    pairs, n_unmatched = [np.zeros((0, 5))], 0
    for image in images:
        (a,), (b,) = one.detect([image], False), other.detect([image], False)
        for channel in range(len(a.scores)):
            found = [_Points.of_channel(each, channel) for each in (a, b)]
            matched, lonely = _match(*found)
            pairs.append(matched)
            n_unmatched += int((lonely >= min_score + SCORE_MARGIN).sum())
    gaps, score_gaps, spread_gaps, probability_gaps, scores = np.concatenate(pairs).T
    counts = scores >= min_score
    return Parity(
        n_images=len(images),
        min_score=min_score,
        n_points=int(counts.sum()),
        n_unmatched=n_unmatched,
        max_difference_px=float(gaps[counts].max(initial=0)),
        max_weak_difference_px=float(gaps[~counts].max(initial=0)),
        max_score_difference=float(score_gaps.max(initial=0)),
        max_spread_difference_px=float(spread_gaps[counts].max(initial=0)),
        max_probability_difference=float(probability_gaps.max(initial=0)),
        torch_ms=_time(one, images[0]),
        onnx_ms=_time(other, images[0]),
    )


class _Points(NamedTuple):
    """(n, 2) points of one channel of one image, their (n,) scores, spreads, and probabilities; 0 where unknown."""

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    spreads: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @classmethod
    def of_channel(cls, found: Found, channel: int) -> "_Points":
        """Take the points of a channel, without unused slots."""
        scores = found.scores[channel]
        spreads, probabilities = np.zeros_like(scores), np.zeros_like(scores)
        if found.covariances is not None and found.probabilities is not None:
            spreads = np.sqrt(np.trace(found.covariances[channel], axis1=1, axis2=2) / 2)
            probabilities = found.probabilities[channel, :, -1]
        is_real = scores > 0
        return cls(*(values[is_real] for values in (found.points[channel], scores, spreads, probabilities)))


def _match(one: _Points, other: _Points) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Pair points within a pixel.

    Returns:
        (n, 5) distance, differences of scores, spreads, and probabilities, and score; the scores of all without a pair.
    """
    gaps = np.linalg.norm(one.points[:, None].astype(float) - other.points[None], axis=2)  # (n, m)
    rows, columns = np.nonzero((gaps == gaps.min(axis=1, keepdims=True, initial=np.inf)) & (gaps < 1))
    others = [np.abs(a[rows] - b[columns]) for a, b in zip(one[1:], other[1:], strict=True)]
    matched = np.stack([gaps[rows, columns], *others, one.scores[rows]], axis=1)
    return matched, np.concatenate([np.delete(one.scores, rows), np.delete(other.scores, columns)])


def _time(engine: Engine, image: NDArray[np.uint8]) -> float:
    durations = []
    for _ in range(N_TIMED):
        start = time.perf_counter()
        engine.detect([image], False)
        durations.append(1000 * (time.perf_counter() - start))
    return float(np.median(durations))
