import re
from pathlib import Path

import pytest
import torch

from keypoint_detection.cli import run
from keypoint_detection.reporting import progress_lines
from keypoint_detection.training import budget

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


@pytest.fixture
def lines(discs, tmp_path, monkeypatch, caplog):
    def fit(*words):
        monkeypatch.chdir(tmp_path)
        with caplog.at_level("INFO", logger="keypoint_detection"):
            run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])
        return [record.getMessage() for record in caplog.records]

    return fit


def test_every_validation_writes_a_line_where_there_is_no_progress_bar(lines):
    found = [line for line in lines("--trainer.max_epochs=3") if line.startswith("epoch")]
    assert len(found) == 3
    for number, line in enumerate(found, 1):
        pattern = (
            rf"epoch {number}, step {3 * number}, loss [\d.]+ \(val [\d.]+\), mAP 0\.\d+, "
            r"median error [\d.]+ px( \(\d+% found\))?, "
        )
        assert re.match(pattern, line), line
        assert re.search(r"\d s left$", line)
    assert "best so far" in found[0]
    latest = [float(re.search(r", mAP ([\d.]+)", line)[1]) for line in found]
    for number, line in enumerate(found):
        is_best = latest[number] > max([-1.0, *latest[:number]])
        assert ("best so far" in line) == is_best


def test_the_metric_that_chooses_the_best_checkpoint_is_in_the_line(lines):
    chosen_by = "--trainer.callbacks=[{class_path: BestCheckpoint, init_args: {monitor: val/mAP_smoothed}}]"
    found = [line for line in lines("--trainer.max_epochs=3", chosen_by) if line.startswith("epoch")]
    # The highest mAP averaged over validations: 0.4 of the latest and 0.6 of those before.
    latest, averaged = (
        [float(re.search(rf", {name} ([\d.]+)", line)[1]) for line in found] for name in ("mAP", "averaged mAP")
    )
    assert len(averaged) == 3
    expected = latest[0]
    for number, line in enumerate(found):
        expected += 0.4 * (latest[number] - expected)
        assert averaged[number] == pytest.approx(expected, abs=0.002)
        is_best = averaged[number] > max([-1.0, *averaged[:number]])
        assert ("best so far" in line) == is_best


def test_a_short_training_does_not_validate_after_every_step(lines):
    found = [line for line in lines("--trainer.max_epochs=null", "--trainer.max_steps=12") if line.startswith("epoch")]
    assert [re.search(r"step (\d+)", line)[1] for line in found] == ["10", "12"]


@pytest.mark.parametrize(("has_bf16", "words", "n_lines"), [(True, [], 1), (False, [], 0)])
def test_a_faster_precision_is_named(lines, monkeypatch, has_bf16, words, n_lines):
    monkeypatch.setattr(progress_lines, "_has_fast_bfloat16", lambda: has_bf16)
    assert sum("--trainer.precision=bf16-mixed" in line for line in lines(*words)) == n_lines


def test_a_faster_precision_that_is_chosen_is_not_named(lines, monkeypatch):
    monkeypatch.setattr(progress_lines, "_has_fast_bfloat16", lambda: True)
    assert not any("about twice as fast" in line for line in lines("--trainer.precision=bf16-mixed"))


EARLY = [
    *("--trainer.max_epochs=5", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mAP"),
    *("--trainer.callbacks.mode=max", "--trainer.callbacks.min_delta=2", "--trainer.callbacks.patience=1"),
]


def test_a_training_that_is_stopped_early_says_so_and_why(lines):
    (line,) = [line for line in lines(*EARLY) if "ended training" in line]
    assert line.startswith("EarlyStopping ended training at step 6 of 15. ")
    assert "val/mAP did not improve in the last 1 records" in line
    assert "Signaling" not in line


def test_a_training_that_comes_to_its_end_says_nothing_of_stopping(lines):
    assert not any("ended training" in line for line in lines("--trainer.max_epochs=2"))


def test_a_time_limit_counts_for_the_time_left_and_for_the_schedule(lines):
    said = lines("--trainer.max_epochs=-1", "--trainer.max_steps=100000", "--trainer.max_time=00:00:00:03")
    left = [int(match[1]) for line in said if (match := re.search(r"(\d+) s left$", line))]
    assert left
    assert max(left) <= 3
    assert not any("min" in line.rpartition(",")[2] for line in said if line.endswith("left"))
    assert any(re.match(r"The time limit ended training at step \d+ of 100000\.", line) for line in said)


def test_a_training_without_an_end_is_warned_of(lines):
    # Only a callback ends it.
    said = lines("--trainer.max_epochs=-1", *EARLY[1:])
    assert sum("the learning rate stays at its maximum" in line for line in said) == 1


@pytest.mark.parametrize("steps", [[], ["--trainer.max_steps=100000"]])
def test_the_learning_rate_falls_to_its_minimum_within_a_time_limit(lines, steps, tmp_path):
    said = lines("--trainer.max_epochs=-1", *steps, "--trainer.max_time=00:00:00:03")
    assert not any("learning rate" in line for line in said)
    (path,) = tmp_path.rglob("last.ckpt")
    (group, *_) = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] / 100 <= group["lr"] < group["initial_lr"] / 50


def test_a_training_by_the_clock_validates_by_the_clock(lines, monkeypatch):
    monkeypatch.setattr(budget, "MIN_SECONDS_BETWEEN", 1)
    said = lines("--trainer.max_epochs=null", "--trainer.max_time=00:00:00:03")
    # Epochs take a fraction of a second; validations are at least a second apart, and one is at the end.
    assert 2 <= sum(line.startswith("epoch") for line in said) <= 5
