import pytest

from keypoint_detection.parsing.errors import Parser


def test_a_mistake_is_answered_in_a_few_lines(capsys):
    parser = Parser(prog="kpd draw")
    parser.add_argument("--height", type=int)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--hieght=3"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "kpd draw: error: unrecognized arguments: --hieght=3",
        "Did you mean --height?",
        "Run `kpd draw --help` for all options.",
    ]


def test_abbreviations_are_refused(capsys):
    parser = Parser(prog="kpd draw")
    parser.add_argument("--height", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--heigh=3"])
    assert "unrecognized" in capsys.readouterr().err
