"""Matching and AP against a plain loop: `pytest tests/benchmarks/test_average_precision.py -s -n 0`.

5000 images with 20 detections each at three thresholds, 2 threads. Prints the ratio of the medians and the peak memory;
asserts that both find exactly the same.
"""

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from keypoint_detection.metrics.average_precision import average_precision, trace_curve
from keypoint_detection.metrics.matching import match_detections

N_IMAGES, N_DETECTIONS, THRESHOLDS_PX = 5000, 20, (2.0, 4.0, 8.0)


def make_rows(n_truths: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make detections around most of the ground truths, the rest anywhere in an image of 256 px."""
    generator = torch.Generator().manual_seed(0)
    truths = 256 * torch.rand(N_IMAGES, n_truths, 2, generator=generator, dtype=torch.float64)
    points = 256 * torch.rand(N_IMAGES, N_DETECTIONS, 2, generator=generator, dtype=torch.float64)
    noise = 3 * torch.randn(truths.shape, generator=generator, dtype=torch.float64)
    points[:, :n_truths] = truths + noise
    scores = torch.rand(N_IMAGES, N_DETECTIONS, generator=generator).mul_(100).ceil_().div_(100)  # many ties
    scores = scores.sort(dim=1, descending=True).values  # as `Detections` promises
    is_truth = torch.rand(N_IMAGES, n_truths, generator=generator) < 0.9
    return points, scores, truths, is_truth


def evaluate_tensors(
    points: torch.Tensor, scores: torch.Tensor, truths: torch.Tensor, is_truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    matched = match_detections(points, scores, truths, is_truth, torch.tensor(THRESHOLDS_PX))
    curve = trace_curve(scores.flatten(), matched.flatten(1))
    return matched, average_precision(curve, is_truth.sum())[0]


def evaluate_loop(images: list[tuple[list, list, list]]) -> tuple[list[list[list[bool]]], list[float]]:
    """The straightforward way: image by image, detection by detection, truth by truth."""
    flags, areas = [], []
    n_truths = sum(len(truths) for _, _, truths in images)
    for threshold in THRESHOLDS_PX:
        flags.append([match_loop(points, scores, truths, threshold) for points, scores, truths in images])
        pairs = [
            pair
            for (_, scores, _), row in zip(images, flags[-1], strict=True)
            for pair in zip(scores, row, strict=True)
        ]
        areas.append(integrate_loop(pairs, n_truths))
    return flags, areas


def match_loop(points: list, scores: list[float], truths: list, threshold: float) -> list[bool]:
    flags = [False] * len(scores)
    taken = [False] * len(truths)
    for d in sorted(range(len(scores)), key=lambda d: -scores[d]):
        x, y = points[d]
        nearest, nearest_distance = -1, math.inf
        for g, (truth_x, truth_y) in enumerate(truths):
            if taken[g]:
                continue
            distance = math.sqrt((truth_x - x) ** 2 + (truth_y - y) ** 2)
            if distance < nearest_distance:
                nearest, nearest_distance = g, distance
        if nearest_distance <= threshold:
            flags[d] = taken[nearest] = True
    return flags


def integrate_loop(pairs: list[tuple[float, bool]], n_truths: int) -> float:
    pairs = sorted(pairs, key=lambda pair: -pair[0])
    recalls, precisions, right = [0.0], [0.0], 0
    for i, (score, flag) in enumerate(pairs):
        right += flag
        if i + 1 == len(pairs) or pairs[i + 1][0] != score:
            recalls.append(right / n_truths)
            precisions.append(right / (i + 1))
    for i in range(len(precisions) - 1, 0, -1):
        precisions[i - 1] = max(precisions[i - 1], precisions[i])
    return sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in range(1, len(recalls)))


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@pytest.mark.parametrize("n_truths", [1, 5, 20])
def test_average_precision_against_a_plain_loop(n_truths: int) -> None:
    torch.set_num_threads(2)
    rows = make_rows(n_truths)
    points, scores, truths, is_truth = rows
    images = [(points[n].tolist(), scores[n].tolist(), truths[n][is_truth[n]].tolist()) for n in range(N_IMAGES)]
    matched, areas = evaluate_tensors(*rows)
    expected_flags, expected_areas = evaluate_loop(images)
    assert matched.tolist() == expected_flags
    assert areas.tolist() == pytest.approx(expected_areas, rel=1e-12)
    fast = median_seconds(lambda: evaluate_tensors(*rows), 25)
    slow = median_seconds(lambda: evaluate_loop(images), 3)
    sys.stdout.write(f"\n{n_truths} truths an image: {slow / fast:.0f}x (loop {slow:.2f} s, tensors {fast:.3f} s)\n")
    assert slow > 30 * fast


def test_peak_memory_over_output() -> None:
    """Measured in a process of its own, whose high-water mark can be reset."""
    program = "from test_average_precision import report_peak; report_peak()"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    sys.stdout.write(f"\n{result.stdout}")
    assert "peak" in result.stdout


def report_peak() -> None:
    rows = make_rows(20)
    evaluate_tensors(*(row[:10] for row in rows))  # what libraries allocate once
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use now; Linux only
    before = resident_peak()
    matched, areas = evaluate_tensors(*rows)
    peak, output = resident_peak() - before, matched.nbytes + areas.nbytes
    sys.stdout.write(f"20 truths an image: peak {peak / 1e6:.1f} MB, {peak / output:.0f} times the output\n")


def resident_peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this system does not report VmHWM: measure on Linux.")
