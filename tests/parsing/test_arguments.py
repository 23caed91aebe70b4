import pytest

from keypoint_detection.parsing.arguments import order_arguments
from keypoint_detection.parsing.errors import Parser


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        (["fit"], {}, ["fit"]),
        (["fit", "--a=1", "--config=x", "-c", "y"], {}, ["fit", "--config=x", "-c", "y", "--a=1"]),
        (["fit", "--a", "1"], {"KPD_FIT__DATA__BATCH_SIZE": "4"}, ["fit", "--data.batch_size=4", "--a", "1"]),
        (["test"], {"KPD_FIT__MODEL__LR": "1", "KPD_TEST__VERBOSE": "false"}, ["test", "--verbose=false"]),
        (["fit", "-c"], {}, ["fit", "-c"]),
    ],
)
def test_config_files_come_before_the_environment_and_flags_last(words, environment, expected):
    assert order_arguments(words, environment) == expected


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
