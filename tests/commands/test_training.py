"""`kpd fit`, `validate` and `test`, as a user runs them."""

import csv
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from keypoint_detection.boxes.data_set import draw_data_set
from keypoint_detection.boxes.scene import KEYPOINT_NAMES
from keypoint_detection.cli import run
from keypoint_detection.detector import KeypointDetector

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "tests" / "conf" / "tiny.yaml")
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(discs, *words):
    return run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])


@pytest.fixture(scope="module")
def trained(discs, tmp_path_factory):
    """The folder of one finished run, two epochs long."""
    folder = tmp_path_factory.mktemp("trained")
    words = [f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=2", "--model.channels=[red, left]"]
    fit(discs, *words)
    (run_folder,) = folder.iterdir()
    return run_folder


def refusal(capsys, *words) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    assert caught.value.code == 2
    assert not Path("runs").exists()
    return capsys.readouterr().err


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_run_leaves_checkpoints_config_pictures_and_numbers(trained):
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len(list((trained / "overlays").glob("epoch-0002-*.png"))) == 4
    assert json.loads((trained / "metrics.json").read_text())["n_images"] == 12
    assert (trained / "config.yaml").is_file()


def test_channels_that_are_left_out_are_filled_in_and_saved(discs):
    cli = fit(discs)
    assert list(cli.model.channels) == ["red", "left", "right"]
    (config,) = Path("runs").glob("*/config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["channels"] == ["red", "left", "right"]


def test_the_saved_config_repeats_the_run(trained, discs):
    again = run(["fit", f"--config={trained / 'config.yaml'}", "--trainer.default_root_dir=again"])
    first = json.loads((trained / "metrics.json").read_text())["metrics"]
    (metrics,) = Path("again").glob("*/metrics.json")
    assert json.loads(metrics.read_text())["metrics"] == first
    assert again.trainer.current_epoch == 2


def test_every_hyperparameter_is_in_the_checkpoint_as_a_plain_value(trained):
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    saved = yaml.safe_load((trained / "config.yaml").read_text())
    assert set(saved["model"]) <= set(model)
    assert model["lr"] == 0.001
    assert model["backbone"]["init_args"]["n_channels"] == 4
    assert set(saved["data"]) <= set(data)
    assert json.dumps([model, data])


def test_a_checkpoint_loads_without_the_command_line(trained):
    detector = KeypointDetector.load_from_checkpoint(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert detector.channels == {"red": ["red"], "left": ["left"]}
    assert detector.network.backbone.init_args["n_channels"] == 4


# --- measuring -------------------------------------------------------------------------------------------------------


def test_a_test_needs_nothing_but_a_checkpoint_and_a_file(trained, discs):
    cli = run(["test", f"--ckpt_path={trained / 'checkpoints' / 'best.ckpt'}", f"--data.test={discs}"])
    (metrics,) = Path("runs").glob("*-test/metrics.json")
    tested = json.loads(metrics.read_text())
    validated = json.loads((trained / "metrics.json").read_text())
    assert list(cli.model.channels) == ["red", "left"]
    assert tested["n_images"] == 12
    shared = {name: value for name, value in tested["metrics"].items() if not name.startswith(("ECE/", "coverage"))}
    assert shared == pytest.approx(validated["metrics"], nan_ok=True)
    calibration = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["validation"]["calibration"]
    assert ("coverage" in tested["metrics"]) == (calibration is not None)
    low, high = tested["intervals"]["error_px/mean"]
    assert low < tested["metrics"]["error_px/mean"] < high


def test_validating_uses_the_validation_file(trained, discs):
    run(["validate", f"--ckpt_path={trained / 'checkpoints' / 'best.ckpt'}", f"--data.val={discs}"])
    assert len(list(Path("runs").glob("*-validate/metrics.json"))) == 1


def test_the_users_flags_win_over_the_checkpoint_and_that_is_said(trained, discs, caplog):
    checkpoint = f"--ckpt_path={trained / 'checkpoints' / 'best.ckpt'}"
    with caplog.at_level("INFO", logger="keypoint_detection"):
        cli = run(["test", checkpoint, f"--data.test={discs}", "--model.ap_thresholds_px=[3]"])
    assert cli.model.report.thresholds_px == (3.0,)
    assert "model.ap_thresholds_px: [3.0] as given (the checkpoint has [2.0, 4.0, 8.0])" in caplog.text
    assert "model.heatmap_sigma" not in caplog.text


def test_the_worst_images_are_written_on_request(trained, discs):
    checkpoint = f"--ckpt_path={trained / 'checkpoints' / 'best.ckpt'}"
    words = ["--trainer.callbacks+=WorstImages", "--trainer.callbacks.n_images=3"]
    run(["test", checkpoint, f"--data.test={discs}", *words])
    (folder,) = Path("runs").iterdir()
    rows = list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))
    assert len({row["file"] for row in rows}) == 12
    assert all((discs.parent / row["file"]).is_file() for row in rows)
    assert len(list((folder / "worst").glob("*.png"))) == 3


# --- settings --------------------------------------------------------------------------------------------------------


def parsed(*words):
    """What a command would run with, without running it."""
    done = subprocess.run(
        [sys.executable, "-m", "keypoint_detection", *words, "--print_config"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_later_words_win_over_earlier_ones_and_all_over_the_environment(discs, monkeypatch):
    Path("a.yaml").write_text("model: {lr: 0.1, heatmap_sigma: 1.0, max_keypoints: 1, min_distance_px: 1.0}")
    Path("b.yaml").write_text("model: {heatmap_sigma: 2.5, max_keypoints: 2, min_distance_px: 2.0}")
    for name in ("MAX_KEYPOINTS", "MIN_DISTANCE_PX", "SCORE_THRESHOLD"):
        monkeypatch.setenv(f"KPD_FIT__MODEL__{name}", "1")
    monkeypatch.setenv("KPD_FIT__MODEL__BACKBONE__WIDTH", "7")
    words = ["--config=a.yaml", "--model.min_distance_px=4.0", "--model.heatmap_sigma=9", "--config", "b.yaml"]
    model = parsed("fit", *words)["model"]
    names = ("lr", "heatmap_sigma", "max_keypoints", "min_distance_px", "score_threshold")
    assert [model[name] for name in names] == [0.1, 2.5, 2, 2.0, 1.0]
    assert model["backbone"]["init_args"]["width"] == 7


def test_a_variable_that_names_no_option_is_refused(discs, monkeypatch, capsys):
    monkeypatch.setenv("KPD_FIT__MODEL__LRR", "1")
    error = refusal(capsys, "fit", "--config", TINY, f"--data.train={discs}")
    assert "--model.lrr" in error


@pytest.mark.parametrize(
    ("words", "option", "name", "expected"),
    [
        (["--model.optimizer=torch.optim.SGD"], "optimizer", "weight_decay", 0),
        (["--model.optimizer=SGD", "--model.optimizer.momentum=0.5"], "optimizer", "weight_decay", 0),
        (["--model.optimizer=AdamW"], "optimizer", "weight_decay", 0.05),
        (["--model.optimizer.eps=0.1"], "optimizer", "weight_decay", 0.05),
    ],
)
def test_a_new_class_starts_from_its_own_defaults(words, option, name, expected):
    base = ["fit", "--config", str(ROOT / "configs" / "base.yaml")]
    assert parsed(*base, *words)["model"][option]["init_args"][name] == expected


def test_another_logger_gets_nothing_of_the_default_one():
    logger = parsed("fit", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x")["trainer"]["logger"]
    assert logger["init_args"]["name"] == "lightning_logs"
    assert "project" not in logger["init_args"]


def test_the_same_command_twice_gives_the_same_losses(discs):
    metrics = []
    for root in ("one", "two"):
        fit(discs, f"--trainer.default_root_dir={root}", "--data.augment=true")
        (path,) = Path(root).glob("*/metrics.json")
        metrics.append(json.loads(path.read_text())["metrics"])
    assert metrics[0] == metrics[1]
    assert metrics[0]["loss"] > 0


def test_optimiser_and_schedule_are_replaced_from_yaml(discs):
    Path("o.yaml").write_text(
        "model:\n"
        "  optimizer: {class_path: torch.optim.SGD, init_args: {momentum: 0.5}}\n"
        "  lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1, gamma: 0.1}}\n"
        "  lr: 0.25\n"
    )
    cli = fit(discs, "--config=o.yaml")
    (optimizer,) = cli.trainer.optimizers
    assert type(optimizer).__name__ == "SGD"
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert optimizer.param_groups[0]["initial_lr"] == 0.25
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


def test_augmentation_is_replaced_from_yaml(discs):
    Path("a.yaml").write_text(
        "data:\n  augment: true\n  flip_pairs: [[left, right]]\n  augmentation:\n"
        "    - class_path: torchvision.transforms.v2.RandomHorizontalFlip\n      init_args: {p: 1.0}\n"
        "    - class_path: torchvision.transforms.v2.RandomRotation\n      init_args: {degrees: 10}\n"
    )
    cli = fit(discs, "--config=a.yaml")
    assert [type(one).__name__ for one in cli.datamodule.transform.transforms] == [
        "RandomHorizontalFlip",
        "RandomRotation",
    ]
    saved = yaml.safe_load(next(Path("runs").glob("*/config.yaml")).read_text())
    assert saved["data"]["augmentation"][1]["init_args"]["degrees"] == 10


@pytest.mark.parametrize("name", ["CSVLogger", "TensorBoardLogger"])
def test_other_loggers_work(discs, name):
    if name == "TensorBoardLogger":
        pytest.importorskip("tensorboard")
    fit(discs, f"--trainer.logger={name}", "--trainer.logger.save_dir=logs")
    assert any(Path("logs").rglob("*.csv" if name == "CSVLogger" else "events*"))


def test_early_stopping_is_available(discs):
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mAP", "--trainer.callbacks.mode=max"]
    cli = fit(discs, *stop, "--trainer.callbacks.patience=1", "--model.lr=1e-12", "--trainer.max_epochs=9")
    assert cli.trainer.current_epoch < 9


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_only_the_packages_backbones")
@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("--model.lrr=1", ["unrecognized arguments: --model.lrr=1", "Did you mean --model.lr"]),
        ("--model.heatmap_sigm=1", ["unrecognized", "Did you mean --model.heatmap_sigma"]),
        ("--model.lr=fast", ["model.lr", "found fast"]),
        ("--model.lr=-1", ["model.lr", "a number above 0; found -1"]),
        (
            "--model.backbone=Unett",
            ["no class called Unett", "DilatedCnn, S3K, TimmUnet, Unet"],
        ),
        ("--model.backbone=nowhere.Net", ["model.backbone: No module named 'nowhere'", "where the command runs"]),
        ("--model.backbone=fractions.Fraction", ["model.backbone: fractions.Fraction is not a subclass of Backbone\n"]),
        ("--model.backbone.n_chanels=3", ["'n_chanels' is not accepted", "Did you mean n_channels?"]),
        ("--model.backbone.kernel_size=4", ["an odd number is expected"]),
        ("--data.resize=fill", ["data.resize", "letterbox"]),
        ("--data.train=none.json", ["none.json: no such file"]),
        ("--model.channels=[nose]", ["channel 'nose'", "types are: red, left, right"]),
        ("--model.channels=[]", ["at least one channel"]),
        ("--model.ap_thresholds_px=[4,2]", ["thresholds"]),
        ("--config=none.yaml", ["none.yaml"]),
        ("--trainer.max_epoch=3", ["Did you mean --trainer.max_epochs"]),
        ("--trainer.overfit_batches=0.2", ["leaves none of 1 batch to validate on.", "--trainer.overfit_batches=1"]),
        ("--trainer.val_check_interval=50", ["an epoch has only", "--trainer.check_val_every_n_epoch=null"]),
        (
            "--data.image_size=96",
            ["expected a list; found 96", "height and width, e.g. --data.image_size='[256, 256]'"],
        ),
        ("--trainer.callbacks+=EarlyStoping", ["no class called EarlyStoping", "Did you mean EarlyStopping?"]),
        ("--trainer.callbacks+=Nonsense", ["no class called Nonsense", "WorstImages"]),
        ("--model.optimizer=torch.optim.Adm", ["has no attribute 'Adm'", "Did you mean Adam"]),
        ("--trainer.precision=fp16", ["found fp16", "bf16-mixed"]),
        pytest.param(
            "--trainer.accelerator=gpu",
            ["No supported gpu backend", "Leave --trainer.accelerator"],
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has one"),
        ),
        pytest.param(
            "--trainer.logger=MLFlowLogger",
            ["MLFlowLogger needs a package that is not installed: pip install 'mlflow"],
            marks=pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="it is installed"),
        ),
    ],
)
def test_a_mistake_is_answered_before_anything_runs(discs, capsys, word, texts):
    error = refusal(capsys, "fit", "--config", TINY, f"--data.train={discs}", word)
    for text in texts:
        assert text in error
    assert len(error.splitlines()) <= 8


def test_an_unknown_key_in_a_config_file_is_refused(discs, capsys):
    Path("a.yaml").write_text("model: {heatmap_sigmas: 1}")
    error = refusal(capsys, "fit", "--config=a.yaml", f"--data.train={discs}")
    assert "a.yaml, line 1: there is no option model.heatmap_sigmas; did you mean model.heatmap_sigma?" in error


def test_a_broken_config_file_is_named(discs, capsys):
    Path("a.yaml").write_text("model:\n  lr: 0.1\n data: 3\n")
    error = refusal(capsys, "fit", "--config=a.yaml", f"--data.train={discs}")
    assert "a.yaml, line 3, column 2: this is not YAML" in error


def test_training_without_a_file_says_what_to_give(capsys):
    assert "no training file: give --data.train=FILE.json" in refusal(capsys, "fit", "--config", TINY)


def test_drawn_images_are_drawn_once_and_give_the_channels(caplog):
    boxes = {"folder": "boxes", "n_train": 2, "n_val": 1, "height": 64, "width": 64}
    words = ["fit", "--config", TINY, f"--data.synthetic={json.dumps(boxes)}", "--trainer.max_epochs=1"]
    caplog.set_level(logging.INFO, logger="keypoint_detection.boxes")
    for text in ("Drew 2 train + 1 val images", "boxes already holds this data set"):
        caplog.clear()
        cli = run(words)
        assert list(cli.model.channels) == KEYPOINT_NAMES
        (message,) = (one.getMessage() for one in caplog.records if one.name == draw_data_set.__module__)
        assert message.startswith(text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "expected an empty or missing folder"),
        (["--data.train=a.json"], "data.synthetic draws its own files"),
    ],
)
def test_what_cannot_be_drawn_is_refused(capsys, words, text):
    Path("boxes").mkdir()
    Path("boxes", "notes.txt").touch()
    assert text in refusal(capsys, "fit", "--config", TINY, "--data.synthetic.folder=boxes", *words)


