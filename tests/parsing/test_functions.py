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
    def draw(source: str, /, output: str, width: int = 3) -> None:
        """Draw something.

        Args:
            source: what is drawn.
            output: where it is written.
            width: of the line.
        """

    with pytest.raises(SystemExit):
        call_with_words(draw, "kpd draw", ["--help"])
    assert capsys.readouterr().out.splitlines()[0] == "usage: kpd draw SOURCE --output=OUTPUT [--OPTION=VALUE …]"


def join(words: list[str], /, mark: str = " ", is_loud: bool = False) -> str:
    """Join words.

    Args:
        words: what is joined.
        mark: between them.
        is_loud: in capitals.
    """
    joined = mark.join(words)
    return joined.upper() if is_loud else joined


def show(word: str | None = None, /, number: int = 1, source: str = "") -> tuple[str | None, int, str]:
    """Show what it gets.

    Args:
        word: a word.
        number: a number.
        source: where it comes from.
    """
    return word, number, source


def test_what_is_positional_is_given_without_an_option():
    assert call_with_words(join, "kpd join", ["a", "b", "--mark=-"]) == "a-b"
    assert call_with_words(show, "kpd show", ["--number=2", "a"]) == ("a", 2, "")
    assert call_with_words(show, "kpd show", []) == (None, 1, "")


def test_a_config_gives_what_is_positional_too(tmp_path):
    (tmp_path / "show.yaml").write_text("word: b\n")
    (tmp_path / "join.yaml").write_text("words: [b, c]\n")
    assert call_with_words(show, "kpd show", [f"--config={tmp_path / 'show.yaml'}"]) == ("b", 1, "")
    assert call_with_words(join, "kpd join", [f"--config={tmp_path / 'join.yaml'}"]) == "b c"


@pytest.mark.parametrize(
    ("words", "joined"), [(["--is_loud"], "A"), (["--is_loud=false"], "a"), (["--is_loud", "true"], "A"), ([], "a")]
)
def test_the_name_of_a_flag_stands_alone(words, joined):
    assert call_with_words(join, "kpd join", ["a", *words]) == joined


def test_what_is_given_is_no_option(capsys):
    assert call_with_words(show, "kpd show", [], {"source": "here"}) == (None, 1, "here")
    with pytest.raises(SystemExit):
        call_with_words(show, "kpd show", ["--source=there"], {"source": "here"})
    assert "--source=there" in capsys.readouterr().err
