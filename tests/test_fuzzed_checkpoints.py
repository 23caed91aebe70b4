"""No mutation of a checkpoint ends in a traceback or hangs; fuzz_checkpoints.py runs more of them by hand."""

from fuzz_checkpoints import find_failures, parse, read_and_load


def test_mutated_checkpoints_are_refused_or_loaded():
    assert list(find_failures(40, 3, {"Predictor": read_and_load})) == []


def test_settings_of_mutated_checkpoints_are_refused_or_parsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(find_failures(5, 4, {"predict": parse("predict"), "fit": parse("fit")})) == []