@pytest.mark.parametrize("command", ["test", "validate"])
def test_random_weights_are_never_measured(command, discs, capsys):
    error = refusal(
        capsys, command, f"--data.{command[:4].rstrip('i')}={discs}" if command == "test" else "--verbose=false"
    )
    assert "needs a trained detector: give --ckpt_path" in error


@pytest.mark.parametrize("path", ["last", "best", "none.ckpt"])
def test_a_checkpoint_that_is_not_there_is_refused(path, discs, capsys):
    error = refusal(capsys, "test", f"--ckpt_path={path}", f"--data.test={discs}")
    assert f"{path!r} is not a file" in error


def test_a_file_that_is_no_checkpoint_is_refused(discs, capsys):
    Path("a.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, "b.ckpt")
    assert "cannot be read as a checkpoint" in refusal(capsys, "test", "--ckpt_path=a.ckpt", f"--data.test={discs}")
    assert "not a kpd checkpoint" in refusal(capsys, "test", "--ckpt_path=b.ckpt", f"--data.test={discs}")


# --- the configs that users copy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_config_trains_one_batch(config, discs):
    words = ["fit"]
    if config.name not in ("base.yaml", "scratch.yaml", "quickstart.yaml"):
        words += ["--config", str(ROOT / "configs" / "base.yaml")]
    words += ["--config", str(config)]
    if config.name == "quickstart.yaml":
        synthetic = {"folder": "boxes", "n_train": 2, "n_val": 1, "height": 64, "width": 64}
        words += [f"--data.synthetic={json.dumps(synthetic)}"]
    else:
        words += [f"--data.train={discs}", f"--data.val={discs}"]
    words += ["--data.image_size=[32, 48]", "--data.num_workers=0", "--trainer.limit_train_batches=1"]
    cli = run([*words, "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"])
    assert cli.trainer.global_step == 1


def test_there_are_configs_to_test():
    assert {path.name for path in CONFIGS} >= {"base.yaml", "scratch.yaml", "quickstart.yaml"}


def test_a_newcomer_gets_the_recommended_recipe(discs):
    # What docs/explanation/accuracy.md measured; the config to start from, and Python, have the same.
    assert yaml.safe_load((ROOT / "configs" / "base.yaml").read_text())["model"] == {"lr": 0.001}
    words = ["--data.image_size=[32, 32]", "--data.num_workers=0", "--trainer.fast_dev_run=true"]
    cli = run(["fit", f"--data.train={discs}", *words, "--trainer.accelerator=cpu"])
    for settings in (cli.model.hparams, KeypointDetector(["nose"]).hparams):
        assert settings["backbone"]["class_path"].rpartition(".")[2] == "TimmUnet"
        arguments = settings["backbone"]["init_args"]
        assert arguments["encoder"] == "tf_efficientnet_lite2"
        assert arguments["output_stride"] == 2
        assert settings["lr"] == 0.001
        assert settings["optimizer"]["class_path"].rpartition(".")[2] == "AdamW"
        assert settings["optimizer"]["init_args"]["weight_decay"] == 0.05
    assert cli.trainer.optimizers[0].param_groups[0]["weight_decay"] == 0.05
    assert cli.datamodule.batch_size == 8


# --- the console script ----------------------------------------------------------------------------------------------


def test_the_console_script_trains_and_shows_the_way_on(discs):
    script = Path(sys.executable).with_name("kpd")
    command = [script, "fit", "--config", TINY, f"--data.train={discs}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in (
        "Validation, epoch 1 of 1",
        "overall",
        "Best checkpoint",
        "Saved config",
        "Overlay",
        "kpd test --ckpt_path=",
    ):
        assert text in done.stdout


# --- callbacks, precision and other odd options ----------------------------------------------------------------------


def test_several_best_checkpoints_are_kept_on_request(discs):
    more = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=3"]
    fit(discs, *more, "--trainer.max_epochs=4")
    (folder,) = Path("runs").glob("*/checkpoints")
    names = {path.name for path in folder.iterdir()}
    assert {"best.ckpt", "last.ckpt"} < names
    assert len(names) == 2 + 3


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/los"], ["Did you mean val/loss"]),
        (["--trainer.callbacks+=BestCheckpoint", "--trainer.callbacks.monitor=xyz"], ["'xyz'", "There are: "]),
        (
            ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_scheduler.monitor=val/map"],
            ["model.lr_scheduler watches 'val/map'", "val/mAP"],
        ),
        (["--model.lr_scheduler=ReduceLROnPlateau"], ["lightning.pytorch.cli.ReduceLROnPlateau, and its monitor"]),
        (["--trainer.callbacks+=LearningRateMonitor"], ["there is none", "--trainer.logger=CSVLogger"]),
        (["--trainer.precision=bf16-true"], ["but the ground truth too", "bf16-mixed"]),
        (["--trainer.precision=16-true"], ["bf16-mixed"]),
        (["--trainer.precision=64-true"], ["32-true"]),
        (["--model.backbone.n_downsampling_layers=12"], ["48x64", "padded to 4096x4096", "fewer down-samplings"]),
        (["--data.augmentation=[RandomRotation]"], ["data.augmentation", "degrees"]),
        (["--data.flip_pairs=[[left, right], [right, red]]"], ["has no single twin"]),
        (["--data.image_size=[1, 1]"], ["the minimum is 8 px"]),
    ],
)  # fmt: skip
def test_an_odd_option_is_answered_before_anything_runs(discs, capsys, words, texts):
    error = refusal(capsys, "fit", "--config", TINY, f"--data.train={discs}", *words)
    for text in texts:
        assert text in error
    assert len(error.splitlines()) <= 8


