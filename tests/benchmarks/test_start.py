"""Processor seconds until the program answers, each in a process of its own: mostly imports.

With `KPD_OTHER=/path/to/another/checkout`, the same of that one, in turns: a busy machine slows down both.
"""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from spot_detector import make_checkpoint

ROOT = Path(__file__).parents[2]
N_ROUNDS = 4
RUN = "import sys; from keypoint_detection.cli import run; run(sys.argv[1:])"
LOAD = "import sys; from keypoint_detection import Predictor; Predictor.from_checkpoint(sys.argv[1])"


def seconds(root: Path, folder: Path, code: str, words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    paths = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    start = f"import sys; sys.path.insert(0, {str(root)!r}); "
    subprocess.run(
        [sys.executable, "-c", start + code, *words], cwd=folder, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "case", ["import torch", "load a Unet", "fit --help", "fit --print_config", "predict an image"]
)
def test_start(case: str, tmp_path: Path, discs: Path) -> None:
    from keypoint_detection.models.backbones import Unet

    image = str(next((discs.parent / "images").iterdir()))
    checkpoint = str(make_checkpoint(tmp_path, backbone=Unet, image_size=(48, 64)))
    code, words = {
        "import torch": ("import torch", []),
        "load a Unet": (LOAD, [checkpoint]),
        "predict an image": (
            RUN,
            ["predict", f"--ckpt_path={checkpoint}", f"--data.predict={image}", "--data.num_workers=0"],
        ),
    }.get(case, (RUN, case.split()))
    roots = [ROOT, *(Path(path) for path in [os.environ.get("KPD_OTHER")] if path)]
    taken: dict[Path, list[float]] = {root: [] for root in roots}
    for _ in range(N_ROUNDS):
        for root in roots:
            taken[root].append(seconds(root, tmp_path, code, words))
    for root, values in taken.items():
        print(f"\n{case:20} {statistics.median(values):5.2f} s (least {min(values):.2f})  {root}")
