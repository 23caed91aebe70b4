"""What the memory format, large pages and kept memory gain in a training step of the small Unet on a CPU.

Run alone: `pytest tests/benchmarks/test_training_step.py -s -n 0`. Every variant runs in its own process,
in turn, because torch reads how to allocate once.
"""

import os
import statistics
import subprocess
import sys

STEP = """
import sys, time, torch
from keypoint_detection.cli import _keep_freed_memory
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Unet
torch.set_num_threads(2)
if sys.argv[2] == "kept":
    _keep_freed_memory()
detector = KeypointDetector(["a", "b", "c", "d"], Unet)
if sys.argv[1] == "contiguous":
    detector.to(memory_format=torch.contiguous_format)
    to = torch.Tensor.contiguous
    torch.Tensor.contiguous = lambda self, memory_format=None: to(self)
images, targets = torch.randint(0, 255, (8, 3, 192, 256), dtype=torch.uint8), torch.zeros(8, 4, 192, 256)
times = []
for _ in range(4):
    start = time.perf_counter()
    torch.nn.functional.binary_cross_entropy_with_logits(detector(images), targets).backward()
    times.append(time.perf_counter() - start)
print(min(times[1:]))
"""
N_ROUNDS = 3
VARIANTS = {
    "contiguous": ("contiguous", "returned", "0"),
    "channels last": ("channels_last", "returned", "0"),
    "channels last, large pages": ("channels_last", "returned", "1"),
    "channels last, kept memory": ("channels_last", "kept", "0"),
    "channels last, large pages, kept memory": ("channels_last", "kept", "1"),
}


def seconds(memory_format: str, memory: str, large_pages: str) -> float:
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": large_pages, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", STEP, memory_format, memory]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_memory_format_large_pages_and_kept_memory():
    rounds = [{name: seconds(*variant) for name, variant in VARIANTS.items()} for _ in range(N_ROUNDS)]
    print()
    for name in VARIANTS:
        times = [one[name] for one in rounds]
        ratios = [one["contiguous"] / one[name] for one in rounds]
        print(
            f"{name}: {statistics.median(times):.2f} s a step of 8 images (min {min(times):.2f}), "
            f"{statistics.median(ratios):.2f} times as fast as contiguous"
        )
