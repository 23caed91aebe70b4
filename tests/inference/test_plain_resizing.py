import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from keypoint_detection.inference.plain_resizing import resize_plainly


@pytest.mark.parametrize(
    ("size", "new_size"),
    [((48, 64), (48, 64)), ((120, 160), (24, 32)), ((97, 201), (31, 64)), ((30, 20), (72, 48)), ((300, 40), (33, 80))],
)
def test_images_are_resized_as_torchvision_does_to_the_last_level(size, new_size):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *size), dtype=np.uint8))
    expected = F.resize(images, list(new_size), antialias=True)
    found = resize_plainly(images, new_size)
    assert found.shape == expected.shape
    is_same = found == expected
    assert is_same.float().mean() > 0.9999
    assert (found - expected.float()).abs().max() <= 1