def test_a_folder_that_cannot_be_made_is_refused(discs, capsys):
    Path("file").write_text("")
    error = refusal(capsys, "fit", "--config", TINY, f"--data.train={discs}", "--trainer.default_root_dir=file/x")
    assert "cannot be written" in error
    assert "--trainer.default_root_dir" in error


def test_a_broken_image_is_named_in_a_line(discs, tmp_path, capsys):
    shutil.copytree(discs.parent, tmp_path / "data")
    path = tmp_path / "data" / "images" / "0-3.png"
    path.write_bytes(path.read_bytes()[:150])
    words = [f"--data.train={tmp_path / 'data' / discs.name}", "--data.num_workers=1", "--data.val_fraction=0.1"]
    with pytest.raises(SystemExit) as caught:
        run(["fit", "--config", TINY, *words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "images/0-3.png: cannot be read as an image" in error
    assert "Traceback" not in error


def test_checkpoints_can_be_switched_off(discs, capsys):
    cli = fit(discs, "--trainer.enable_checkpointing=false")
    assert not list(Path("runs").glob("*/checkpoints"))
    assert "Validation, the latest" in capsys.readouterr().out
    assert cli.trainer.global_step == 3


def test_more_points_than_the_detector_may_find_are_warned_of(discs, caplog):
    fit(discs, "--model.max_keypoints=1", "--model.channels={all: [red, left, right]}")
    assert "have more points of a channel than model.max_keypoints, 1:" in caplog.text
    assert "Set --model.max_keypoints=3." in caplog.text


def test_a_backbone_of_ones_own_is_found_in_the_working_folder(discs):
    Path("mine.py").write_text(
        "from torch import nn\nfrom keypoint_detection.models.backbones import Backbone\n"
        "class Tiny(Backbone):\n"
        "    def __init__(self, width: int, depth: int = 1) -> None:\n"
        "        super().__init__()\n        self.stride, self.out_channels, self.size_multiple = 1, width, 1\n"
        "        self.layers = nn.Conv2d(3, width, 3, padding=1)\n"
        "    def forward(self, images):\n        return self.layers(images)\n"
    )
    script = Path(sys.executable).with_name("kpd")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    backbone = ["--model.backbone=mine.Tiny", "--model.backbone.width=3"]
    data = [f"--data.train={discs}", f"--data.val={discs}"]
    trained = subprocess.run([script, "fit", "--config", TINY.replace("tiny", "short"), *data, *backbone],
                             capture_output=True, text=True, env=environment)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = Path("runs").glob("*/checkpoints/best.ckpt")
    tested = subprocess.run([script, "test", f"--ckpt_path={checkpoint}", f"--data.test={discs}", "--trust=mine"],
                            capture_output=True, text=True, env=environment)  # fmt: skip
    assert tested.returncode == 0, tested.stderr
    assert "Test, 12 images" in tested.stdout


def test_weights_and_biases_can_be_disabled(discs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(discs, "--trainer.logger=WandbLogger")
    (checkpoint,) = Path("runs").glob("*/checkpoints/best.ckpt")
    run(["test", f"--ckpt_path={checkpoint}", f"--data.test={discs}", "--trainer.logger=WandbLogger"])
