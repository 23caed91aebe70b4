from collections.abc import Callable
from fractions import Fraction
from typing import Literal

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


class Data:
    def __init__(self, size: int = 3) -> None:
        """Take a size."""


@pytest.mark.parametrize("text", ["data:", "data:\nnumber: 2", "data: null"])
def test_an_empty_section_of_a_config_sets_nothing(text, tmp_path):
    parser = Parser(prog="kpd draw")
    parser.add_argument("--config", action="config")
    parser.add_argument("--number", type=int, default=2)
    parser.add_class_arguments(Data, "data")
    (tmp_path / "c.yaml").write_text(text)
    options = parser.parse_args([f"--config={tmp_path / 'c.yaml'}"])
    assert (options.data.size, options.number) == (3, 2)


def make_layer(factory: Callable[[], Fraction]) -> None:
    """Take what makes something."""


def test_a_module_that_is_not_there_is_named_in_one_line(capsys):
    parser = Parser(prog="kpd draw")
    parser.add_function_arguments(make_layer)
    with pytest.raises(SystemExit):
        parser.parse_args(["--factory=nowhere.Nothing"])
    errors = capsys.readouterr().err
    assert "No module named 'nowhere'" in errors
    assert "Callable" not in errors
    assert "Expected a path" not in errors


Choice = Literal["deeplabcut", "sleap", "label_studio"]


def choose(to: Choice | None = None, names: list[str] | None = None) -> None:
    """Choose something."""


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--to=dlc", "Did you mean deeplabcut?"),
        ("--to=label-studio", "Did you mean label_studio?"),
        ("--to=sleep", "Did you mean sleap?"),
        ("--names=[1, 2]", "need quotes: ['1', '2']"),
        ("--names=[a, yes]", "need quotes"),
    ],
)
def test_a_near_miss_is_answered_with_what_was_meant(capsys, word, hint):
    parser = Parser(prog="kpd draw")
    parser.add_function_arguments(choose)
    with pytest.raises(SystemExit):
        parser.parse_args([word])
    assert hint in capsys.readouterr().err


def test_a_mistyped_config_is_answered_with_the_nearest_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").touch()
    parser = Parser(prog="kpd draw")
    parser.add_argument("--config", action="config")
    for name, hint in (
        ("bse.yaml", "Did you mean base.yaml?"),
        ("no/base.yaml", f"There is no folder {tmp_path}/no."),
        (".", f"{tmp_path} is a folder. Did you mean {tmp_path}/base.yaml?"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--config={name}"])
        assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "word", "hint"),
    [
        ("kpd fit", "labels/train.json", "Did you mean --data.train=labels/train.json?"),
        ("kpd fit", "base.yaml", "Did you mean --config=base.yaml?"),
        ("kpd fit", "last.ckpt", "Did you mean --ckpt_path=last.ckpt?"),
        ("kpd test", "test.json", "Did you mean --data.test=test.json?"),
        ("kpd fit", "word", "Options are written --name=value"),
        ("kpd check", "val.json", "--data.train=FILE --data.val=val.json"),
        ("kpd fit", "--resume", "--ckpt_path=runs/…/checkpoints/last.ckpt"),
    ],
)
def test_a_word_without_its_option_is_answered_with_the_option(capsys, command, word, hint):
    parser = Parser(prog=command)
    for option in ("--data.train", "--data.test", "--config", "--ckpt_path"):
        parser.add_argument(option)
    with pytest.raises(SystemExit):
        parser.parse_args([word])
    assert hint in capsys.readouterr().err
