"""What a detector predicted for images it was not trained on, as a file from which evaluations are pooled."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from keypoint_detection.types import DataError

# In the run folder.
HELD_OUT_FILE = "predictions.npz"
# Increased when old files can no longer be read.
FORMAT = 1
ABOUT = "about"
GROUPS = "groups"


class HeldOut(NamedTuple):
    """The detections and ground truths of a validation, and what it measured.

    Attributes:
        about: plain values: the file and its SHA-256, the settings of the split, how many images were trained on, and
            the arguments of the metric.
        groups: (I, 2) int64, the image ids and the group that each image belongs to; no rows if images are not grouped.
        rows: the states of `KeypointMetrics`, by name.
    """

    about: dict[str, Any]
    groups: Tensor
    rows: dict[str, Tensor]

    def image_ids(self) -> set[int]:
        """Return the ids of the images."""
        return set(self.rows["image_rows"][:, 0].tolist())


def write_held_out(path: Path, held_out: HeldOut) -> None:
    """Write a compressed file; an existing one is replaced only once the new one is complete."""
    arrays: dict[str, Any] = {name: rows.cpu().numpy() for name, rows in held_out.rows.items()}
    arrays |= {GROUPS: held_out.groups.numpy(), ABOUT: np.array(json.dumps({"format": FORMAT, **held_out.about}))}
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.replace(path)


def read_held_out(path: Path) -> HeldOut:
    """Read a file written by `write_held_out`.

    Raises:
        DataError: it is damaged, of another kind, or from another version.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = json.loads(str(arrays.pop(ABOUT)))
        groups = torch.from_numpy(arrays.pop(GROUPS))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); the predictions of a run are expected. `kpd "
            "validate` on its checkpoint writes them again."
        ) from error
    if about.get("format") != FORMAT:
        raise DataError(f"{path} has the format {about.get('format')}, this version reads {FORMAT}; validate again.")
    return HeldOut(about, groups, {name: torch.from_numpy(array) for name, array in arrays.items()})
