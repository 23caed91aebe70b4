"""Which checkpoint of a training should be kept? Measured on images that chose nothing.

    python tests/benchmarks/choose_checkpoint.py RESULTS SET.json [SET.json ...] --seeds 0 1 -- --trainer.max_steps=300

Each SET.json is a COCO keypoint file, or a pattern of several files of one folder, whose images are divided anew for
every seed: a third is the test part, which nothing sees but the last measurement; of the rest a fifth is the validation
part. One training keeps the checkpoint of every validation; each rule then chooses among them by what was validated:

* `mAP`: the highest validation mAP;
* `smoothed`: the highest mean of it and those before, as logged in `val/mAP_smoothed`;
* `loss`: the lowest validation loss;
* `last`: the last one;
* `certain`: the last one, unless an earlier one was better beyond what the validation images can tell: its mAP minus
  that of the last one is above zero in 97.5 % of the bootstrap resamples of the images;
* `mean3`, `mean5`: the mean of the weights of the last three or five;
* `ema98`, `ema995`: the moving average of the weights over all steps, with this decay.

RESULTS/results.jsonl gets a line per training and is resumed if the command is repeated; at the end come the ratios to
`last` of the mean test errors (geometric means over trainings, with 95 % bootstrap intervals over trainings).
"""

import argparse
import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from studies import divide, measure, run

from keypoint_detection.checkpoints.files import VALIDATION_KEY, read_checkpoint
from keypoint_detection.checkpoints.writing import write_checkpoint
from keypoint_detection.metrics import KeypointMetrics

N_VALIDATIONS = 15
LATEST_SHARE = 0.4  # of the detector's smoothed mAP
N_RESAMPLES = 1000
DECAYS = {"ema98": 0.98, "ema995": 0.995}
RULES = ("mAP", "smoothed", "loss", "last", "certain", "mean3", "mean5", *DECAYS)


