"""No mutation of a checkpoint ends in a traceback or hangs; benchmarks/fuzz.py runs more of them."""

import pytest
from fuzz_checkpoints import load_mutant, parse, read_and_load


def test_mutated_checkpoints_are_refused_or_loaded(tmp_path):
    codes = list(map(load_mutant(read_and_load, tmp_path / "mutant.ckpt"), range(40)))
    assert set(codes) == {0, 2}


@pytest.mark.parametrize("command", ["predict", "fit"])
def test_settings_of_mutated_checkpoints_are_refused_or_parsed(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = list(map(load_mutant(parse(command), tmp_path / "mutant.ckpt"), range(5)))
    assert set(codes) == {0, 2}
