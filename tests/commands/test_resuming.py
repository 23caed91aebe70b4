"""Trainings that are resumed, and what a training keeps so that it can be."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from keypoint_detection.cli import run
from keypoint_detection.training.checkpointing import find_best_checkpoint

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")
AUGMENTED = "--data.augment=true"


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(discs, *words):
    return run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])


@pytest.fixture(scope="module")
def trained(discs, tmp_path_factory):
    """The folder of a run of four epochs, the first of which is made to be the best."""
    folder = tmp_path_factory.mktemp("trained")
    monitor = '[{"class_path":"ModelCheckpoint","init_args":{"monitor":"val/loss","mode":"max","filename":"best"}}]'
    words = [f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=4", f"--trainer.callbacks={monitor}"]
    fit(discs, *words, AUGMENTED)
    (run_folder,) = folder.iterdir()
    return run_folder


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs" / "copy")
    return Path("runs") / "copy"


def read(path):
    return torch.load(path, weights_only=True)


def refusal(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 5
    return error


def assert_equal_weights(one, other):
    one, other = read(one)["state_dict"], read(other)["state_dict"]
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_last_checkpoint_is_the_last_and_the_best_the_best(trained):
    best, last = read(trained / "checkpoints" / "best.ckpt"), read(trained / "checkpoints" / "last.ckpt")
    assert (best["validation"]["epoch"], last["validation"]["epoch"]) == (1, 4)
    assert (best["global_step"], last["global_step"]) == (3, 12)


STEP_LR = "torch.optim.lr_scheduler.StepLR"
STEPWISE = f"--model.lr_scheduler={json.dumps({'class_path': STEP_LR, 'init_args': {'step_size': 1, 'gamma': 0.5}})}"


# Any loss is too high for it: every validation halves the learning rate.
PLATEAU = {"monitor": "val/loss", "patience": 0, "factor": 0.5, "threshold": 100.0, "threshold_mode": "abs"}
ON_PLATEAU = json.dumps({"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": PLATEAU})


@pytest.mark.parametrize(
    "schedule",
    ["--model.lr_scheduler=cosine", STEPWISE, f"--model.lr_scheduler={ON_PLATEAU}"],
    ids=["cosine", "once an epoch", "after every validation"],
)
@pytest.mark.parametrize(("step", "n_workers"), [(3, 0), (3, 2), (4, 0), (5, 2)])  # an epoch has three steps
def test_a_resumed_training_ends_as_the_uninterrupted_one(discs, schedule, step, n_workers):
    words = [AUGMENTED, schedule, f"--data.num_workers={n_workers}", "--trainer.max_epochs=3"]
    fit(discs, *words, "--trainer.default_root_dir=whole")
    stop = ["--trainer.callbacks+=conftest.StopAt", f"--trainer.callbacks.step={step}"]
    fit(discs, *words, *stop, "--trainer.default_root_dir=parts")
    (last,) = Path("parts").glob("*/checkpoints/last.ckpt")
    assert read(last)["global_step"] == step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(["fit", f"--ckpt_path={last}"])
    # Lightning cannot know that the images come in the order of the seed and the epoch.
    assert not any("not resumable" in str(one.message) for one in caught)
    (whole,) = Path("whole").glob("*/checkpoints/last.ckpt")
    assert read(last)["global_step"] == read(whole)["global_step"] == 9
    assert_equal_weights(last, whole)
    if ON_PLATEAU in schedule:
        # The first value is the best one; the two after it are no progress.
        assert read(last)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.00025)


def test_one_flag_resumes_a_run_in_its_own_folder_with_its_settings(copied, caplog):
    with caplog.at_level("INFO", logger="keypoint_detection"):
        cli = run(["fit", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=5"])
    assert "Resuming the run runs/copy with the settings of its config.yaml" in caplog.text
    assert cli.trainer.current_epoch == 5
    assert cli.datamodule.batch_size == 4
    assert [path.name for path in Path("runs").iterdir()] == ["copy"]
    saved = yaml.safe_load((copied / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 5
    assert saved["ckpt_path"] is None


def test_a_resumed_run_knows_its_best(trained, copied):
    before = read(copied / "checkpoints" / "best.ckpt")
    cli = run(["fit", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=5"])
    assert read(copied / "checkpoints" / "best.ckpt")["global_step"] == before["global_step"] == 3
    best = find_best_checkpoint(cli.trainer)
    assert best.path.resolve() == (copied / "checkpoints" / "best.ckpt").resolve()
    assert best.score == pytest.approx(before["validation"]["report"]["overall"]["loss"])
    assert_equal_weights(copied / "checkpoints" / "best.ckpt", trained / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--model.lr=0.1", "model.lr is 0.1, the checkpoint has 0.001"),
        ("--model.optimizer=SGD", "model.optimizer.class_path is torch.optim.sgd.SGD"),
        ("--model.lr_scheduler=constant", "model.lr_scheduler is constant"),
        ("--model.backbone.n_channels=8", "model.backbone.init_args.n_channels is 8, the checkpoint has 4"),
        ("--trainer.max_epochs=3", "already been trained for 4 epochs"),
    ],
)
def test_settings_that_a_resumed_training_cannot_follow_are_refused(copied, word, text, capsys):
    error = refusal(capsys, "fit", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}", word)
    assert text in error
    assert "--model.init_from" in error


def test_an_empty_checkpoint_is_not_a_new_training(discs, capsys):
    assert "'' is not a file" in refusal(capsys, "fit", "--ckpt_path=", f"--data.train={discs}")


def test_a_finished_training_says_so(copied, caplog):
    with caplog.at_level("INFO", logger="keypoint_detection"):
        run(["fit", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}"])
    assert "This run is finished (4 epochs, 12 steps)" in caplog.text


@pytest.mark.parametrize("option", ["--data.image_size=[48, 64]", "--data.batch_size=5", "--seed_everything=7"])
def test_a_finished_training_keeps_its_config(copied, option, capsys):
    before = (copied / "config.yaml").read_text()
    error = refusal(capsys, "fit", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}", option)
    assert option[2:].partition("=")[0] in error
    assert "larger --trainer.max_epochs" in error
    assert (copied / "config.yaml").read_text() == before


def test_the_limit_that_a_training_reached_is_named(discs, caplog):
    fit(discs, "--trainer.max_epochs=-1", "--trainer.max_steps=3")
    (folder,) = Path("runs").iterdir()
    with caplog.at_level("INFO", logger="keypoint_detection"):
        run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])
    assert "a larger --trainer.max_steps resumes it" in caplog.text
    cli = run(["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_steps=5"])
    assert cli.trainer.global_step == 5


@pytest.mark.parametrize("given", [["--config", TINY], ["--trainer.logger=false", "--trainer.accelerator=cpu"]])
def test_a_checkpoint_alone_resumes_and_says_what_it_lacks(trained, tmp_path, given, caplog):
    shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "unmatched.ckpt")
    cli = run(["fit", "--ckpt_path=unmatched.ckpt", *given, "--trainer.max_epochs=5"])
    assert cli.trainer.global_step == 15
    assert len(list(Path("runs").iterdir())) == 1
    found = [record.getMessage() for record in caplog.records if "unmatched.ckpt is not in" in record.getMessage()]
    assert len(found) == (0 if "--config" in given else 1)
    assert all("give the config.yaml of its run with --config" in message for message in found)


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.max_steps=4"],
        ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=5"],
        ["--trainer.max_steps=4", "--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=3"],
    ],
)
def test_every_training_ends_measured(discs, words):
    cli = fit(discs, "--trainer.max_epochs=-1", *words)
    (folder,) = Path("runs").iterdir()
    last = read(folder / "checkpoints" / "last.ckpt")
    assert last["validation"]["step"] == last["global_step"] == cli.trainer.global_step
    assert json.loads((folder / "metrics.json").read_text())["n_images"] == 12


def test_a_training_without_validation_has_no_best(discs, capsys):
    fit(discs, "--trainer.limit_val_batches=0")
    out = capsys.readouterr().out
    assert "No validation took place" in out
    assert "Best checkpoint" not in out
    assert "Last checkpoint" in out


def test_a_trial_run_leaves_no_folder(discs):
    fit(discs, "--trainer.fast_dev_run=true")
    assert not Path("runs").exists()
    assert not Path("overlays").exists()


def test_a_start_that_fails_leaves_no_folder(discs):
    with pytest.raises(Exception, match="unreachable"):
        fit(discs, "--trainer.callbacks+=conftest.Unreachable")
    assert not any(Path("runs").iterdir())


def test_a_training_without_a_length_takes_a_number_of_steps_and_says_so(discs, caplog):
    Path("short.yaml").write_text(Path(TINY).read_text().replace("  max_epochs: 1\n", "  limit_train_batches: 1\n"))
    with caplog.at_level("INFO", logger="keypoint_detection"):
        words = ["--config=short.yaml", f"--data.train={discs}", "--trainer.max_time=00:00:00:00"]
        run(["fit", *words])
        assert "Training for" not in caplog.text


def test_validating_measures_on_the_images_that_were_kept_aside(discs, tmp_path):
    words = ["--data.split_seed=7", "--data.val_fraction=0.4"]
    run(["fit", "--config", TINY, f"--data.train={discs}", *words])
    (checkpoint,) = Path("runs").glob("*/checkpoints/best.ckpt")
    cli = run(["validate", f"--ckpt_path={checkpoint}", f"--data.train={discs}", "--data.num_workers=0"])
    assert (cli.datamodule.split_seed, cli.datamodule.val_fraction) == (7, 0.4)
    assert cli.model.report.n_images == 5


def test_validating_on_a_part_of_the_training_images_is_refused(copied, discs, capsys):
    error = refusal(capsys, "validate", f"--ckpt_path={copied / 'checkpoints' / 'best.ckpt'}", f"--data.train={discs}")
    assert "held out nothing" in error
    assert "--data.val=" in error


def test_measuring_with_another_network_is_refused(copied, discs, capsys):
    checkpoint = f"--ckpt_path={copied / 'checkpoints' / 'best.ckpt'}"
    for word in ("--model.backbone.n_channels=8", "--model.channels=[red]"):
        assert "do not fit" in refusal(capsys, "test", checkpoint, f"--data.test={discs}", word)


@pytest.fixture(scope="module")
def fold(discs, tmp_path_factory):
    """The folder of a run that held out fold 1 of 3."""
    folder = tmp_path_factory.mktemp("fold")
    words = ["--data.n_folds=3", "--data.fold=1", f"--trainer.default_root_dir={folder}"]
    run(["fit", "--config", TINY, f"--data.train={discs}", *words])
    (run_folder,) = folder.iterdir()
    return run_folder


def test_validating_measures_the_fold_that_was_held_out(fold, discs):
    checkpoint = fold / "checkpoints" / "best.ckpt"
    cli = run(["validate", f"--ckpt_path={checkpoint}", f"--data.train={discs}", "--data.num_workers=0"])
    assert (cli.datamodule.n_folds, cli.datamodule.fold) == (3, 1)
    assert cli.model.report.n_images == 4
    (metrics,) = Path("runs").glob("*-validate/metrics.json")
    stored, again = (json.loads(path.read_text())["metrics"] for path in (fold / "metrics.json", metrics))
    assert len(stored) > 20
    assert {name for name in again if again[name] is None} == {name for name in stored if stored[name] is None}
    numbers = {name: value for name, value in stored.items() if value is not None}
    assert {name: again[name] for name in numbers} == pytest.approx(numbers, rel=1e-5)


def test_a_detector_of_a_fold_validates_on_another_file(fold, discs):
    checkpoint = fold / "checkpoints" / "best.ckpt"
    cli = run(["validate", f"--ckpt_path={checkpoint}", f"--data.val={discs}", "--data.num_workers=0"])
    assert cli.model.report.n_images == 12


def test_measuring_a_fold_on_its_training_images_is_refused(fold, discs, capsys):
    checkpoint = f"--ckpt_path={fold / 'checkpoints' / 'best.ckpt'}"
    error = refusal(capsys, "validate", checkpoint, f"--data.train={discs}", "--data.fold=2")
    assert "held out other images (data.fold is 2, it was 1)" in error
    assert "fold 1 of 3" in refusal(capsys, "test", checkpoint, f"--data.test={discs}")
    error = refusal(capsys, "fit", f"--ckpt_path={fold / 'checkpoints' / 'last.ckpt'}", "--data.fold=2")
    assert "data.fold is 2, the checkpoint has 1" in error


def test_a_minimum_length_out_of_reach_does_not_lose_the_last_steps(discs):
    fit(discs, "--trainer.max_steps=4", "--trainer.max_epochs=2", "--trainer.min_epochs=2")
    (last,) = Path("runs").glob("*/checkpoints/last.ckpt")
    assert read(last)["global_step"] == 4
    assert read(last)["validation"]["step"] == 4


class CountValidations(Callback):
    """Count the validations of a training."""

    counted = 0

    def on_validation_end(self, trainer, pl_module):
        CountValidations.counted += not trainer.sanity_checking


def test_a_longer_training_with_the_settings_of_a_run_validates_as_often_as_any(discs):
    steps = ["--trainer.max_epochs=null", "--trainer.max_steps=50"]
    fit(discs, "--trainer.max_epochs=null", "--trainer.max_steps=2")
    (config,) = Path("runs").glob("*/config.yaml")
    trainer = yaml.safe_load(config.read_text())["trainer"]
    assert (trainer["val_check_interval"], trainer["check_val_every_n_epoch"]) == (None, 1)
    for words in (["--config", str(config)], [f"--ckpt_path={config.parent / 'checkpoints' / 'last.ckpt'}"]):
        CountValidations.counted = 0
        run(["fit", *words, *steps, f"--trainer.callbacks+={__name__}.CountValidations"])
        assert 4 <= CountValidations.counted <= 5  # one every ten steps


def test_a_run_resumed_in_another_folder_is_told_where_its_files_are(discs, tmp_path, monkeypatch, capsys):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copytree(discs.parent, tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    run(["fit", "--config", TINY, f"--data.train=data/{discs.name}"])
    (last,) = Path("runs").glob("*/checkpoints/last.ckpt")
    last = last.resolve()
    monkeypatch.chdir(tmp_path / "there")
    error = refusal(capsys, "fit", f"--ckpt_path={last}", "--trainer.max_epochs=2")
    assert f"data/{discs.name}: no such file. The run {last.parents[1]} was started in a folder that has it" in error
    run(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=2", f"--data.train={discs}"])
    assert read(last)["global_step"] > 3


def split_objects(discs, folder):
    """Write the same discs with two objects in an image: the red and the left one, and the right one."""
    content = json.loads(Path(discs).read_text())
    several = []
    for number, one in enumerate(content["annotations"]):
        points = one["keypoints"]
        several += [{**one, "id": 2 * number, "keypoints": [*points[:6], 0, 0, 0]}]
        several += [{**one, "id": 2 * number + 1, "keypoints": [0] * 6 + points[6:]}]
    path = folder / "several.json"
    path.write_text(json.dumps({**content, "annotations": several}))
    return path


def test_a_run_of_a_version_that_did_not_group_points_is_resumed_without(discs, tmp_path, capsys):
    several = split_objects(discs, tmp_path)
    words = [f"--data.image_root={Path(discs).parent}", "--model.group=false"]
    fit(several, *words, "--trainer.default_root_dir=old")
    (folder,) = Path("old").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["model"]["group"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = folder / "checkpoints" / "last.ckpt"
    content = read(path)
    del content["hyper_parameters"]["group"]
    torch.save({**content, "kpd_format": 1}, path)
    assert run(["fit", f"--ckpt_path={path}", "--trainer.max_epochs=2"]).model.vote_codec is None
    error = refusal(capsys, "fit", f"--ckpt_path={path}", "--trainer.max_epochs=3", "--model.group=true")
    assert "model.group is True, the checkpoint has False" in error
