"""Heatmaps against the straightforward ways: `pytest tests/benchmarks/test_heatmaps.py -s -n 0` prints the ratios.

Each pair runs in turns in one process with two threads, so that what else the machine does falls on both alike. The
tests assert that results agree, never how long they took.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from skimage.feature import peak_local_max
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from keypoint_detection.codec.heatmaps import decode, encode
from keypoint_detection.types import Detections

SIZE = (256, 256)
SIGMA_PX = 2.0
THRESHOLD = 0.1


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 7) -> None:
    """Print medians and minima of two functions that take turns, and the ratios of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for function, spent in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            spent.append(1000 * (time.perf_counter() - start))
    (our_median, our_best), (median, best) = ((statistics.median(t[1:]), min(t[1:])) for t in times)
    print(
        f"\n{name}: median {our_median:.2f} ms against {median:.1f} ms, {median / our_median:.0f}x; "
        f"best {our_best:.2f} ms against {best:.1f} ms, {best / our_best:.0f}x"
    )


def peak_bytes(function: Callable[[], object]) -> int:
    """Measure the most bytes of tensors that are held at one time while a function runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    held = highest = 0
    for event in sorted(
        (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def draw_in_full(points: Tensor) -> Tensor:
    """Draw each point over its whole map with a 2-D exponential, map by map."""
    x, y = torch.arange(SIZE[1]) + 0.5, (torch.arange(SIZE[0]) + 0.5)[:, None]
    heatmaps = torch.zeros(*points.shape[:2], *SIZE)
    for b in range(points.shape[0]):
        for c in range(points.shape[1]):
            for px, py in points[b, c].tolist():
                gaussian = torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * SIGMA_PX**2))
                torch.maximum(heatmaps[b, c], gaussian, out=heatmaps[b, c])
    return heatmaps


@pytest.mark.parametrize("shape", [(16, 4, 1), (16, 1, 20)], ids=str)
def test_encode_against_a_full_exponential_per_map(shape: tuple[int, int, int]) -> None:
    points = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(0)) * 256
    visibility = torch.full(shape, 2)

    def ours() -> Tensor:
        return encode(points, visibility, SIZE, 1, SIGMA_PX)

    torch.testing.assert_close(ours(), draw_in_full(points), rtol=0, atol=1e-6)
    print(f"\nencode {shape}: peak over output bytes {peak_bytes(ours) / (4 * ours().numel()):.2f}")
    compare(f"encode {shape}", ours, lambda: draw_in_full(points), rounds=5)


def sparse() -> Tensor:
    """Draw 0 to 20 points a map, with a little noise under them as networks give it."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(16, 4, 20, 2, generator=generator) * 256
    visibility = (torch.arange(20) < torch.randint(0, 21, (16, 4, 1), generator=generator)).long()
    heatmaps = encode(points, visibility, SIZE, 1, SIGMA_PX)
    return heatmaps * 0.9 + 0.001 * torch.rand(heatmaps.shape, generator=generator)


def noise() -> Tensor:
    return torch.rand(16, 4, *SIZE, generator=torch.Generator().manual_seed(2))


def find_by_scikit_image(heatmaps: np.ndarray, min_distance: int) -> list[np.ndarray]:
    return [
        peak_local_max(heatmap, min_distance=min_distance, threshold_abs=THRESHOLD, num_peaks=20, exclude_border=False)
        for heatmap in heatmaps.reshape(-1, *SIZE)
    ]


@pytest.mark.parametrize("make", [sparse, noise])
@pytest.mark.parametrize("min_distance", [1, 3])
def test_decode_against_scikit_image_per_map(make: Callable[[], Tensor], min_distance: int) -> None:
    heatmaps = make()
    as_array = heatmaps.numpy()

    def ours() -> Detections:
        return decode(heatmaps, 1, max_keypoints=20, score_threshold=THRESHOLD, min_distance_px=min_distance)

    points, scores = ours()[:2]
    if min_distance == 1:
        # Their distance counts cells along an axis, ours is Euclidean between sub-pixel centres: at 1, both mean peaks.
        theirs = find_by_scikit_image(as_array, min_distance)
        for n, cells in enumerate(theirs):
            kept = scores.view(-1, 20)[n] > 0
            assert kept.sum() == len(cells)
            centres = torch.from_numpy(cells[:, ::-1].copy()) + 0.5
            if len(cells):
                assert torch.cdist(points.view(-1, 20, 2)[n][kept], centres.float(), p=torch.inf).amin(0).max() <= 0.501
    name = f"decode {make.__name__}, min_distance {min_distance}"
    print(f"\n{name}: peak over input bytes {peak_bytes(ours) / heatmaps.nbytes:.2f}")
    compare(name, ours, lambda: find_by_scikit_image(as_array, min_distance))
