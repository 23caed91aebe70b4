"""What grouping points into objects costs: in decoding, in a training step, and in an exported detector.

pytest tests/benchmarks/test_grouping.py -s -n 0
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from keypoint_detection import __version__
from keypoint_detection.channels import complete_channels
from keypoint_detection.codec.heatmaps import HeatmapCodec
from keypoint_detection.codec.points import decode_maps
from keypoint_detection.codec.votes import VoteCodec
from keypoint_detection.inference.export import write_onnx
from keypoint_detection.inference.loading import InputSettings, LoadedDetector
from keypoint_detection.inference.onnx_engine import OnnxEngine
from keypoint_detection.models.backbones import TimmUnet
from keypoint_detection.models.losses import heatmap_loss, vote_loss
from keypoint_detection.models.network import HeatmapNetwork
from keypoint_detection.types import Maps

N_REPEATS = 7
N_CHANNELS, MAX_KEYPOINTS = 4, 20
CODEC = HeatmapCodec(2, 2.0, MAX_KEYPOINTS, 0.01, 2.0)
VOTE_CODEC = VoteCodec(2, 2.0, (1,) * N_CHANNELS)


def median_seconds(function: Callable[[], object]) -> float:
    function()
    times = []
    for _ in range(N_REPEATS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def make_maps(n_objects: int) -> Maps:
    """Make the maps of 16 images of 512x512 as a trained network gives them."""
    generator = torch.Generator().manual_seed(0)
    points = 500 * torch.rand(16, N_CHANNELS, n_objects, 2, generator=generator) + 6
    visibility = torch.full((16, N_CHANNELS, n_objects), 2)
    heatmaps = CODEC.encode(points, visibility, (512, 512))
    heatmaps = 0.9 * heatmaps + 0.002 * torch.rand(heatmaps.shape, generator=generator)
    centres = points.mean(1, keepdim=True).expand_as(points)
    return Maps(torch.logit(heatmaps), VOTE_CODEC.encode(points, centres, visibility, (256, 256)).votes)


def test_decoding_with_groups():
    torch.set_num_threads(1)
    one, many = make_maps(1), make_maps(20)
    plain = median_seconds(lambda: decode_maps(many, CODEC, None))
    grouped = median_seconds(lambda: decode_maps(many, CODEC, VOTE_CODEC))
    of_one = median_seconds(lambda: decode_maps(one, CODEC, VOTE_CODEC))
    print(f"\ndecoding 16x4x256x256: {grouped / plain:.2f} of the time without groups")
    print(f"20 objects: {grouped / of_one:.2f} of the time of one")


def test_a_training_step_with_votes():
    torch.set_num_threads(1)
    images = torch.randint(256, (8, 3, 96, 128), dtype=torch.uint8)
    points, visibility = 90 * torch.rand(8, N_CHANNELS, 1, 2), torch.full((8, N_CHANNELS, 1), 2)
    centres = points.mean(1, keepdim=True).expand_as(points)

    def make_step(group: bool) -> Callable[[], None]:
        network = HeatmapNetwork(TimmUnet(), N_CHANNELS, group).train()
        optimizer = torch.optim.AdamW(network.parameters())

        def step() -> None:
            maps = network(images)
            loss = heatmap_loss("bce", maps.logits, CODEC.encode(points, visibility, (96, 128))).mean()
            if maps.votes is not None:
                loss = loss + vote_loss(maps.votes, VOTE_CODEC.encode(points, centres, visibility, (48, 64))).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    plain, grouped = (median_seconds(make_step(group)) for group in (False, True))
    print(f"\ntraining step of 8 images of 96x128: {grouped / plain:.2f} of the time without votes")


def test_an_exported_detector_with_votes(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)

    def make_engine(group: bool) -> OnnxEngine:
        torch.manual_seed(0)
        network = HeatmapNetwork(TimmUnet(), N_CHANNELS, group).eval().requires_grad_(False)
        inputs = InputSettings(image_size=(256, 256), resize="letterbox", coordinates="continuous")
        channels, votes = complete_channels(list("abcd")), VOTE_CODEC if group else None
        detector = LoadedDetector(network, CODEC, votes, channels, inputs, None, None, None)
        path = tmp_path / f"{group}.onnx"
        write_onnx(detector, path, precision="float32", heatmaps=False, version=__version__)
        return OnnxEngine(str(path), 1)

    engines = [make_engine(group) for group in (False, True)]
    times: list[list[float]] = [[], []]
    for _ in range(3 * N_REPEATS):  # in turn, so that what slows the machine down slows both
        for engine, of_engine in zip(engines, times, strict=True):
            start = time.process_time()
            engine.detect([image], False)
            of_engine.append(time.process_time() - start)
    plain, grouped = (statistics.median(of_engine[2:]) for of_engine in times)
    print(f"\nONNX, one image of 256x256: {grouped / plain:.2f} of the time without groups")
