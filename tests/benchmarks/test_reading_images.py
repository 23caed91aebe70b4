"""Time of reading an image with its default augmentation: in one step, by torchvision's transforms, and from a cache.

Run alone: `pytest tests/benchmarks/test_reading_images.py -s -n 0`. All times are the processor's, of one
thread, in turn on the same images.
"""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.data.augmentation import default_augmentation
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.dataset import KeypointsDataset
from keypoint_detection.data.image_cache import ImageCache
from keypoint_detection.data.sampling import Draw
from keypoint_detection.images import LETTERBOX_GREY

# What the default augmentation does, one transform after the other.
STEPS = [
    v2.RandomHorizontalFlip(0.5),
    v2.RandomAffine(15, (0.1, 0.1), (0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR, fill=LETTERBOX_GREY),
    v2.ColorJitter(brightness=0.3, contrast=0.3),
    v2.RandomApply([v2.ColorJitter(saturation=0.3, hue=0.03)], p=0.2),
    v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.1, 1.5))], p=0.2),
]
N_IMAGES, N_ROUNDS = 6, 3
CHANNELS = {f"k{index}": [f"k{index}"] for index in range(10)}


def write(folder, height, width):
    """Smooth colours with noise, about as hard to decode as photographs."""
    rng = np.random.default_rng(0)
    for index in range(N_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + rng.integers(-12, 12, (height, width, 1), dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.jpg", quality=90)
    points = [width / 2, height / 2, 2] * len(CHANNELS)
    images = [{"id": index, "file_name": f"{index}.jpg"} for index in range(N_IMAGES)]
    annotations = [{"id": index, "image_id": index, "category_id": 1, "keypoints": points} for index in range(N_IMAGES)]
    categories = [{"id": 1, "name": "thing", "keypoints": list(CHANNELS)}]
    path = folder / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return read_coco(path, coordinates="continuous")


def milliseconds(dataset, epoch):
    start = time.process_time()
    for position in range(N_IMAGES):
        dataset[Draw(position, epoch)]
    return (time.process_time() - start) / N_IMAGES * 1e3


@pytest.mark.parametrize(
    ("height", "width", "image_size"), [(480, 640, (256, 256)), (480, 640, None), (3000, 4000, (256, 256))]
)
def test_reading_images(tmp_path, height, width, image_size):
    torch.set_num_threads(1)
    table = write(tmp_path, height, width)
    (tmp_path / "cache").mkdir()

    def make(transforms, cache=None):
        return KeypointsDataset(
            table,
            CHANNELS,
            image_size=image_size,
            transform=v2.Compose(transforms),
            flip_pairs=[],
            cache=cache,
            resize_mode="letterbox",
            visible_only=False,
        )

    fused, steps = make(default_augmentation(may_flip=True)), make(STEPS)
    cached = make(default_augmentation(may_flip=True), ImageCache(tmp_path / "cache", 10**9, image_size, "letterbox"))
    times = {"first epoch with a cache": [milliseconds(cached, 0)], "one step": [], "step by step": [], "cached": []}
    for epoch in range(N_ROUNDS):
        times["step by step"].append(milliseconds(steps, epoch))
        times["one step"].append(milliseconds(fused, epoch))
        times["cached"].append(milliseconds(cached, epoch))
    best = {name: min(several) for name, several in times.items()}
    print(f"\n{height}x{width} to {image_size or 'its own size'}, ms an image:")
    print(", ".join(f"{name} {value:.2f}" for name, value in best.items()))
    print(f"one step is {best['step by step'] / best['one step']:.1f} times as fast as step by step,")
    print(
        f"a later epoch {best['first epoch with a cache'] / best['cached']:.1f} times as fast as the first one cached"
    )
