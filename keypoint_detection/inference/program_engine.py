"""Run a detector that was exported as a program of torch.export."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from keypoint_detection.data.coco import Coordinates
from keypoint_detection.inference.engines import Found

__all__ = ["METADATA_FILE", "ProgramEngine"]

# Inside the program's file: a JSON object with the channels and what else a user of the file needs to know.
METADATA_FILE = "kpd.json"


class ProgramEngine:
    """Run a .pt2 file that `kpd export` wrote; see `Engine`."""

    def __init__(self, path: str) -> None:
        files = {METADATA_FILE: ""}
        self._program = torch.export.load(path, extra_files=files).module()
        metadata = json.loads(files[METADATA_FILE])
        self.channels: list[str] = metadata["channels"]
        self.coordinates: Coordinates = metadata["coordinates"]
        self.lowest_score: float = metadata["score_threshold"]
        self.best_f1: float | None = metadata["best_f1"]

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
        found = []
        for image in images:
            points, scores, *maps = (output[0].numpy() for output in self._program(torch.from_numpy(image)[None]))
            found.append(Found(points, scores, maps[0] if heatmaps else None))
        return found
