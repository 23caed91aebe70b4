"""Run a detector exported as a torch.export program."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from keypoint_detection.data.coco import Coordinates
from keypoint_detection.inference.engines import Found, as_found

__all__ = ["METADATA_FILE", "ProgramEngine"]

# Inside the program's file: a JSON object with the channels and whatever else a user of the file needs to know.
METADATA_FILE = "kpd.json"


class ProgramEngine:
    """Run a .pt2 file written by `kpd export`; see `Engine`."""

    def __init__(self, path: str) -> None:
        files = {METADATA_FILE: ""}
        self._program = torch.export.load(path, extra_files=files).module()
        metadata = json.loads(files[METADATA_FILE])
        self.channels: list[str] = metadata["channels"]
        self.coordinates: Coordinates = metadata["coordinates"]
        self.lowest_score: float = metadata["score_threshold"]
        self.best_f1: float | None = metadata["best_f1"]
        self.thresholds_px = tuple((metadata["calibration"] or {}).get("thresholds_px", ()))
        self._outputs: list[str] = metadata["outputs"]

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
        found = []
        for image in images:
            results = (output[0].numpy() for output in self._program(torch.from_numpy(image)[None]))
            one = as_found(dict(zip(self._outputs, results, strict=True)))
            found.append(one if heatmaps else one._replace(heatmaps=None))
        return found
