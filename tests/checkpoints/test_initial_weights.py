import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from keypoint_detection.cli import run
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import S3K, Backbone, TimmUnet, Unet

TINY = [
    "--model.backbone=Unet",
    "--model.backbone.n_channels=4",
    "--model.backbone.n_downsampling_layers=1",
]


def fit_words(discs: Path, *words: str) -> list[str]:
    return [
        "fit",
        f"--data.train={discs}",
        "--data.num_workers=0",
        "--data.batch_size=4",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.enable_progress_bar=false",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        *TINY,
        *words,
    ]


@pytest.fixture(scope="module")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three channels."""
    root = tmp_path_factory.mktemp("trained")
    run(fit_words(discs, f"--trainer.default_root_dir={root}"))
    (path,) = root.glob("*/checkpoints/best.ckpt")
    return path


def weights(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)["state_dict"]
    assert isinstance(content, dict)
    return content


def unchanged_words(trained: Path) -> list[str]:
    """A training that leaves the weights as they are, with other hyper-parameters."""
    return [f"--model.init_from={trained}", "--model.lr=1e-30", "--model.heatmap_sigma=3", "--model.optimizer=SGD"]


def test_new_training_starts_from_the_weights_of_another(
    discs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = run(fit_words(discs, *unchanged_words(trained)))
    assert cli is not None
    assert cli.config.fit.model.heatmap_sigma == 3
    (path,) = tmp_path.glob("runs/*/checkpoints/best.ckpt")
    old, new = weights(trained), weights(path)
    parameters = [name for name, _ in cli.model.named_parameters()]
    assert len(parameters) > 4
    assert all(torch.equal(old[name], new[name]) for name in parameters)


def test_head_of_another_channel_count_starts_new_and_says_so(
    discs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "keypoint_detection"):
        run(fit_words(discs, *unchanged_words(trained), "--model.channels={side: [left, right]}"))
    assert "the head starts afresh, for channels side (the checkpoint has red, left, right)" in caplog.text
    (path,) = tmp_path.glob("runs/*/checkpoints/best.ckpt")
    old, new = weights(trained), weights(path)
    assert torch.equal(old["network.backbone.stem.weight"], new["network.backbone.stem.weight"])
    assert new["network.head.weight"].shape[0] == 1


def test_renamed_channels_keep_the_head_and_say_so(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = KeypointDetector(["a", "b", "c"], lambda: Unet(4, 1), init_from=str(trained))
    with caplog.at_level(logging.INFO, "keypoint_detection"):
        detector.initialise()
    assert "channels red, left, right continuing as a, b, c" in caplog.text
    assert torch.equal(detector.network.head.weight, weights(trained)["network.head.weight"])


@pytest.mark.parametrize(
    ("channels", "rows", "text"),
    [
        (["right", "red", "left"], {0: 2, 1: 0, 2: 1}, "head of channels right, red, left from"),
        ({"r": ["red"], "new": ["other"]}, {0: 0}, "head of channels red as r from"),
        (["left", "new", "right", "newer"], {0: 1, 2: 2}, "new, newer start afresh"),
    ],
)
def test_channels_continue_by_their_types(trained, channels, rows, text, caplog):
    detector = KeypointDetector(channels, lambda: Unet(4, 1), init_from=str(trained))
    before = {name: value.clone() for name, value in detector.network.head.state_dict().items()}
    with caplog.at_level(logging.INFO, "keypoint_detection"):
        detector.initialise()
    assert text in caplog.text
    for name, value in detector.network.head.state_dict().items():
        old = weights(trained)[f"network.head.{name}"]
        for row in range(len(value)):
            assert torch.equal(value[row], old[rows[row]] if row in rows else before[name][row])


def test_a_file_of_something_else_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {lr: 0.1}\n" * 50)
    detector = KeypointDetector(["a"], lambda: Unet(4, 1), init_from=str(tmp_path / "base.yaml"))
    with pytest.raises(ValueError, match="it is not a torch file"):
        detector.initialise()


def test_other_backbone_is_refused_naming_what_differs(
    discs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(fit_words(discs, f"--model.init_from={trained}", "--model.backbone.n_channels=8"))
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Unet(n_channels=4, n_downsampling_layers=1" in message
    assert "Unet(n_channels=8, n_downsampling_layers=1" in message
    assert "stem.weight (4, 3, 3, 3) -> (8, 3, 3, 3)" in message
    assert not (tmp_path / "runs").exists()


def test_of_a_deeper_backbone_what_fits_is_taken_and_the_rest_is_named(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = KeypointDetector(["red", "left", "right"], lambda: Unet(4, 1, 11), init_from=str(trained))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with caplog.at_level(logging.INFO, "keypoint_detection"):
        detector.initialise()
    after, old = detector.state_dict(), weights(trained)
    taken = {name for name in after if name in old}
    assert len(taken) > 20
    assert all(torch.equal(after[name], old[name]) for name in taken)
    fresh = set(after) - taken
    assert len(fresh) == 7 * 14  # blocks of two convolutions with bias and two norms
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    # stem 2, down 6, four blocks of 12, up 6, which the checkpoint has; seven blocks more here.
    assert "62 of the 146 weights of the backbone" in caplog.text
    assert "84 weights are not in the checkpoint, e.g. residual.4.conv1.weight" in caplog.text


@pytest.mark.parametrize("other", [S3K, lambda: TimmUnet("resnet10t", False, width=4)])
def test_a_backbone_of_another_kind_is_refused(trained: Path, other: Callable[[], Backbone]) -> None:
    detector = KeypointDetector(["red", "left", "right"], other, init_from=str(trained))
    with pytest.raises(ValueError, match=r"Give a model\.backbone of the same kind"):
        detector.initialise()


def test_an_encoder_is_taken_into_a_decoder_of_another_stride_and_width(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = KeypointDetector(["a"], lambda: TimmUnet("resnet10t", False, 4, 4))
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(old)
    trainer.save_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    new = KeypointDetector(["a"], lambda: TimmUnet("resnet10t", True, 2, 8), init_from=str(tmp_path / "old.ckpt"))
    with caplog.at_level(logging.INFO, "keypoint_detection"):
        new.initialise()
    assert "weights have a different shape" in caplog.text
    encoder = "network.backbone.encoder.conv1.0.weight"
    assert torch.equal(new.state_dict()[encoder], old.state_dict()[encoder])
    assert "the head starts afresh" in caplog.text


def test_missing_file_is_refused_before_training(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(fit_words(discs, "--model.init_from=nowhere.ckpt"))
    assert stopped.value.code == 2
    assert "model.init_from: 'nowhere.ckpt' is not a file" in capsys.readouterr().err


def test_the_file_is_not_needed_again(
    discs: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "start.ckpt"
    copy.write_bytes(trained.read_bytes())
    run(fit_words(discs, *unchanged_words(copy)))
    copy.unlink()
    (path,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert KeypointDetector.load_from_checkpoint(path, weights_only=True).init_from == str(copy)
    tested = run(["test", f"--ckpt_path={path}", f"--data.test={discs}", "--data.num_workers=0"])
    assert tested is not None
    resumed = run(fit_words(discs, f"--ckpt_path={path}", "--trainer.max_epochs=2"))
    assert resumed is not None
    assert resumed.trainer.current_epoch == 2


def test_training_from_python_starts_from_the_weights_too(discs: Path, trained: Path, tmp_path: Path) -> None:
    detector = KeypointDetector(["red", "left", "right"], lambda: Unet(4, 1), lr=1e-30, init_from=str(trained))
    data = KeypointsDataModule(train=str(discs), channels=detector.channels, num_workers=0, batch_size=4)
    trainer = Trainer(
        max_steps=1,
        logger=False,
        default_root_dir=tmp_path,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trainer.fit(detector, data)
    assert torch.equal(
        detector.state_dict()["network.backbone.stem.weight"], weights(trained)["network.backbone.stem.weight"]
    )
