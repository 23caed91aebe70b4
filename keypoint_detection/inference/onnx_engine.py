"""Run an exported detector with onnxruntime; needs only NumPy and Pillow besides, not torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.inference.engines import Found, as_found, read_metadata
from keypoint_detection.printing import first_line
from keypoint_detection.types import DataError

# Key in the model's metadata: a JSON object with the channels and everything else needed to use the file.
METADATA_KEY = "kpd"


class OnnxEngine:
    """Run a file written by `kpd export`; see `Engine`.

    Raises:
        DataError: onnxruntime is not installed, or the file was not written by `kpd export`.
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
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
        # onnxruntime raises a separate class of error for each way in which a file can be wrong.
        except Exception as error:
            raise DataError(f"{path} cannot be read as an ONNX file ({first_line(error)}).") from error
        metadata = read_metadata(text, path)
        self.channels, self.coordinates = metadata.channels, metadata.coordinates
        self.lowest_score, self.best_f1 = metadata.lowest_score, metadata.best_f1
        self.thresholds_px = metadata.thresholds_px
        self._outputs = [output.name for output in self._session.get_outputs()]
        if not {"points", "scores"} <= set(self._outputs):
            raise DataError(f"{path} has the outputs {', '.join(self._outputs)}; points and scores are expected.")
        n_points = self._session.get_outputs()[self._outputs.index("scores")].shape[-1:]
        shapes = {
            "points": [len(self.channels), *n_points, 2],
            "scores": [len(self.channels), *n_points],
            "covariances": [len(self.channels), *n_points, 2, 2],
            "probabilities": [len(self.channels), *n_points, len(self.thresholds_px)],
            "objects": [len(self.channels), *n_points],
            "belonging": [len(self.channels), *n_points],
        }
        for output in self._session.get_outputs():
            if output.shape[1:] != (shape := shapes.get(output.name, output.shape[1:])):
                raise DataError(
                    f"{path}: its output {output.name} has the shape {output.shape[1:]} for each image, but its "
                    f"metadata says {shape}: it has been changed since `kpd export` wrote it; export it again."
                )
        # Heatmaps are computed only on request.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size.

        Raises:
            ValueError: heatmaps are requested, but the file was exported without them.
        """
        if heatmaps and "heatmaps" not in self._outputs:
            raise ValueError("this detector was exported without heatmaps: `kpd export --heatmaps=true` adds them.")
        names = [name for name in self._outputs if heatmaps or name != "heatmaps"]
        found = []
        for image in images:
            results = self._session.run(names, {"images": image[None]}, self._run_options)
            found.append(as_found(dict(zip(names, (result[0] for result in results), strict=True))))
        return found
