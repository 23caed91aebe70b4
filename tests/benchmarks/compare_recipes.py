"""Compare ways of training on many data sets, by the error on images that chose nothing.

    python tests/benchmarks/compare_recipes.py RESULTS SET.json [SET.json ...] --seeds 0 1 \\
        --recipe base --recipe "short: --trainer.max_steps=500" --recipe "fast: --model.lr=0.002" \\
        -- --data.image_size=[96,128]

Each SET.json is a COCO keypoint file, or a pattern of several files of one folder, divided anew for every seed as in
`choose_checkpoint.py`. A recipe is a name and the options of `kpd fit` that make it; those after `--` are common to
all. Every recipe trains on the same parts with the same seed, and its best.ckpt is measured on the test part.

RESULTS/results.jsonl gets a line per training and is resumed if the command is repeated. At the end come, for each
recipe, the ratios of its errors and times to those of the first one (geometric means over the trainings, with 95 %
bootstrap intervals over trainings), and its mean rank.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from studies import divide, measure, run

N_RESAMPLES = 2000
NUMBERS = ("error_px/mean", "error_px/median", "seconds")


class Recipe(NamedTuple):
    """A way of training: its name, and the options of `kpd fit` that make it."""

    name: str
    words: list[str]


def read_recipe(text: str) -> Recipe:
    """Read `NAME: OPTION OPTION`."""
    name, _, words = text.partition(":")
    return Recipe(name.strip(), words.split())


def train(pattern: str, seed: int, recipe: Recipe, common: list[str], folder: Path) -> dict[str, Any]:
    """Train once, and measure best.ckpt on images that chose nothing."""
    if folder.exists():  # of a training that was interrupted
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    files = divide(pattern, seed, folder)
    arguments = [
        *(f"--data.train={files['train']}", f"--data.val={files['val']}", "--data.outside_images=allow"),
        *(f"--seed_everything={seed}", f"--trainer.default_root_dir={folder / 'runs'}", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", "--data.num_workers=0", *common, *recipe.words),
    ]
    start = time.perf_counter()
    run(["fit", *arguments])
    seconds = time.perf_counter() - start
    (best,) = (folder / "runs").rglob("best.ckpt")
    measured = measure(best, files["test"], folder / "test")
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    row = {"set": pattern, "seed": seed, "recipe": recipe.name, "words": [*common, *recipe.words]}
    return row | measured | {"seconds": seconds}


def summarize(rows: list[dict[str, Any]], recipes: list[str]) -> None:
    """Print what every recipe gains or loses against the first one, per set and over all."""
    generator = np.random.default_rng(0)
    by_training: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_training.setdefault((row["set"], row["seed"]), {})[row["recipe"]] = row
    complete = {key: one for key, one in by_training.items() if recipes[0] in one}
    for name in [*sorted({pattern for pattern, _ in complete}), "all"]:
        members = [one for (pattern, _), one in complete.items() if name in (pattern, "all")]
        print(name)
        for recipe in recipes:
            pairs = [(one[recipe], one[recipes[0]]) for one in members if recipe in one]
            if not pairs:
                continue
            shown = []
            for number in NUMBERS:
                logs = np.array([math.log(one[number] / base[number]) for one, base in pairs])
                means = generator.choice(logs, (N_RESAMPLES, len(logs))).mean(1)
                low, high = np.exp(np.quantile(means, [0.025, 0.975]))
                shown.append(f"{number} {math.exp(logs.mean()):.3f} ({low:.3f}-{high:.3f})")
            of_all = [one for one in members if all(other in one for other in recipes)]
            ranks = [1 + sum(o["error_px/mean"] < one[recipe]["error_px/mean"] for o in one.values()) for one in of_all]
            rank = f"; mean rank {np.mean(ranks):.1f} of {len(recipes)}" if ranks else ""
            print(f"  {recipe:14} {len(pairs)} trainings: {', '.join(shown)}{rank}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recipe", action="append", type=read_recipe, required=True, dest="recipes")
    arguments, common = parser.parse_known_args()
    common = [word for word in common if word != "--"]
    path = arguments.results / "results.jsonl"
    arguments.results.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in arguments.seeds:
        for pattern in arguments.sets:
            for recipe in arguments.recipes:
                key = (pattern, seed, recipe.name)
                known = [row for row in rows if (row["set"], row["seed"], row["recipe"]) == key]
                if known and known[0]["words"] != [*common, *recipe.words]:
                    raise SystemExit(f"{path} has {recipe.name} with other options: {' '.join(known[0]['words'])}")
                if known:
                    continue
                folder = arguments.results / f"{len(rows)}-{recipe.name}"
                rows.append(train(pattern, seed, recipe, common, folder))
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(*key, round(rows[-1]["error_px/mean"], 2), round(rows[-1]["error_px/median"], 2), flush=True)
    summarize(rows, [recipe.name for recipe in arguments.recipes])


if __name__ == "__main__":
    main()