class MovingAverages(Callback):
    """Average the weights over all steps, and write the averages beside the run."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.averages = {name: copy.deepcopy(pl_module.state_dict()) for name in DECAYS}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        for name, decay in DECAYS.items():
            for average, value in zip(self.averages[name].values(), pl_module.state_dict().values(), strict=True):
                if value.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, average in self.averages.items():
            torch.save(average, Path(trainer.default_root_dir) / f"{name}.pt")


def train(files: dict[str, Path], seed: int, folder: Path, words: list[str]) -> list[dict[str, Any]]:
    """Train once and return every checkpoint that was validated, in order."""
    n_steps = next(int(word.partition("=")[2]) for word in words if word.startswith("--trainer.max_steps="))
    arguments = [
        *(f"--data.train={files['train']}", f"--data.val={files['val']}", "--data.outside_images=allow"),
        *(f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}", "--trainer.logger=false"),
        *(f"--trainer.val_check_interval={n_steps // N_VALIDATIONS}", "--trainer.check_val_every_n_epoch=null"),
        *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"),
        "--trainer.callbacks.monitor=val/mAP",
        *("--trainer.callbacks.mode=max", "--trainer.callbacks.filename=all-{step}"),
        f"--trainer.callbacks+={MovingAverages.__module__}.MovingAverages",
        *("--trainer.enable_progress_bar=false", "--data.num_workers=0", *words),
    ]
    run(["fit", *arguments])
    paths = list(folder.rglob("all-step=*.ckpt"))
    return [read_checkpoint(str(path)) for path in sorted(paths, key=lambda path: int(path.stem.partition("=")[2]))]


def choose(checkpoints: list[dict[str, Any]]) -> dict[str, int | list[int]]:
    """Apply every rule to the validations in the checkpoints: the index that it keeps, or those to average."""
    validations = [one[VALIDATION_KEY] for one in checkpoints]
    state = validations[-1]["report"]
    names = [channel["name"] for channel in state["channels"]]
    metric = KeypointMetrics(names, list(state["thresholds_px"]), list(state["relative_thresholds"]))
    reports = [metric.pool([one["rows"]]) for one in validations]
    precisions = [report.overall.mean_average_precision for report in reports]
    smoothed = [precisions[0]]
    for value in precisions[1:]:
        smoothed.append(smoothed[-1] + LATEST_SHARE * (value - smoothed[-1]))
    last = len(reports) - 1

    def latest_best(values: list[float]) -> int:
        return max(range(len(values)), key=lambda index: (values[index], index))

    n_images = reports[-1].n_images
    drawn = np.random.default_rng(0).multinomial(n_images, [1 / n_images] * n_images, size=N_RESAMPLES).T
    resamples = torch.from_numpy(drawn).double()
    best = latest_best(precisions)
    difference = (
        reports[best].overall_in_resamples(resamples)["mean_average_precision"]
        - reports[last].overall_in_resamples(resamples)["mean_average_precision"]
    )
    is_certain = float(torch.quantile(difference.double(), 0.025)) > 0
    return {
        "mAP": best,
        "smoothed": latest_best(smoothed),
        "loss": latest_best([-report.overall.loss for report in reports]),
        "last": last,
        "certain": best if is_certain else last,
        "mean3": list(range(last - 2, last + 1)),
        "mean5": list(range(last - 4, last + 1)),
    }


def average(checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last checkpoint with the mean of the weights of all."""
    mean = copy.copy(checkpoints[-1])
    weights = [one["state_dict"] for one in checkpoints]
    mean["state_dict"] = {
        name: torch.stack([one[name].double() for one in weights]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in weights[-1].items()
    }
    return mean


def study(pattern: str, seed: int, folder: Path, words: list[str]) -> dict[str, Any]:
    """Train once, and measure what every rule chooses."""
    folder.mkdir(parents=True)
    files = divide(pattern, seed, folder)
    checkpoints = train(files, seed, folder / "runs", words)
    measured: dict[str, dict[str, float]] = {}
    results = {}
    chosen: dict[str, int | list[int] | str] = {**choose(checkpoints), **{name: name for name in DECAYS}}
    for rule, choice in chosen.items():
        if str(choice) not in measured:
            if isinstance(choice, str):
                state = torch.load(folder / "runs" / f"{choice}.pt", weights_only=True)
                checkpoint = {**checkpoints[-1], "state_dict": state}
            elif isinstance(choice, list):
                checkpoint = average([checkpoints[one] for one in choice])
            else:
                checkpoint = checkpoints[choice]
            tested = folder / f"test-{rule}"
            tested.mkdir()
            write_checkpoint(checkpoint, tested / "chosen.ckpt")
            measured[str(choice)] = measure(tested / "chosen.ckpt", files["test"], tested)
        validated = checkpoints[choice if isinstance(choice, int) else -1][VALIDATION_KEY]["report"]["overall"]
        claimed = {"val_mean": validated["error_px_mean"], "val_mAP": validated["mean_average_precision"]}
        results[rule] = {"choice": choice, **measured[str(choice)], **claimed}
    counts = {name: len(json.loads(path.read_text())["images"]) for name, path in files.items()}
    for path in [*folder.rglob("*.ckpt"), *folder.rglob("*.pt")]:
        path.unlink()
    return {"set": pattern, "seed": seed, "images": counts, "words": words, "rules": results}


def summarize(rows: list[dict[str, Any]]) -> None:
    """Print the ratio of each rule's mean test error to that of the last checkpoint, per set and over all."""
    generator = np.random.default_rng(0)
    sets = sorted({row["set"] for row in rows})
    for name in [*sets, "all"]:
        members = [row["rules"] for row in rows if name in (row["set"], "all")]
        print(f"{name}: {len(members)} trainings")
        for rule in RULES:
            logs = np.array([math.log(one[rule]["error_px/mean"] / one["last"]["error_px/mean"]) for one in members])
            means = generator.choice(logs, (N_RESAMPLES, len(logs))).mean(1)
            low, high = np.exp(np.quantile(means, [0.025, 0.975]))
            precision = np.mean([one[rule]["mAP"] - one["last"]["mAP"] for one in members])
            claim = np.mean([math.log(one[rule]["val_mean"] / one[rule]["error_px/mean"]) for one in members])
            print(
                f"  {rule:9} error {math.exp(logs.mean()):.3f} ({low:.3f}-{high:.3f}) of last's; mAP {precision:+.4f}; "
                f"validation claims {math.exp(claim):.2f} of the test error"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    arguments, words = parser.parse_known_args()
    words = [word for word in words if word != "--"]
    path = arguments.results / "results.jsonl"
    arguments.results.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in arguments.seeds:
        for pattern in arguments.sets:
            if any(row["set"] == pattern and row["seed"] == seed for row in rows):
                continue
            folder = arguments.results / f"{len(rows)}-{seed}"
            row = study(pattern, seed, folder, words)
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                pattern, seed, {rule: round(one["error_px/mean"], 2) for rule, one in row["rules"].items()}, flush=True
            )
    summarize(rows)


if __name__ == "__main__":
    main()
