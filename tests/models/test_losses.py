import numpy as np
import pytest
import torch

from keypoint_detection.models.losses import heatmap_loss, target_entropy

LOGITS = torch.tensor([[[[0.0, 2.0], [-3.0, 1.0]], [[5.0, -5.0], [0.5, 0.0]]]])
TARGETS = torch.tensor([[[[0.0, 1.0], [0.3, 0.5]], [[1.0, 0.0], [0.9, 0.1]]]])


def reference(name: str) -> np.ndarray:
    z, y = LOGITS.double().numpy(), TARGETS.double().numpy()
    p = 1 / (1 + np.exp(-z))
    cross_entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    cells = {"bce": cross_entropy, "mse": (p - y) ** 2, "focal": (p - y) ** 2 * cross_entropy}[name]
    return cells.mean(axis=(2, 3))


@pytest.mark.parametrize("name", ["bce", "mse", "focal"])
def test_each_map_has_the_loss_of_its_definition(name):
    loss = heatmap_loss(name, LOGITS, TARGETS)
    assert loss.shape == (1, 2)
    np.testing.assert_allclose(loss.numpy(), reference(name), rtol=1e-5)


@pytest.mark.parametrize("name", ["bce", "mse", "focal"])
def test_half_precision_logits_are_computed_in_float32(name):
    loss = heatmap_loss(name, LOGITS.bfloat16(), TARGETS)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.numpy(), reference(name), rtol=2e-2)


def test_the_entropy_is_the_least_cross_entropy():
    targets = TARGETS.clamp(0.01, 0.99)
    at_target = heatmap_loss("bce", torch.logit(targets), targets)
    np.testing.assert_allclose(target_entropy(targets).numpy(), at_target.numpy(), rtol=1e-4)
    assert (heatmap_loss("bce", torch.logit(targets) + 0.3, targets) > at_target).all()


def test_certain_targets_have_no_entropy():
    assert target_entropy(torch.tensor([[[[0.0, 1.0]]]])).item() == 0
