"""Images that cannot be read while a training runs."""

import json
from pathlib import Path

import pytest
from conftest import write_discs

from keypoint_detection.cli import run
from keypoint_detection.data.datamodule import KeypointsDataModule

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_images_that_become_unreadable_are_skipped_and_counted(tmp_path, monkeypatch, capsys, caplog):
    train, val = write_discs(tmp_path / "train", 8, seed=1), write_discs(tmp_path / "val", 9, seed=2)
    setup = KeypointsDataModule.setup

    def lose_images(data, stage):
        setup(data, stage)
        for name in ("train/images/1-3", "train/images/1-4", "val/images/2-0", "val/images/2-8"):
            Path(tmp_path, f"{name}.png").write_bytes(b"")

    monkeypatch.setattr(KeypointsDataModule, "setup", lose_images)
    words = ["fit", "--config", TINY, f"--data.train={train}", f"--data.val={val}", "--trainer.max_epochs=2"]
    run([*words, "--data.on_bad_image=skip"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 images could not be read: these numbers leave them out" in shown
    assert "2 training images could not be read: others took their place" in shown
    (path,) = Path("runs").glob("*/metrics.json")
    content = json.loads(path.read_text())
    assert (content["n_images"], content["n_unreadable"], content["n_replaced_training_images"]) == (7, 2, 2)
    assert sum("1-3.png" in message for message in caplog.messages) == 1


def test_an_image_that_becomes_unreadable_ends_a_training_with_its_name(tmp_path, monkeypatch, capsys):
    train = write_discs(tmp_path / "train", 8, seed=1)
    setup = KeypointsDataModule.setup

    def lose_image(data, stage):
        setup(data, stage)
        (tmp_path / "train" / "images" / "1-3.png").unlink(missing_ok=True)

    monkeypatch.setattr(KeypointsDataModule, "setup", lose_image)
    with pytest.raises(SystemExit) as caught:
        run(["fit", "--config", TINY, f"--data.train={train}", "--data.num_workers=1"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "1-3.png: no such file. --data.on_bad_image=skip goes on without it." in error
    assert "Traceback" not in error
