"""Run an exported detector with onnxruntime; needs NumPy and Pillow besides, and no torch."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.coco import Coordinates
from keypoint_detection.inference.engines import Found
from keypoint_detection.types import DataError

__all__ = ["METADATA_KEY", "OnnxEngine"]

# Of the model's own metadata: a JSON object with the channels and what else a user of the file needs to know.
METADATA_KEY = "kpd"


class OnnxEngine:
    """Run a file that `kpd export` wrote; see `Engine`.

    Raises:
        DataError: onnxruntime is not installed, or the file is not one of `kpd export`.
    """

    def __init__(self, path: str, n_threads: int | None) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise DataError(f"{path}: needs onnxruntime: pip install onnxruntime.") from error
        options = onnxruntime.SessionOptions()
        if n_threads is not None:
            options.intra_op_num_threads = n_threads
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
            metadata = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        except KeyError as error:
            raise DataError(f"{path} was not written by `kpd export`: it does not name its channels.") from error
        # onnxruntime raises errors of its own, one class for each way in which a file can be wrong.
        except Exception as error:
            raise DataError(f"{path} cannot be read as an ONNX file ({str(error).splitlines()[0]}).") from error
        self.channels: list[str] = metadata["channels"]
        self.coordinates: Coordinates = metadata["coordinates"]
        self.lowest_score: float = metadata["score_threshold"]
        self.best_f1: float | None = metadata["best_f1"]
        # Files of earlier versions have neither.
        self.thresholds_px = tuple((metadata.get("calibration") or {}).get("thresholds_px", ()))
        self._outputs = [output.name for output in self._session.get_outputs()]

    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size.

        Raises:
            ValueError: heatmaps are asked for.
        """
        if heatmaps:
            raise ValueError("an exported detector gives points only; for heatmaps, load its checkpoint.")
        found = []
        for image in images:
            outputs = dict(zip(self._outputs, self._session.run(self._outputs, {"images": image[None]}), strict=True))
            covariances, probabilities = (
                outputs[name][0] if name in outputs else None for name in ("covariances", "probabilities")
            )
            found.append(Found(outputs["points"][0], outputs["scores"][0], covariances, probabilities, None))
        return found
