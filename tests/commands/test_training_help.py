"""The help of the commands that train and measure."""

import re

import pytest
import yaml

from keypoint_detection.cli import run


def page(capsys, monkeypatch, *words) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    assert caught.value.code == 0
    return capsys.readouterr().out


def options(text: str) -> list[str]:
    return re.findall(r"^  (?:-\w [A-Z]*,? ?)?(--[\w.]+)", text, flags=re.MULTILINE)


@pytest.mark.usefixtures("_only_the_packages_backbones")
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_packages_own_options_fit_a_few_screens(capsys, monkeypatch, flag):
    text = page(capsys, monkeypatch, "fit", flag)
    assert len(text.splitlines()) < 250
    assert "KPD_FIT__DATA__BATCH_SIZE=8" in text
    names = options(text)
    assert {"--ckpt_path", "--data.train", "--data.image_size", "--model.lr", "--model.backbone"} <= set(names)
    assert not [name for name in names if name.startswith("--trainer.")]
    assert names.index("--ckpt_path") < names.index("--data.train") < names.index("--model.lr")
    assert "kpd fit --trainer.help" in text
    assert "DilatedCnn, S3K, TimmUnet, Unet, VitUpsampler" in " ".join(text.split())


@pytest.mark.parametrize(("command", "first"), [("predict", "--output.folder"), ("test", "--data.train")])
def test_a_commands_own_options_come_first(capsys, monkeypatch, command, first):
    names = options(page(capsys, monkeypatch, command, "--help"))
    assert next(name for name in names if "." in name) == first
    assert "--ckpt_path" in names


@pytest.mark.parametrize(
    ("section", "name"), [("trainer", "max_steps"), ("model", "heatmap_sigma"), ("data", "flip_pairs")]
)
def test_every_section_has_a_page(capsys, monkeypatch, section, name):
    names = options(page(capsys, monkeypatch, "fit", f"--{section}.help"))
    assert f"--{section}.{name}" in names
    assert all(one.startswith(f"--{section}.") for one in names)


def test_a_class_explains_its_options_in_the_same_words(capsys, monkeypatch):
    text = page(capsys, monkeypatch, "fit", "--model.backbone.help", "Unet")
    assert "(a whole number above 0; default: 24)" in " ".join(text.split())


def test_a_commented_config_has_the_packages_headings(capsys, monkeypatch):
    text = page(capsys, monkeypatch, "fit", "--print_config=comments")
    assert "# Train a detector on a COCO keypoint file, validating as it goes.\n" in text
    assert "\n# Options of Lightning's Trainer: length, devices, precision, callbacks, logger\ntrainer:\n" in text
    assert "Runs the full optimization" not in text
    assert set(yaml.safe_load(text)) >= {"trainer", "model", "data"}


def test_the_help_of_a_check_lists_its_own_options(capsys, monkeypatch):
    text = page(capsys, monkeypatch, "check", "--help")
    assert {"--config", "--sheet", "--json"} <= set(options(text)) | set(re.findall(r"--\w+", text))
    assert len(text.splitlines()) < 60
