import json
from pathlib import Path

import pytest

from keypoint_detection.cli import run
from keypoint_detection.metrics.held_out import HELD_OUT_FILE
from keypoint_detection.metrics.pooling import find_runs, pool

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")
# The loss falls, so that the first of two epochs is the best one.
FIRST_IS_BEST = '[{"class_path":"ModelCheckpoint","init_args":{"monitor":"val/loss","mode":"max","filename":"best"}}]'


def numbers_of(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if value is not None}


def pooled_numbers(folder: Path, names: set[str]) -> dict[str, float]:
    scalars = pool(find_runs([str(folder)]).runs).as_scalars()
    return {name: scalars[name] for name in names}


def test_the_predictions_give_the_numbers_of_the_best_checkpoint(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"--data.train={discs}", "--trainer.max_epochs=2", f"--trainer.callbacks={FIRST_IS_BEST}"]
    cli = run(["fit", "--config", TINY, *words, "--data.train_fraction=0.5"])
    (folder,) = Path("runs").iterdir()
    latest = cli.model.report.as_scalars()["loss"]
    (callback,) = (one for one in cli.trainer.checkpoint_callbacks if one.monitor == "val/loss")
    assert float(callback.best_model_score) > latest
    (found,) = find_runs(["runs"]).runs
    assert len(found.held_out.image_ids()) == 2
    assert found.held_out.about["n_train_images"] == 5
    assert found.held_out.about["train_fraction"] == 0.5
    # `metrics.json` is written by the result table, which this training goes without: validating measures anew.
    run(["validate", f"--ckpt_path={callback.best_model_path}", f"--data.train={discs}", "--data.num_workers=0"])
    (validated,) = Path("runs").glob("*-validate")
    numbers = numbers_of(validated)
    assert len(numbers) > 20
    assert pooled_numbers(validated, set(numbers)) == pytest.approx(numbers)
    assert pooled_numbers(folder, set(numbers)) == pytest.approx(numbers, rel=1e-4)
    assert find_runs([str(validated)]).runs[0].held_out.about["n_train_images"] is None
    run(["test", f"--ckpt_path={callback.best_model_path}", f"--data.test={discs}", "--data.num_workers=0"])
    (tested,) = Path("runs").glob("*-test")
    assert pooled_numbers(tested, set(numbers)) == pytest.approx(numbers_of(tested))
    (found,) = find_runs([str(tested)]).runs
    assert found.held_out.about["checkpoint"] == callback.best_model_path
    assert len(found.held_out.image_ids()) == 12


def test_a_trial_run_writes_nothing(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["fit", "--config", TINY, f"--data.train={discs}", "--trainer.fast_dev_run=true"])
    assert not list(tmp_path.rglob(HELD_OUT_FILE))
