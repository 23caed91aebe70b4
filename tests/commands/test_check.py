"""`kpd check` as a user runs it; what it finds is tested in tests/data/checks."""

import json
import subprocess
import sys

import pytest
from data.checks.sets import draw, write_set
from PIL import Image

from keypoint_detection.cli import run as kpd


def run(capsys, *words):
    """Run `kpd check`; its exit code and what it printed."""
    try:
        kpd(["check", *map(str, words)])
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    return code, capsys.readouterr()


@pytest.fixture
def labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_set(tmp_path / "data", {f"{index}.jpg": draw(index) for index in range(6)})


def test_a_clean_file_passes_and_is_drawn(labels, tmp_path, capsys):
    code, printed = run(capsys, labels)
    assert code == 0
    assert "6 images" in printed.out
    assert "No errors, no warnings." in printed.out
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 300


def test_a_truncated_image_is_an_error(labels, tmp_path, capsys):
    image = tmp_path / "data" / "3.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    code, printed = run(capsys, labels)
    assert code == 1
    assert "3.jpg" in printed.out
    assert "Found 1 error" in printed.out


def test_the_report_can_be_read_by_programs(labels, tmp_path, capsys):
    (tmp_path / "data" / "2.jpg").unlink()
    code, printed = run(capsys, labels, "--json", "--sheet=null")
    assert code == 1
    report = json.loads(printed.out)
    errors = [finding for finding in report["findings"] if finding["level"] == "error"]
    assert [finding["kind"] for finding in errors] == ["image_file"]
    assert "2.jpg" in errors[0]["examples"][0]


def test_a_config_of_fit_names_the_files_and_their_settings(labels, tmp_path, capsys):
    (tmp_path / "base.yaml").write_text(f"data: {{train: {labels}, val: {labels}, image_size: [64, 64]}}\n")
    code, printed = run(capsys, "--config=base.yaml", "--json", "--sheet=null")
    report = json.loads(printed.out)
    assert "split_copies" in [finding["kind"] for finding in report["findings"]]
    assert code == (1 if any(finding["level"] == "error" for finding in report["findings"]) else 0)


@pytest.mark.parametrize(("words", "message"), [([], "COCO"), (["missing.json"], "is not a file"), (["--jsn"], "jsn")])
def test_wrong_words_are_answered(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    code, printed = run(capsys, *words)
    assert code in (1, 2)
    assert message in printed.err + printed.out
    assert "Traceback" not in printed.err


def test_a_config_without_its_option_is_told_of_it(labels, tmp_path, capsys):
    (tmp_path / "base.yaml").write_text(f"data: {{train: {labels}, image_size: [64, 64]}}\n")
    code, printed = run(capsys, "base.yaml")
    assert code == 2
    assert "kpd check --config base.yaml" in printed.err
    assert printed.out == ""


def test_a_file_alone_is_checked_without_lightning(labels):
    program = (
        "import sys; from keypoint_detection.cli import run; "
        f"run(['check', {str(labels)!r}, '--sheet=null']); assert 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("option", ["--sheet=data/0.jpg/sheet.png", "--json=data", "--json=data/0.jpg/report.json"])
def test_what_cannot_be_written_is_said_before_anything_is_read(labels, capsys, option):
    code, printed = run(capsys, labels, option)
    assert code == 2
    assert "cannot be written" in printed.err
    assert printed.out == ""


def test_the_report_is_written_into_a_new_folder_beside_the_text(labels, tmp_path, capsys):
    code, printed = run(capsys, labels, "--sheet=null", "--json=new/report.json")
    assert code == 0
    assert "No errors, no warnings." in printed.out
    assert len(json.loads((tmp_path / "new/report.json").read_text())["parts"]) == 1


@pytest.mark.parametrize(("settings", "level"), [(", group_by: image", "warning"), ("", "note")])
def test_groups_of_the_config_make_a_random_split_safe(tmp_path, monkeypatch, capsys, settings, level):
    monkeypatch.chdir(tmp_path)
    frames = {f"{i}.jpg": draw(0, (120, 160), spot=(20 + i, 60)) for i in range(12)}
    (tmp_path / "base.yaml").write_text(f"data: {{train: {write_set(tmp_path, frames)}{settings}}}\n")
    _, printed = run(capsys, "--config=base.yaml", "--json", "--sheet=null")
    found = [one["level"] for one in json.loads(printed.out)["findings"] if one["kind"] == "alike"]
    assert found == [level]


def test_a_section_that_is_not_a_mapping_is_refused_with_its_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("seed_everything: 1\ndata: [1]\n")
    code, printed = run(capsys, "--config=base.yaml")
    assert code == 2
    assert "base.yaml, line 2: data is a list; expected its options" in printed.err


def test_a_file_alone_is_described_by_the_options_of_other_commands(labels, tmp_path, capsys):
    moved = labels.rename(tmp_path / "labels.json")
    words = [moved, "--sheet=null", "--json"]
    assert run(capsys, *words)[0] == 1
    code, printed = run(
        capsys, *words, "--image_root=data", "--channels={all: [nose, tail]}", "--coordinates=pixel_index"
    )
    assert code == 0
    (part,) = json.loads(printed.out)["parts"]
    assert list(part["points"]) == ["all"]


def test_an_option_of_the_check_precedes_that_of_the_config(labels, tmp_path, capsys):
    labels.rename(tmp_path / "labels.json")
    (tmp_path / "base.yaml").write_text("data: {train: labels.json, val: labels.json, image_root: nowhere}\n")
    assert run(capsys, "-c", "base.yaml", "--sheet=null")[0] == 1
    assert run(capsys, "-c", "base.yaml", "--sheet=null", "--image_root=data")[0] == 0


def test_options_of_a_training_are_accepted_with_their_values_apart(labels, capsys):
    words = ["--data.train", labels, "--trainer.max_epochs", "3", "--model.lr=0.1", "--sheet", "null"]
    assert run(capsys, *words)[0] == 0
