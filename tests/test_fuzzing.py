"""A few of the cases that tests/benchmarks/fuzz.py runs: mutated files and words are refused, or harmless."""

from pathlib import Path

import pytest
from fuzzing import FORMATS, convert_mutant, make_sources, read_mutant, run_mutant, run_refusing

N_FILES = 15
N_LINES = 20
# Exit codes: done, findings of a check or a failure in words, refused.
CODES = {0, 1, 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_were_not_mutated_are_converted(sources: dict[str, Path], name: str, tmp_path: Path) -> None:
    assert run_refusing(["convert", str(sources[name]), f"--output={tmp_path / 'a.json'}", f"--from={name}"]) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_are_refused_or_converted(sources: dict[str, Path], name: str) -> None:
    codes = list(map(convert_mutant(sources, name), range(N_FILES)))
    assert set(codes) <= CODES
    assert 2 in codes


def test_mutated_files_are_refused_by_trainings_or_read(sources: dict[str, Path]) -> None:
    codes = list(map(read_mutant(sources), range(100)))
    assert set(codes) == {0, 2}


def test_mutated_command_lines_are_refused_or_run(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = list(map(run_mutant(sources), range(N_LINES)))
    assert set(codes) <= CODES
    assert 2 in codes
