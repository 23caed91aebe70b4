import csv
import io
import logging
from pathlib import Path

import pytest

from keypoint_detection.cli import run
from keypoint_detection.inference.prediction_files import write_predictions
from keypoint_detection.printing import complain, make_handler, make_plain_cell, make_printable, say

# Erases the line, colours, returns to its start, rings, reverses the direction of text; half of a character.
HOSTILE = "a\x1b[2K\x1b[31m\r\x07\x9b\u202eb\u2066\udcff"
ESCAPED = r"a\x1b[2K\x1b[31m\r\x07\x9b\u202eb\u2066\udcff"


def test_what_controls_a_terminal_is_escaped() -> None:
    assert make_printable(HOSTILE) == ESCAPED


def test_letters_of_every_script_lines_and_tabs_stay() -> None:
    text = "Mäuse\tαβγ 鼠标 עכבר فأر 🐭\n"
    assert make_printable(text) == text


def test_both_streams_and_the_log_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    complain(HOSTILE)
    make_handler().handle(logging.LogRecord("a", logging.INFO, "a", 1, "%s", (HOSTILE,), None))
    assert capsys.readouterr() == (ESCAPED, f"{ESCAPED}{ESCAPED}\n")


@pytest.mark.parametrize("words", [["convert", HOSTILE, "--output=a.json"], ["check", HOSTILE]])
def test_errors_name_hostile_files_without_obeying_them(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(words)
    error = capsys.readouterr().err
    assert "[2K" in error
    assert not {"\x1b", "\r", "\x07", "\x9b", "\u202e", "\udcff"} & set(error)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@a", "\tx"])
def test_a_name_is_no_formula(name: str) -> None:
    assert make_plain_cell(name) == f"'{name}"


def test_negative_coordinates_stay_numbers(tmp_path: Path) -> None:
    point = {"channel": "=nose", "x": -1.5, "y": 2.0, "score": 0.5}
    records = [{"name": "=cmd()\udcff.png", "id": 1, "height": 9, "width": 9, "points": [point]}]
    write_predictions(lambda: records, tmp_path / "a.csv", "csv", {"=nose": ["=nose"]}, None, {})
    rows = list(csv.reader(io.StringIO((tmp_path / "a.csv").read_text(encoding="utf-8"))))
    assert rows[1][:5] == [r"'=cmd()\udcff.png", "'=nose", "-1.5", "2.0", "0.5"]
