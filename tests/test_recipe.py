"""What a training does with a pretrained encoder, and with averaged weights."""

import json
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch.callbacks import Callback

from keypoint_detection import Predictor
from keypoint_detection.cli import run

ENCODER = "network.backbone.encoder."
TINY = [
    "--model.backbone=TimmUnet",
    "--model.backbone.encoder=resnet10t",
    "--model.backbone.width=4",
    "--data.image_size=[32, 32]",
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), path)
    return path


class Watch(Callback):
    """Keep the encoder's state after every step."""

    states: list[dict[str, torch.Tensor]]

    def on_train_start(self, trainer, pl_module):
        Watch.states = [self.copy(pl_module)]

    def on_train_batch_end(self, trainer, pl_module, *args):
        Watch.states.append(self.copy(pl_module))

    @staticmethod
    def copy(module):
        return {name: value.clone() for name, value in module.network.backbone.encoder.state_dict().items()}


def changed(one, other):
    return {name for name in one if not one[name].equal(other[name])}


def test_a_frozen_encoder_stays_as_it_is_and_then_learns(discs, weights):
    run(
        [
            "fit",
            f"--data.train={discs}",
            *TINY,
            f"--model.backbone.pretrained={weights}",
            "--model.freeze_encoder_steps=2",
            f"--trainer.callbacks+={__name__}.Watch",
        ]
    )
    states = Watch.states
    assert len(states) == 5
    assert changed(states[0], states[2]) == set()
    after = changed(states[2], states[3])
    assert {"layer1.0.conv1.weight", "layer1.0.bn1.running_mean"} <= after


def test_an_encoder_from_a_checkpoint_is_frozen_whatever_its_first_weights_were(discs, weights):
    run(["fit", f"--data.train={discs}", *TINY, f"--model.backbone.pretrained={weights}"])
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    words = [f"--model.init_from={best}", "--model.backbone.pretrained=false", "--model.freeze_encoder_steps=4"]
    run(["fit", f"--data.train={discs}", *TINY, *words, f"--trainer.callbacks+={__name__}.Watch"])
    trained = torch.load(best, weights_only=True)["state_dict"]
    states = Watch.states
    assert len(states) == 5
    assert all(value.equal(trained[ENCODER + name]) for name, value in states[0].items())
    assert changed(states[0], states[-1]) == set()


def test_a_trained_encoder_is_predicted_with_when_its_weights_are_gone(discs, weights):
    run(["fit", f"--data.train={discs}", *TINY, f"--model.backbone.pretrained={weights}"])
    weights.unlink()
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    Predictor.from_checkpoint(best)
    run(["test", f"--ckpt_path={best}", f"--data.test={discs}", "--data.num_workers=0", "--trainer.accelerator=cpu"])


def test_missing_weights_are_said_before_training(discs, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["fit", f"--data.train={discs}", *TINY, "--model.backbone.pretrained=nowhere.pth"])
    assert stop.value.code == 2
    assert "'nowhere.pth' is not a file" in capsys.readouterr().err
    assert not list(Path().glob("runs/*"))


def test_averaged_weights_are_validated_and_kept(discs):
    run(
        [
            "fit",
            f"--data.train={discs}",
            *TINY,
            "--model.backbone.pretrained=false",
            "--trainer.callbacks+=EMAWeightAveraging",
            "--trainer.callbacks.decay=0.5",
        ]
    )
    (last,) = Path().glob("runs/*/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    name = "network.head.weight"
    assert not checkpoint["state_dict"][name].equal(checkpoint["current_model_state"][name])
    run(
        [
            "validate",
            f"--ckpt_path={last}",
            f"--data.train={discs}",
            "--data.num_workers=0",
            "--trainer.accelerator=cpu",
        ]
    )

    (metrics,) = Path().glob("runs/*-validate/metrics.json")
    validated = json.loads(metrics.read_text())
    stored = checkpoint["validation"]["report"]["overall"]["loss"]
    assert validated["metrics"]["loss"] == pytest.approx(stored, rel=1e-5)
