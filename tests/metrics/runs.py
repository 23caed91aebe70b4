"""Folders of runs with predictions, for the tests of what is made of several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from metrics.processes import fill, make_metric

from keypoint_detection.metrics.held_out import HELD_OUT_FILE, HeldOut, write_held_out


def write_run(
    folder: Path,
    image_ids: Sequence[int],
    groups: dict[int, int] | None = None,
    config: str = "model: {}",
    shift_px: float = 0.0,
    **about: Any,
) -> Path:
    """Write a run that held out some of the images of `make_image`, in batches of two; its detections may be moved."""
    metric = make_metric()
    report = fill(metric, [list(image_ids[start : start + 2]) for start in range(0, len(image_ids), 2)]).compute()
    assert report.measurements is not None
    described = {
        "file": "train.json", "sha256": "0" * 64, "n_folds": None, "fold": None, "group_by": None, "val_fraction": 0.2,
        "split_seed": 0, "train_fraction": 1.0, "n_train_images": 40, "seed": 0,
        "channels": list(metric.channels), "thresholds_px": list(metric.thresholds_px),
        "relative_thresholds": list(metric.relative_thresholds), "oks_sigmas": None,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    report.measurements.rows["detection_values"][:, 0] += shift_px
    pairs = torch.tensor(sorted((groups or {}).items()), dtype=torch.int64).reshape(-1, 2)
    write_held_out(folder / HELD_OUT_FILE, HeldOut(described | about, pairs, report.measurements.rows))
    return folder


def write_folds(folder: Path, **about: Any) -> list[Path]:
    """Write three runs that hold out the images 0 to 10 once."""
    parts = ([7, 0, 4], [1, 5, 10, 2], [9, 3, 6, 8])
    return [
        write_run(folder / f"fold{fold}", part, **{"n_folds": 3, "fold": fold, **about})
        for fold, part in enumerate(parts)
    ]
