"""The run folder of somebody else is resumed: it does not decide where files are written."""

import copy
import os
import shutil
from pathlib import Path

import pytest
import yaml
from jsonargparse import dict_to_namespace

from keypoint_detection.checkpoints.files import CheckpointError
from keypoint_detection.checkpoints.settings import read_settings
from keypoint_detection.checkpoints.stored_destinations import refuse_destinations
from keypoint_detection.cli import run

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


def named(class_path, **init_args):
    return {"class_path": f"lightning.pytorch.{class_path}", "init_args": init_args}


def checkpoint(**arguments):
    return {"callbacks": [named("callbacks.ModelCheckpoint", **arguments)]}


# Settings of the Trainer that would write outside the run folder; {home} is a folder of the user's.
HOSTILE = [
    checkpoint(dirpath="{home}"),
    checkpoint(dirpath="{home}/./checkpoints//new"),
    checkpoint(dirpath="~/checkpoints"),
    checkpoint(dirpath="../../checkpoints"),
    checkpoint(dirpath="runs/mine/checkpoints"),
    checkpoint(dirpath="."),
    checkpoint(dirpath="linked"),
    checkpoint(dirpath="file://{home}"),
    checkpoint(dirpath="s3://bucket/checkpoints"),
    checkpoint(dirpath="simplecache::{home}"),
    checkpoint(filename="../../../mine"),
    checkpoint(filename="{home}/mine"),
    checkpoint(filename="{epoch}/../../mine"),
    checkpoint(filename="{step:c}tmp{step:c}mine"),
    checkpoint(filename="{step:/>9}mine"),
    checkpoint(filename="{/tmp/mine}"),
    checkpoint(filename="{../../mine}"),
    {"callbacks": named("callbacks.OnExceptionCheckpoint", dirpath="{home}")},
    {"callbacks": [named("callbacks.OnExceptionCheckpoint", dirpath="his", filename="../mine")]},
    {"callbacks": [named("callbacks.SpikeDetection", exclude_batches_path="{home}/.bashrc")]},
    {"callbacks": [named("callbacks.SpikeDetection", exclude_batches_path="labels.json")]},
    {"logger": named("loggers.CSVLogger", save_dir="{home}")},
    {"logger": [named("loggers.CSVLogger", save_dir="logs", name="../../mine")]},
    {"logger": named("loggers.CSVLogger", save_dir="logs", version="{home}/mine")},
    {"logger": named("loggers.TensorBoardLogger", save_dir="$HOME/logs")},
    {"logger": named("loggers.TensorBoardLogger", save_dir="logs", sub_dir="../../mine")},
    {"logger": named("loggers.WandbLogger", save_dir="{home}")},
    {"logger": named("loggers.WandbLogger", dir="{home}")},
    {"logger": {**named("loggers.WandbLogger"), "dict_kwargs": {"dir": "{home}"}}},
    {"logger": named("loggers.MLFlowLogger", tracking_uri="http://example.com")},
    {"logger": named("loggers.MLFlowLogger", tracking_uri="sqlite:///{home}/mine.db")},
    {"logger": named("loggers.CSVLogger", save_dir="linked")},
    {"profiler": named("profilers.SimpleProfiler", dirpath="{home}", filename="mine")},
    {"profiler": named("profilers.SimpleProfiler", filename="../mine")},
    {"profiler": named("profilers.AdvancedProfiler", dirpath="data")},
    {"profiler": named("profilers.PyTorchProfiler", dirpath="{home}")},
    {"strategy": named("strategies.DeepSpeedStrategy", nvme_path="{home}")},
    {"strategy": named("strategies.DeepSpeedStrategy", config="config.json")},
    {"plugins": [named("plugins.io.AsyncCheckpointIO", checkpoint_io=named("plugins.io.X", path="{home}"))]},
]
HOSTILE_DATA = [
    {"cache": "disk", "cache_folder": "{home}"},
    {"cache": "disk", "cache_folder": "../cache"},
    {"synthetic": {"folder": "{home}/boxes"}},
]
# What own runs have, and what harms nobody.
HARMLESS = [
    checkpoint(dirpath=None, filename="{epoch}-{val/loss:.2f}", monitor="val/loss"),
    checkpoint(dirpath="his/run/checkpoints/more"),
    checkpoint(filename="{step:06d}-{val/error_px/mean}-{val.x:.3e}"),
    checkpoint(dirpath="{cwd}/his/run/checkpoints"),
    {"logger": named("loggers.CSVLogger", save_dir="logs", name="a.b..c", version="first try: 1/2")},
    {"logger": named("loggers.WandbLogger", save_dir=".", notes="see https://example.com and /data", tags=["/a"])},
    {"logger": named("loggers.TensorBoardLogger", save_dir="{cwd}/his/run")},
    {"profiler": "simple"},
    {"profiler": named("profilers.SimpleProfiler", filename="times")},
    {"strategy": "ddp_find_unused_parameters_true", "accelerator": "cpu"},
]


