"""No mutation of a checkpoint ends in a traceback or hangs; benchmarks/fuzz.py runs more of them."""

import math

import pytest
import torch
from fuzz_checkpoints import GOLDEN, load_mutant, parse, read_and_load, resume, start_from


@pytest.mark.parametrize("load", [read_and_load, start_from])
def test_mutated_checkpoints_are_refused_or_loaded(load, tmp_path):
    codes = list(map(load_mutant(load, tmp_path / "mutant.ckpt"), range(40)))
    assert set(codes) == {0, 2}


@pytest.mark.parametrize("command", ["predict", "fit"])
def test_settings_of_mutated_checkpoints_are_refused_or_parsed(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = list(map(load_mutant(parse(command), tmp_path / "mutant.ckpt"), range(5)))
    assert set(codes) == {0, 2}


@pytest.mark.parametrize("step", [torch.zeros(2), "x", None, -1.5, math.inf])
def test_an_optimiser_that_has_not_counted_its_steps_is_refused(step, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = torch.load(GOLDEN, weights_only=True)
    for state in content["optimizer_states"][0]["state"].values():
        state["step"] = step
    assert_is_damaged(content, tmp_path, capsys)


@pytest.mark.parametrize("name", ["foreach", "fused", "amsgrad"])
def test_an_optimiser_with_settings_of_another_kind_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = torch.load(GOLDEN, weights_only=True)
    for group in content["optimizer_states"][0]["param_groups"]:
        group[name] = torch.ones(3)
    assert_is_damaged(content, tmp_path, capsys)


def assert_is_damaged(content, tmp_path, capsys):
    torch.save(content, "mutant.ckpt")
    with pytest.raises(SystemExit) as caught:
        resume(tmp_path / "mutant.ckpt")
    assert caught.value.code == 2
    assert "the training state in the checkpoint is damaged" in capsys.readouterr().err


def test_a_head_without_a_row_for_each_of_its_channels_is_not_taken(tmp_path, caplog):
    content = torch.load(GOLDEN, weights_only=True)
    content["hyper_parameters"]["channels"] = ["x", "y", "z", "top"]
    torch.save(content, tmp_path / "mutant.ckpt")
    with caplog.at_level("INFO"):
        start_from(tmp_path / "mutant.ckpt")
    assert "the head starts afresh" in caplog.text
