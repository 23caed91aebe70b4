from typing import Literal

import pytest
from jsonargparse.typing import PositiveFloat

from keypoint_detection.parsing.functions import call_with_words


def draw(
    width: PositiveFloat, colour: Literal["red", "blue"] = "red", is_filled: bool = False, name: str | None = None
):
    """Draw a line.

    It is straight.

      draw --width=3

    Args:
        width: from side to side.
        colour: of the ink (on paper).
        is_filled: whether it is filled.
        name: what it is called.
    """


@pytest.fixture
def page(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        call_with_words(draw, "kpd draw", ["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "lines",
    [
        "Draw a line.\n\nIt is straight.\n\n  draw --width=3\n",
        "  --width WIDTH\n      from side to side. (required; a number above 0)\n",
        "  --colour {red,blue}\n      of the ink (on paper). (default: red)\n",
        "  --is_filled [{true,false}]\n      whether it is filled. (default: false)\n",
        "  --name NAME\n      what it is called.\n",
        "  -h, --help\n      show this help\n",
    ],
)
def test_an_option_is_shown_in_two_lines_and_in_words(page, lines):
    assert lines in page


def test_the_first_line_of_the_docstring_is_shown_once(page):
    assert page.count("Draw a line") == 1
