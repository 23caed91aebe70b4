"""What studies of trainings share: data sets divided anew, and commands run within this process."""

import contextlib
import glob
import io
import json
import math
from pathlib import Path

import numpy as np

from keypoint_detection.cli import run as kpd


def divide(pattern: str, seed: int, folder: Path) -> dict[str, Path]:
    """Write the parts of a set, with absolute file names, and return their files.

    A third of the images is the test part, which nothing may see but the last measurement; of the rest, a fifth is the
    validation part.

    Args:
        pattern: a COCO keypoint file, or a pattern of several files of one folder, taken together.
        seed: the same seed divides in the same way.
        folder: where to write them.
    """
    images, annotations, categories = [], [], []
    for number, path in enumerate(sorted(glob.glob(pattern))):
        content, offset = json.loads(Path(path).read_text()), 1_000_000 * number
        images += [
            {**one, "id": one["id"] + offset, "file_name": str((Path(path).parent / one["file_name"]).resolve())}
            for one in content["images"]
        ]
        annotations += [
            {**one, "id": one["id"] + offset, "image_id": one["image_id"] + offset} for one in content["annotations"]
        ]
        categories = content["categories"]
    order = np.random.default_rng(seed).permutation(len(images))
    n_test = len(images) // 3
    n_val = (len(images) - n_test) // 5
    parts = {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}
    files = {}
    for name, indices in parts.items():
        chosen = [images[index] for index in sorted(indices)]
        ids = {one["id"] for one in chosen}
        files[name] = folder / f"{name}.json"
        content = {"images": chosen, "annotations": [one for one in annotations if one["image_id"] in ids]}
        files[name].write_text(json.dumps({**content, "categories": categories}))
    return files


def run(words: list[str]) -> None:
    """Run a command without its output, unless it fails."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            kpd(words)
    except SystemExit as error:
        if error.code:
            raise RuntimeError(f"{' '.join(words)}\n{output.getvalue()}") from error


def measure(checkpoint: Path, test: Path, folder: Path) -> dict[str, float]:
    """Measure a checkpoint on the test part, in a new folder."""
    words = [f"--ckpt_path={checkpoint}", f"--data.test={test}", f"--trainer.default_root_dir={folder}"]
    run(["test", *words, "--data.outside_images=allow", "--data.num_workers=0", "--trainer.enable_progress_bar=false"])
    (path,) = folder.rglob("metrics.json")
    metrics = json.loads(path.read_text())["metrics"]
    numbers = {name: metrics[name] for name in ("error_px/mean", "error_px/median", "detection_rate", "mAP")}
    # What nothing was found for has no error.
    return {name: math.nan if value is None else value for name, value in numbers.items()}