@pytest.fixture(scope="module")
def run_folder(discs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(["fit", "--config", TINY, f"--data.train={discs}", f"--trainer.default_root_dir={folder}"])
    (found,) = folder.iterdir()
    return found


@pytest.fixture
def his(run_folder, tmp_path, monkeypatch):
    """His run folder below the working folder, in which there is a link to the folder `mine` of the user's."""
    (tmp_path / "here").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    Path("linked").symlink_to(tmp_path / "mine")
    shutil.copytree(run_folder, "his/run")
    return Path("his/run")


def fill_in(value, places):
    """Put folders into the texts of nested settings."""
    if isinstance(value, dict):
        return {key: fill_in(entry, places) for key, entry in value.items()}
    if isinstance(value, list):
        return [fill_in(entry, places) for entry in value]
    for name, place in places.items():
        value = value.replace(f"{{{name}}}", str(place)) if isinstance(value, str) else value
    return value


def settle(run_folder, trainer, data):
    """Return the settings of a run, some of them changed, as they are parsed."""
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    places = {"home": Path.cwd().parent / "mine", "cwd": Path.cwd()}
    settings["trainer"] |= fill_in(trainer, places)
    settings["data"] |= fill_in(data, places)
    settings["ckpt_path"] = str(run_folder / "checkpoints" / "last.ckpt")
    names = [f"{group}.{name}" for group in ("trainer", "data") for name in settings[group]]
    return names, dict_to_namespace(settings)


@pytest.mark.parametrize(
    ("trainer", "data"), [*((one, {}) for one in HOSTILE), *(({}, one) for one in HOSTILE_DATA)], ids=str
)
def test_a_stored_setting_does_not_decide_where_files_are_written(his, trainer, data):
    names, config = settle(his, trainer, data)
    with pytest.raises(CheckpointError, match=r"give this setting yourself, or, .* --config=his/run/config\.yaml"):
        refuse_destinations(names, config, ())


@pytest.mark.parametrize("trainer", HARMLESS, ids=str)
def test_what_stays_in_its_place_is_left_alone(his, trainer):
    names, config = settle(his, trainer, {})
    refuse_destinations(names, config, ())


def test_caches_and_drawn_images_that_are_there_are_used(his):
    for name, marker in (("cache", "used"), ("boxes", "synthetic.json")):
        (Path.cwd().parent / "mine" / name).mkdir()
        (Path.cwd().parent / "mine" / name / marker).touch()
    data = {"cache": "disk", "cache_folder": "{home}/cache", "synthetic": {"folder": "{home}/boxes"}}
    refuse_destinations(*settle(his, {}, data), ())
    refuse_destinations(*settle(his, {}, {"cache": "disk"}), ())
    refuse_destinations(*settle(his, {}, {"cache": "none", "cache_folder": "/elsewhere"}), ())


def test_what_the_user_wrote_is_approved(his):
    names, config = settle(his, checkpoint(dirpath="{home}/checkpoints"), {})
    home = Path.cwd().parent / "mine"
    refuse_destinations(names, config, {("trainer.callbacks.dirpath", f"{home}//./checkpoints")})
    with pytest.raises(CheckpointError):
        refuse_destinations(names, config, {("data.train", f"{home}/checkpoints")})


def change_config(his, **trainer):
    config = his / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["trainer"] |= trainer
    config.write_text(yaml.safe_dump(settings))


def refusal(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(["fit", "--ckpt_path=his/run/checkpoints/last.ckpt", "--trainer.max_epochs=2", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[0]


def test_a_run_that_writes_elsewhere_is_resumed_with_the_words_that_allow_it(his, capsys):
    home = Path.cwd().parent / "mine"
    change_config(his, **fill_in(checkpoint(dirpath="{home}"), {"home": home}))
    error = refusal(capsys)
    assert f"his/run/config.yaml: its setting trainer.callbacks.init_args.dirpath is {home}, which is outside" in error
    assert list(home.iterdir()) == []
    words = ["--ckpt_path=his/run/checkpoints/last.ckpt", "--trainer.max_epochs=2"]
    run(["fit", *words, "--config=his/run/config.yaml"])
    assert [path.suffix for path in home.iterdir()] == [".ckpt"]


def test_a_setting_that_the_user_replaces_does_not_matter(his, capsys):
    home = Path.cwd().parent / "mine"
    change_config(his, logger=copy.deepcopy(named("loggers.CSVLogger", save_dir=str(home))))
    assert f"its setting trainer.logger.init_args.save_dir is {home}" in refusal(capsys)
    words = ["--ckpt_path=his/run/checkpoints/last.ckpt", "--trainer.max_epochs=2"]
    run(["fit", *words, "--trainer.logger.save_dir=logs"])
    assert list(home.iterdir()) == []
    assert list(Path("logs").rglob("metrics.csv"))


@pytest.mark.parametrize("place", ["metrics.json", "overlays", "checkpoints/best.ckpt", "report.html", "new"])
def test_nothing_is_written_through_links_in_a_run_folder(his, place, capsys):
    path = his / place
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.symlink_to(Path.cwd().parent / "mine" / "thesis.tex")
    assert f"{path} leads out of the run folder" in refusal(capsys)
    assert list((Path.cwd().parent / "mine").iterdir()) == []


def test_nothing_is_written_into_pipes_in_a_run_folder(his, capsys):
    (his / "metrics.json").unlink()
    os.mkfifo(his / "metrics.json")
    assert "metrics.json leads out of the run folder, or is not a file" in refusal(capsys)


def test_links_in_a_run_folder_of_ones_own_are_followed_if_its_config_is_given(his):
    (his / "checkpoints").rename(Path.cwd().parent / "mine" / "checkpoints")
    (his / "checkpoints").symlink_to(Path.cwd().parent / "mine" / "checkpoints")
    words = ["--ckpt_path=his/run/checkpoints/last.ckpt", "--config=his/run/config.yaml"]
    assert run(["fit", *words, "--trainer.max_epochs=2"]).trainer.current_epoch == 2


@pytest.mark.parametrize("root", ["/nowhere/runs", "../mine", "~/runs", "s3://bucket"])
def test_a_run_that_was_moved_stays_where_it_is(his, root):
    change_config(his, default_root_dir=root)
    assert read_settings(his / "config.yaml")["trainer.default_root_dir"] == "his"
    change_config(his, default_root_dir="./his")
    assert read_settings(his / "config.yaml")["trainer.default_root_dir"] == "./his"


@pytest.mark.parametrize("kind", ["init_args", "dict_kwargs"])
def test_a_run_does_not_say_where_the_key_of_an_account_is_sent(his, kind, caplog):
    logger = {"class_path": "WandbLogger", kind: {"project": "p", "settings": {"base_url": "http://example.com"}}}
    change_config(his, logger=[logger])
    assert read_settings(his / "config.yaml")["trainer.logger"] == [
        {"class_path": "WandbLogger", kind: {"project": "p"}}
    ]
    assert "where the key of your account is sent" in caplog.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed_everything": -3}, "seed_everything is -3; a whole number from 0 to 4294967295 is expected"),
        ({"seed_everything": "x"}, "seed_everything is 'x'"),
        ({"trainer": {"benchmark": ""}}, "the settings of the trainer cannot be used"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(his, changes, text, capsys):
    config = his / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))
    assert text in refusal(capsys)
