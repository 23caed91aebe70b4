"""Run a detector exported as a torch.export program."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from keypoint_detection.inference.engines import Found, as_found, read_metadata

# Entry in the program's file: a JSON object with the channels and everything else needed to use the file.
METADATA_FILE = "kpd.json"


class ProgramEngine:
    """Run a .pt2 file that this process has just written; see `Engine`.

    Not for untrusted files: `torch.export.load` unpickles their content, which can run any code.
    """

    def __init__(self, path: str) -> None:
        files = {METADATA_FILE: ""}
        self._program = torch.export.load(path, extra_files=files).module()
        metadata = read_metadata(files[METADATA_FILE], path)
        self.channels, self.coordinates = metadata.channels, metadata.coordinates
        self.lowest_score, self.best_f1 = metadata.lowest_score, metadata.best_f1
        self.thresholds_px, self._outputs = metadata.thresholds_px, metadata.outputs

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], heatmaps: bool) -> list[Found]:
        """Find the points of (H, W, 3) images, which may differ in size."""
        found = []
        for image in images:
            results = (output[0].numpy() for output in self._program(torch.from_numpy(image)[None]))
            one = as_found(dict(zip(self._outputs, results, strict=True)))
            found.append(one if heatmaps else one._replace(heatmaps=None))
        return found
