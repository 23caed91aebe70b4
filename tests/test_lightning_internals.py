"""What the package assumes of the insides of Lightning; a new version may break it."""

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.loggers import CSVLogger

from keypoint_detection.lightning_internals import (
    DescribesEpochs,
    KeepsCheckpointSettings,
    cluster_environment,
    command_parsers,
    find_position,
    has_settings_of_config,
    log_hyperparameters,
    rebuild_from_settings,
    trained_so_far,
)


class _CLI(LightningCLI):
    def parse_arguments(self, parser, args):
        self.seen = command_parsers(self)
        super().parse_arguments(parser, args)


def make_cli(words, cls=_CLI):
    return cls(BoringModel, BoringDataModule, run=True, args=words, save_config_callback=None)


def test_lightning_keeps_a_parser_for_each_command():
    trainer = ["--trainer.fast_dev_run=true", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = make_cli(["validate", *trainer])
    assert {"fit", "validate", "test", "predict"} <= set(cli.seen)
    assert isinstance(cli.seen["fit"], ArgumentParser)


def test_lightning_would_let_a_checkpoint_override_what_the_user_says():
    assert callable(LightningCLI._parse_ckpt_path)
    mro = type("CLI", (KeepsCheckpointSettings, LightningCLI), {}).__mro__
    assert next(cls for cls in mro if "_parse_ckpt_path" in vars(cls)) is KeepsCheckpointSettings


def test_a_trainer_knows_its_cluster():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert isinstance(cluster_environment(trainer), LightningEnvironment)


def test_a_progress_bar_asks_for_the_description_of_an_epoch():
    assert callable(RichProgressBar._get_train_description)

    class Bar(DescribesEpochs, RichProgressBar):
        def describe_epoch(self, epoch):
            return f"number {epoch}"

    assert Bar()._get_train_description(3) == "number 3"


class Sized(BoringModel):
    def __init__(self, size: int = 1):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.has_settings_of_config = has_settings_of_config(self)


def test_a_module_knows_whether_the_command_line_made_it():
    assert not Sized(2).has_settings_of_config
    words = ["--model.size=3", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = LightningCLI(Sized, run=False, args=words, save_config_callback=None)
    assert cli.model.hparams.size == 3
    assert cli.model.has_settings_of_config


class Part:
    def __init__(self, size: int = 1):
        self.size = size


class Holding(BoringModel):
    def __init__(self, part: Part):
        super().__init__()
        self.part = part
        self.save_hyperparameters(logger=False)
        self.hparams["part"] = {"class_path": f"{__name__}.Part", "init_args": {"size": 5}}
        rebuild_from_settings(self)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_a_model_from_python_is_read_like_a_config(tmp_path):
    trainer = make_trainer(tmp_path, logger=False, max_steps=1)
    trainer.fit(Holding(Part(size=5)))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    part = Holding.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).part
    assert (type(part).__name__, part.size) == ("Part", 5)


class Logged(CSVLogger):
    settings = None

    def log_hyperparams(self, params):
        self.settings = dict(params)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("is_logged", "expected"), [(True, {"size": 2}), (False, None)])
def test_loggers_get_hyperparameters_that_were_saved_without_them(tmp_path, is_logged, expected):
    model = Sized(2)
    if is_logged:
        log_hyperparameters(model)
    logger = Logged(tmp_path)
    make_trainer(tmp_path, logger=logger, max_steps=1).fit(model)
    assert logger.settings == expected


class Watch(Callback):
    """Notes after each batch, at each validation and at the end of the training what a checkpoint would say."""

    def __init__(self, path):
        self.path = path
        self.seen = []

    def note(self, trainer):
        trainer.save_checkpoint(self.path)
        checkpoint = torch.load(self.path, weights_only=True)
        self.seen.append((*trained_so_far(checkpoint), *find_position(trainer)))

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.note(trainer)

    def on_validation_end(self, trainer, model):
        self.note(trainer)

    def on_fit_end(self, trainer, model):
        self.note(trainer)


def make_trainer(folder, **options):
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
def test_a_training_says_how_far_it_has_come(tmp_path):
    watch = Watch(tmp_path / "a.ckpt")
    options = {"max_epochs": 2, "limit_train_batches": 3, "accumulate_grad_batches": 2}
    make_trainer(tmp_path, callbacks=[watch], logger=False, **options).fit(BoringModel())
    # Finished epochs, steps of the optimiser (after two batches, and after the last one), epoch, batches behind it.
    first = [(0, 0, 0, 1), (0, 1, 0, 2), (1, 2, 1, 0), (1, 2, 1, 0)]
    second = [(1, 2, 1, 1), (1, 3, 1, 2), (2, 4, 2, 0), (2, 4, 2, 0)]
    assert watch.seen == [*first, *second, (2, 4, 2, 0)]
