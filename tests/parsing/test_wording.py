from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

from keypoint_detection.models.backbones import Backbone
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.parsing.wording import reword


@dataclass
class Layer:
    """What is configured as a class of its own."""

    width: PositiveInt = 1


def refusal(kind: Any, word: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    parser = Parser(prog="kpd draw")
    parser.add_argument("--value", type=kind)
    with pytest.raises(SystemExit):
        parser.parse_args([word])
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == "Run `kpd draw --help` for all options."
    return lines


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (PositiveInt, "0", "a whole number above 0; found 0"),
        (PositiveInt, "x", "a whole number above 0; found x"),
        (NonNegativeInt, "-1", "a whole number, 0 or more; found -1"),
        (PositiveFloat, "-2.5", "a number above 0; found -2.5"),
        (NonNegativeFloat, "y", "a number, 0 or more; found y"),
        (ClosedUnitInterval, "1.5", "a number from 0 to 1; found 1.5"),
        (OpenUnitInterval, "1", "a number above 0 and below 1; found 1"),
        (OpenUnitInterval | None, "1", "a number above 0 and below 1; found 1"),
        (NonNegativeInt | None, "-1", "a whole number, 0 or more; found -1"),
        (Literal["copy", "link"], "move", "one of copy, link; found move"),
        (Literal["copy", "link"] | None, "move", "one of copy, link; found move"),
        (Literal["coco17"] | list[PositiveFloat] | None, "coco", "coco17 or a list; found coco"),
        (bool, "maybe", "true or false; found maybe"),
        (int | None, "x", "a whole number; found x"),
        (dict[str, int] | None, "5", "a mapping; found 5"),
        (tuple[PositiveInt, PositiveInt] | None, "[1, 2, 3]", "a list of 2 values; found [1, 2, 3]"),
        (tuple[PositiveInt, PositiveInt] | None, "[0, 2]", "a whole number above 0; found 0"),
        (tuple[float, float], "3", "a list; found 3"),
    ],
)
def test_a_value_that_is_refused_is_told_what_is_allowed(
    kind: Any, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(kind, f"--value={value}", capsys)[0] == f"kpd draw: error: value: expected {expected}"


def test_a_parameter_of_a_class_is_named_with_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["kpd draw: error: value.width: expected a whole number above 0; found -3"]
    assert refusal(Layer, "--value.width=-3", capsys) == expected
    assert refusal(Layer | None, "--value.width=-3", capsys) == expected
    unet = "--value={class_path: keypoint_detection.models.backbones.Unet, init_args: {n_channels: 0}}"
    expected = ["kpd draw: error: value.n_channels: expected a whole number above 0; found 0"]
    assert refusal(Callable[[], Backbone], unet, capsys) == expected


def test_a_class_or_a_word_that_is_neither_is_told_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(Literal["cosine", "constant"] | Callable[[int], Path], "--value=foo", capsys) == [
        "kpd draw: error: value: expected one of cosine, constant; found foo",
        "    - there is no class called foo",
    ]


@pytest.mark.parametrize(
    "message",
    [
        "train.json: 2 problems\n  - one\n  - one\n\nRun `kpd check`.",
        "Expected a <class 'bool'>. Got value: maybe",
        'Parser key "value": Not of type Path_fr: File does not exist: x',
    ],
)
def test_what_says_more_than_a_type_stays_as_it_is(message: str) -> None:
    assert reword(message) == message
