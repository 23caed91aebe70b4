"""Channels that a training does not learn."""

import logging
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from metrics.batches import make_batch

from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.reporting.silent_channels import SilentChannels


class Module:
    """A detector with channels a and b, of which b is always found."""

    loss = "mse"

    def __init__(self, finds_a: bool):
        points = {(0, 0): [(1.0, 1.0)], (0, 1): [(2.0, 2.0)]}
        found = {key: [(10.0, 4.0, 0.9)] for key in points if finds_a or key == (0, 1)}
        metric = KeypointMetrics(["a", "b"], [2.0])
        metric.update(*make_batch([1], points, found))
        self.report = metric.compute()


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return caplog


def validate(callback, n, *, finds_a, top_logit, n_steps=1000):
    """Validate a number of times; the heatmaps of a have a peak of this logit, those of b a clear one."""
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, global_step=n_steps)
    logits = torch.full((1, 2, 4, 4), -4.0)
    logits[0, 0, 1, 1] = top_logit
    logits[0, 1, 2, 2] = 4.0
    module = Module(finds_a)
    for _ in range(n):
        callback.on_validation_batch_end(trainer, module, SimpleNamespace(logits=logits), None, 0)
        callback.on_validation_end(trainer, module)


def test_a_channel_without_detections_is_named_once(warnings):
    callback = SilentChannels()
    validate(callback, 9, finds_a=False, top_logit=1.0)
    assert warnings.messages == []
    validate(callback, 30, finds_a=False, top_logit=1.0)
    assert len(warnings.messages) == 1
    assert "After 1000 steps, the last 10 validations found nothing in the channel a" in warnings.messages[0]
    assert "--model.loss=bce" in warnings.messages[0]


def test_flat_heatmaps_are_empty_even_with_detections(warnings):
    validate(SilentChannels(), 10, finds_a=True, top_logit=-3.9)
    assert len(warnings.messages) == 1


def test_a_training_that_has_just_begun_or_finds_something_now_and_then_is_left_alone(warnings):
    validate(SilentChannels(), 50, finds_a=False, top_logit=1.0, n_steps=299)
    callback = SilentChannels()
    for _ in range(5):
        validate(callback, 9, finds_a=False, top_logit=1.0)
        validate(callback, 1, finds_a=True, top_logit=1.0)
    assert warnings.messages == []


def train(n_batches, bias, tmp_path):
    """Train, without validations, a module of channels a and b; the heatmap of a is flat and b has a clear peak."""

    class Peaks(LightningModule):
        channels, loss = ("a", "b"), "mse"

        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            logits = torch.full((len(images), 2, 4, 4), -4.0)
            logits[:, 0, 1, 1] += bias
            logits[:, 1, 2, 2] = 4.0
            return logits + self.bias

        def training_step(self, batch, batch_idx):
            return self(batch.images).mean() * 0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    batch = make_batch([1], {(0, 0): [(1.0, 1.0)]}, {})[1]
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=n_batches,
        default_root_dir=tmp_path,
        callbacks=[SilentChannels()],
    )
    trainer.fit(Peaks(), torch.utils.data.DataLoader([batch] * 100, batch_size=None))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("n_batches", "bias", "n_warnings"),
    [(299, 0.0, 0), (700, 0.0, 1), (300, 2.0, 0)],
)
def test_without_validations_the_training_images_are_looked_at(warnings, tmp_path, n_batches, bias, n_warnings):
    train(n_batches, bias, tmp_path)
    found = [text for text in warnings.messages if "After" in text]
    assert len(found) == n_warnings
    for text in found:
        assert "After 300 steps, training images show nothing in the channel a: the heatmaps are empty" in text
