"""Which state of a training is kept as the best, and that it is kept whatever happens."""

import errno
import functools
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from metrics.batches import make_batch

from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint
from keypoint_detection.cli import run
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.models.backbones import Unet
from keypoint_detection.training import checkpointing
from keypoint_detection.training.checkpointing import BestCheckpoint, WholeFiles, read_best_validation

GOLDEN = Path(__file__).parents[1] / "assets" / "golden" / "run" / "checkpoints" / "best.ckpt"
TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


def test_of_equally_good_states_the_latest_is_kept(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Nothing is found within a hundredth of a pixel, so that every validation ends with an mAP of 0.
    words = ["--model.ap_thresholds_px=[0.01]", "--trainer.max_epochs=3"]
    run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])
    (path,) = Path("runs").glob("*/checkpoints/best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    (state,) = [state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint")]
    assert state["best_model_score"] == 0
    assert checkpoint["epoch"] == 2


def keep(monkeypatch, offsets_px, **options):
    """Let a callback choose among validations of six images whose points are so far off, (validation, image).

    Returns which validations it saved, and the callback.
    """
    monkeypatch.setattr(checkpointing, "is_validation_scheduled", lambda trainer: True)
    model = KeypointDetector(["a"], functools.partial(Unet, n_channels=2, n_downsampling_layers=1), max_keypoints=1)
    strategy = SimpleNamespace(reduce_boolean_decision=bool)
    callback, saved = BestCheckpoint(**options), []
    for number, offsets in enumerate(offsets_px):
        metric = KeypointMetrics(["a"], [2.0, 4.0, 8.0])
        points = {(image, 0): [(5.0, 5.0)] for image in range(len(offsets))}
        found = {(image, 0): [(20.0 + offset, 10.0, 0.5)] for image, offset in enumerate(offsets)}
        metric.update(*make_batch(list(range(len(offsets))), points, found, n_channels=1))
        report = metric.compute()
        model.latest_validation = {"rows": report.measurements.rows}
        score = torch.tensor(report.overall.mean_average_precision)
        if callback.check_monitor_top_k(SimpleNamespace(lightning_module=model, strategy=strategy), score):
            saved.append(number)
            callback.best_model_score, callback.best_k_models = score, {"best.ckpt": score}
            callback.kth_best_model_path = "best.ckpt"
    return saved, callback


GOOD, HALF_GOOD, BAD = [0.1] * 6, [0.1, 0.1, 0.1, 0.1, 0.1, 3.0], [5.0] * 6


def test_a_later_state_is_kept_unless_it_is_certain_to_be_worse(monkeypatch):
    # One image of six does not make a difference, all of them do.
    saved, _ = keep(monkeypatch, [BAD, GOOD, HALF_GOOD, BAD, BAD])
    assert saved == [0, 1, 2]
    saved, callback = keep(monkeypatch, [BAD, GOOD, HALF_GOOD, BAD, BAD], certainty=0)
    assert callback.peak_score is None
    assert saved == [0, 1]


def test_small_losses_do_not_add_up(monkeypatch):
    worse = [[0.1] * (6 - n) + [5.0] * n for n in range(7)]
    saved, callback = keep(monkeypatch, worse)
    # Each is compared with the first, the best, and not with the one before.
    assert saved[:2] == [0, 1]
    assert saved[-1] < 6
    assert callback.peak_score == 1


def test_a_resumed_training_compares_with_the_best_validation_before(monkeypatch):
    _, before = keep(monkeypatch, [GOOD])
    resumed = BestCheckpoint()
    resumed.load_state_dict(before.state_dict())
    assert resumed.peak_score == before.peak_score == 1
    assert resumed.state_dict()["peak"]["rows"].keys() == before.state_dict()["peak"]["rows"].keys()


def fill_up_disk(monkeypatch, n_checkpoints):
    """Let a number of checkpoints be written; the next one is cut off by a full disk."""
    save, left = torch.save, iter(range(n_checkpoints))

    def save_or_fail(content, file):
        if next(left, None) is None:
            file.write(b"PK")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", save_or_fail)


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(discs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill_up_disk(monkeypatch, 4)  # the best and the last one of two epochs
    with pytest.raises(SystemExit) as caught:
        run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=5"])
    assert caught.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    (folder,) = Path("runs").glob("*/checkpoints")
    assert re.match(r"kpd fit: .*\.ckpt cannot be written: No space left on device\. runs/\S+\.ckpt is intact: ", error)
    assert sorted(os.listdir(folder)) == ["best.ckpt", "last.ckpt"]
    offered = re.search(r"`kpd fit --ckpt_path=(\S+)`", error)
    assert offered is not None
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert [torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()] == [1, 1]
    assert run(["fit", f"--ckpt_path={offered[1]}", "--trainer.max_epochs=3"]).trainer.current_epoch == 3


def test_a_leftover_is_removed_when_the_run_is_resumed(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}"])
    (folder,) = Path("runs").glob("*/checkpoints")
    (folder / ".last.ckpt.0123abcd.kpd-partial").write_bytes(b"PK")
    run(["fit", f"--ckpt_path={folder}/last.ckpt"])
    assert sorted(os.listdir(folder)) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ("null", WholeFiles),
        ("[lightning.pytorch.plugins.environments.LightningEnvironment]", WholeFiles),
        ("[lightning.pytorch.plugins.io.AsyncCheckpointIO]", AsyncCheckpointIO),
    ],
)
def test_files_are_written_whole_unless_the_user_writes_them(discs, tmp_path, monkeypatch, plugins, expected):
    monkeypatch.chdir(tmp_path)
    words = [f"--data.train={discs}", f"--data.val={discs}", "--trainer.fast_dev_run=1", f"--trainer.plugins={plugins}"]
    cli = run(["fit", "--config", TINY, *words])
    assert type(cli.trainer.strategy.checkpoint_io) is expected


def test_a_stored_report_that_lacks_numbers_is_refused(tmp_path):
    content = torch.load(GOLDEN, weights_only=True)
    del content["validation"]["report"]["channels"][0]["nme"]
    torch.save(content, tmp_path / "best.ckpt")
    best = BestCheckpoint()
    best.best_model_path = str(tmp_path / "best.ckpt")
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", callbacks=[best])
    with pytest.raises(CheckpointError, match=r"best\.ckpt: its validation cannot be read \(.*'nme'"):
        read_best_validation(trainer)


def test_the_best_checkpoint_is_read_once_at_the_end_of_a_training(discs, tmp_path, monkeypatch):
    read: list[Path] = []

    def note(reference):
        read.append(Path(reference).resolve())
        return read_checkpoint(reference)

    monkeypatch.setattr(checkpointing, "read_checkpoint", note)
    monkeypatch.chdir(tmp_path)
    cli = run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", "--trainer.max_epochs=1"])
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    assert {path.name for path in best.parents[1].iterdir()} >= {"metrics.json", "predictions.npz"}
    assert read == [best.resolve()]

    # Another file in its place is not taken for the one that was read.
    content = torch.load(best, weights_only=True)
    torch.save(content | {"validation": content["validation"] | {"epoch": 5}}, best)
    assert read_best_validation(cli.trainer).epoch == 5
