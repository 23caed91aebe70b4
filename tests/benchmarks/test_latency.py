"""How long one image of 256x256 takes from pixels to points, against the network and extraction that kpd replaces.

Run alone: `pytest tests/benchmarks/test_latency.py -s -n 0`. The detectors take turns in one process, so that
what slows the machine down slows all of them. Weights are random: they do not change the time.
"""

import statistics
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from keypoint_detection import __version__
from keypoint_detection.channels import complete_channels
from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.inference.export import write_onnx
from keypoint_detection.inference.loading import InputSettings, LoadedDetector
from keypoint_detection.inference.onnx_engine import OnnxEngine
from keypoint_detection.inference.torch_engine import TorchEngine
from keypoint_detection.models.backbones import Unet
from keypoint_detection.models.network import HEAD_BIAS, HeatmapNetwork

CHANNELS = ["a", "b", "c", "d"]
SIZE = (256, 256)
N_ROUNDS = 15
N_WARM_UP = 2  # compiles and allocates
GOAL = 3.0


class Block(nn.Module):
    """Two convolutions around which the input passes."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding="same") for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Predecessor(nn.Module):
    """The U-Net that kpd replaces: 32 channels, two down-samplings, three residual blocks, in the default layout."""

    def __init__(self, width=32, n_scales=2, n_blocks=3):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding="same")
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding="same") for _ in range(n_scales))
        self.down_norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(n_scales))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(n_blocks)))
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 3, padding="same") for _ in range(n_scales))
        self.up_norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(n_scales))
        self.head = nn.Conv2d(width, len(CHANNELS), 3, padding="same")
        nn.init.constant_(self.head.bias, HEAD_BIAS)  # few peaks, as in the heatmaps of a trained network

    def forward(self, images):
        x, skips = self.stem(images), []
        for conv, norm in zip(self.down, self.down_norms, strict=True):
            skips.append(x)
            x = norm(F.relu(F.max_pool2d(conv(x), 2)))
        x = self.blocks(x)
        for conv, norm, skip in zip(self.up, self.up_norms, reversed(skips), strict=True):
            x = norm(F.relu(conv(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))))
        return torch.sigmoid(self.head(x))

    @torch.no_grad()
    def detect(self, pixels):
        """Find the points as it did: maxima of 3x3 cells above a threshold, as lists."""
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        heatmaps = self(images)
        maxima = F.max_pool2d(heatmaps, 3, stride=1, padding=1)
        peaks = (heatmaps == maxima) & (heatmaps > 0.5)
        found = []
        for channel in range(len(CHANNELS)):
            cells = peaks[0, channel].nonzero()
            scores = heatmaps[0, channel][peaks[0, channel]]
            found.append(sorted(zip(cells.tolist(), scores.tolist(), strict=True), key=lambda one: -one[1])[:20])
        return found


def make_detector(seed=0):
    torch.manual_seed(seed)
    codec = HeatmapCodec(stride=1, sigma_px=2.0, max_keypoints=20, score_threshold=0.01, min_distance_px=2.0)
    network = HeatmapNetwork(Unet(), len(CHANNELS)).eval().requires_grad_(False)
    inputs = InputSettings(image_size=SIZE, resize="letterbox", coordinates="continuous")
    return LoadedDetector(network, codec, None, complete_channels(CHANNELS), inputs, None, None, None)


def has_bfloat16():
    """Whether the processor computes in bfloat16, rather than imitate it."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def make_variants(folder, n_threads):
    write_onnx(make_detector(), folder / "a.onnx", precision="float32", heatmaps=False, version=__version__)
    engines = {
        "PyTorch": TorchEngine(make_detector(), "cpu", "float32", compile=False),
        "compiled": TorchEngine(make_detector(), "cpu", "float32", compile=True),
        "onnxruntime": OnnxEngine(str(folder / "a.onnx"), n_threads),
    }
    if has_bfloat16():
        engines["bfloat16"] = TorchEngine(make_detector(), "cpu", "bfloat16", compile=False)
        engines["bfloat16, compiled"] = TorchEngine(make_detector(), "cpu", "bfloat16", compile=True)
    predecessor = Predecessor().eval()
    return {
        "predecessor": predecessor.detect,
        **{name: (lambda image, engine=engine: engine.detect([image], False)) for name, engine in engines.items()},
    }


def measure(variants, image, clock):
    """Let all detectors take turns; milliseconds of each round."""
    times = {name: [] for name in variants}
    for round_number in range(N_ROUNDS + N_WARM_UP):
        for name, detect in variants.items():
            start = clock()
            detect(image)
            if round_number >= N_WARM_UP:
                times[name].append(1000 * (clock() - start))
    return times


@pytest.mark.parametrize(
    ("n_threads", "clock"),
    # The processor's time of one thread is what other programs on the machine change least.
    [(2, time.perf_counter), (1, time.process_time)],
    ids=["two threads, by the clock", "one thread, processor time"],
)
def test_time_of_one_image(tmp_path, n_threads, clock):
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        times = measure(make_variants(tmp_path, n_threads), image, clock)
    finally:
        torch.set_num_threads(before)
    reference = times["predecessor"]
    print()
    for name, values in times.items():
        median, least = statistics.median(reference) / statistics.median(values), min(reference) / min(values)
        print(
            f"{name}: median {statistics.median(values):.1f} ms, minimum {min(values):.1f} ms; "
            f"{median:.2f} and {least:.2f} times as fast as the predecessor"
        )
    best = max(min(reference) / min(values) for values in times.values())
    print(f"The goal is {GOAL:g} times; the best has {best:.2f} by its minimum.")
