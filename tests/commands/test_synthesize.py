import json

import pytest

from keypoint_detection.cli import run


def test_the_command_draws_a_coco_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["synthesize", "--folder=mine", "--n_train=3", "--n_val=1", "--height=64", "--width=80"])
    content = json.loads((tmp_path / "mine" / "train.json").read_text())
    assert len(content["images"]) == 3
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (64, 80)
    assert all((tmp_path / "mine" / image["file_name"]).is_file() for image in content["images"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--n_trian=3"], "Did you mean --n_train"),
        (["--height=3"], "64 pixels or more"),
        (["--n_train=0"], "n_train"),
        ([f"--folder={__file__}/sub"], f"cannot be written ({__file__} is a file); give another folder."),
        ([f"--folder={__file__}"], "found something that `kpd synthesize` did not draw"),
    ],
)
def test_mistakes_are_answered_with_exit_code_two(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run(["synthesize", *words])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(SystemExit):
        run(["synthesize", f"--folder={tmp_path}", "--n_train=1"])
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]
