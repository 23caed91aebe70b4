"""`kpd init` as a user runs it."""

import re
from pathlib import Path

import pytest
import yaml

from keypoint_detection.cli import run
from keypoint_detection.commands.init import LabelDescription, guess_flip_pairs, write_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(capsys, *words) -> str:
    with pytest.raises(SystemExit) as caught:
        run(["init", *map(str, words)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_config_for_a_file_trains_on_it(discs, capsys):
    run(["init", str(discs)])
    assert "kpd fit --config base.yaml" in capsys.readouterr().out
    config = yaml.safe_load(Path("base.yaml").read_text())
    assert config["data"]["train"] == str(discs)
    assert "val" not in config["data"]
    # Enlarged until their shorter side has 64 px, and rounded to multiples of 32.
    assert config["data"]["image_size"] == [64, 96]
    assert config["data"]["flip_pairs"] == [["left", "right"]]
    words = ["--model.backbone=Unet", "--model.backbone.n_channels=4", "--data.num_workers=0", "--trainer.logger=false"]
    cli = run(["fit", "--config=base.yaml", *words, "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"])
    assert list(cli.model.channels) == ["red", "left", "right"]


def test_the_next_commands_can_be_pasted(discs, capsys):
    run(["init", str(discs), "--output=my boxes.yaml"])
    assert "\n  kpd check --config 'my boxes.yaml'\n  kpd fit --config 'my boxes.yaml'\n" in capsys.readouterr().out


def test_a_validation_file_beside_the_labels_is_taken(write_coco):
    train = write_coco()
    train.with_name("val.json").write_text(train.read_text())
    run(["init", "data.json"])
    assert yaml.safe_load(Path("base.yaml").read_text())["data"] == {
        "train": "data.json",
        "val": "val.json",
        "image_size": yaml.safe_load(Path("base.yaml").read_text())["data"]["image_size"],
    }


@pytest.mark.parametrize("words", [["data.json"], ["--quickstart", "--output=base.yaml"]])
def test_nothing_is_overwritten(write_coco, capsys, words):
    write_coco()
    Path("base.yaml").write_text("mine: 1\n")
    assert "base.yaml already exists and is left unchanged" in refusal(capsys, *words)
    assert Path("base.yaml").read_text() == "mine: 1\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "give a COCO keypoint file"),
        (["none.json"], "none.json: no such file"),
        (["data.json", "--quickstart"], "--quickstart draws its own data"),
        (["data.json", "--val=none.json"], "none.json"),
    ],
)
def test_a_mistake_writes_nothing(write_coco, capsys, words, text):
    write_coco()
    assert text in refusal(capsys, *words)
    assert not list(Path().glob("*.yaml"))


def test_settings_that_the_labels_need_are_written(write_coco):
    write_coco()
    run(["init", "data.json", "--coordinates=pixel_index", "--output=new/mice.yaml"])
    text = Path("new/mice.yaml").read_text()
    assert yaml.safe_load(text)["data"]["coordinates"] == "pixel_index"
    assert "kpd fit --config mice.yaml" in text


def test_the_configs_of_the_repository_are_those_that_are_written():
    corners, flaps = [f"corner{index}" for index in range(4)], ["flap0", "flap1"]
    labels = LabelDescription("data/train.json", "data/val.json", [*corners, *flaps], (256, 256))
    assert write_config(labels, "base.yaml") == (CONFIGS / "base.yaml").read_text()
    run(["init", "--quickstart"])
    assert Path("quickstart.yaml").read_text() == (CONFIGS / "quickstart.yaml").read_text()


def test_names_and_paths_of_any_kind_are_valid_yaml():
    types = ["no", "1", "a: b", "#5", "left $x", "right $x", "été"]
    labels = LabelDescription("my data/a: b.json", None, types, (64, 96))
    text = write_config(labels, "base.yaml")
    data = yaml.safe_load(text)["data"]
    assert data["train"] == "my data/a: b.json"
    assert data["flip_pairs"] == [["left $x", "right $x"]]
    uncommented = re.sub(r"^  # (?=channels:|val:)|^  #(?=   \S+: \[)", "  ", text, flags=re.MULTILINE)
    assert yaml.safe_load(uncommented)["data"]["val"] == "my data/val.json"


@pytest.mark.parametrize(
    ("types", "pairs"),
    [
        (["nose", "left_ear", "right_ear"], [["left_ear", "right_ear"]]),
        (["leftear", "rightear"], [["leftear", "rightear"]]),
        (["Left Ear", "Right Ear"], [["Left Ear", "Right Ear"]]),
        (["EAR_LEFT", "EAR_RIGHT"], [["EAR_LEFT", "EAR_RIGHT"]]),
        (["earLeft", "earRight"], [["earLeft", "earRight"]]),
        (["l_ear", "r_ear"], [["l_ear", "r_ear"]]),
        (["ear_l", "ear_r"], [["ear_l", "ear_r"]]),
        (["L-ear", "R-ear"], [["L-ear", "R-ear"]]),
        (["LEar", "REar", "Lips", "Rump"], [["LEar", "REar"]]),
        (["earL", "earR"], [["earL", "earR"]]),
        (["L1", "R1", "L2", "R2"], [["L1", "R1"], ["L2", "R2"]]),
        (["paw_l_1", "paw_r_1"], [["paw_l_1", "paw_r_1"]]),
        (["mouse/left_ear", "mouse/right_ear"], [["mouse/left_ear", "mouse/right_ear"]]),
        (["left_ear", "nose"], []),  # its twin has no label
        (["left_ear", "right_ear", "left_eye"], []),
        (["bright_spot", "left_ear", "right_ear"], [["left_ear", "right_ear"]]),
        (["corner0", "corner1", "tail", "lip"], []),
    ],
)
def test_pairs_are_guessed_from_names(types, pairs):
    assert guess_flip_pairs(types) == pairs
