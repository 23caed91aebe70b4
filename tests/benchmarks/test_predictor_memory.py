"""How much memory 10 000 calls of a detector keep: `pytest tests/benchmarks/test_predictor_memory.py -s -n 0`.

The images vary in size and in number of points, so that every cache that could grow with them would.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from spot_detector import blob_image, make_checkpoint

from keypoint_detection import Predictor
from keypoint_detection.cli import run

N_CALLS, N_WARM = 10_000, 1_000
MAX_GROWTH_MB = 20


def resident_mb() -> float:
    """Memory of this process that is in use now, in MB; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@pytest.mark.parametrize("engine", ["checkpoint", "onnx"])
def test_memory_of_many_calls(tmp_path, engine):
    checkpoint = make_checkpoint(tmp_path)
    detector = Predictor.from_checkpoint(checkpoint, device="cpu")
    if engine == "onnx":
        run(["export", f"--ckpt_path={checkpoint}", f"--output={tmp_path / 'spot.onnx'}"])
        detector = Predictor.from_onnx(tmp_path / "spot.onnx", n_threads=1)
    rng = np.random.default_rng(0)
    sizes = [(60 + 4 * int(more), 80 + 4 * int(rng.integers(20))) for more in rng.integers(20, size=50)]
    images = [blob_image(*rng.uniform(10, 50, 2), size=size) for size in sizes]
    measured = []
    for number in range(N_CALLS + 1):
        detector(images[number % len(images)])
        if number % N_WARM == 0:
            measured.append(resident_mb())
    growth = measured[-1] - measured[1]
    print(f"\n{engine}: {measured[1]:.0f} MB after {N_WARM} calls, {measured[-1]:.0f} MB after {N_CALLS}")
    assert growth < MAX_GROWTH_MB
