import re
from pathlib import Path

import pytest

from keypoint_detection.callbacks import progress_lines
from keypoint_detection.cli import run

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


@pytest.mark.parametrize(("has_bf16", "words", "n_lines"), [(True, [], 1), (False, [], 0)])
def test_a_faster_precision_is_named(lines, monkeypatch, has_bf16, words, n_lines):
    monkeypatch.setattr(progress_lines, "_has_fast_bfloat16", lambda: has_bf16)
    assert sum("--trainer.precision=bf16-mixed" in line for line in lines(*words)) == n_lines


def test_a_faster_precision_that_is_chosen_is_not_named(lines, monkeypatch):
    monkeypatch.setattr(progress_lines, "_has_fast_bfloat16", lambda: True)
    assert not any("about twice as fast" in line for line in lines("--trainer.precision=bf16-mixed"))
