import pytest

from keypoint_detection.parsing.functions import call_with_words


def divide(above: float, below: float = 2.0) -> float:
    """Divide a number by another.

    Args:
        above: the number.
        below: what it is divided by.

    Raises:
        ValueError: by nothing.
    """
    if not below:
        raise ValueError("below is 0; another number is expected.")
    return above / below


def test_options_and_config_files_are_parameters_and_the_result_is_given_back(tmp_path):
    (tmp_path / "numbers.yaml").write_text("above: 12.0\nbelow: 3.0\n")
    assert call_with_words(divide, "kpd divide", ["--above=5"]) == 2.5
    assert call_with_words(divide, "kpd divide", [f"--config={tmp_path / 'numbers.yaml'}", "--below=4"]) == 3.0


@pytest.mark.parametrize("words", [["--above=1", "--below=0"], ["--above=x"], ["--bellow=1"]])
def test_what_is_wrong_is_answered_in_a_few_lines(words, capsys):
    with pytest.raises(SystemExit) as caught:
        call_with_words(divide, "kpd divide", words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("kpd divide: error: ")
    assert len(error.splitlines()) <= 4


def test_the_docstring_is_the_help(capsys):
    with pytest.raises(SystemExit) as caught:
        call_with_words(divide, "kpd divide", ["--help"])
    assert caught.value.code == 0
    assert "what it is divided by." in capsys.readouterr().out


def test_the_usage_names_what_is_required(capsys):
    def draw(source: str, output: str, width: int = 3) -> None:
        """Draw something."""

    with pytest.raises(SystemExit):
        call_with_words(draw, "kpd draw", ["--help"])
    assert capsys.readouterr().out.splitlines()[0] == "usage: kpd draw SOURCE --output=OUTPUT [--OPTION=VALUE …]"
