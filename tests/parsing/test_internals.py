"""What the package assumes of the insides of jsonargparse and Lightning; a new version of either may break it."""

import pytest
from jsonargparse import ArgumentParser
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from keypoint_detection.parsing.internals import (
    KeepsCheckpointSettings,
    cluster_environment,
    command_parsers,
    drop_arguments_of_old_classes,
    list_option_strings,
)


class Old:
    def __init__(self, shared: int = 1):
        self.shared = shared


class Both(Old):
    def __init__(self, shared: int = 1, own: int = 2):
        super().__init__(shared)


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


def test_options_of_commands_are_listed():
    child = ArgumentParser()
    child.add_argument("--inner")
    parser = ArgumentParser()
    parser.add_argument("--outer")
    parser.add_subcommands().add_subcommand("child", child)
    assert {"--outer", "--inner"} <= set(list_option_strings(parser))


@pytest.mark.filterwarnings("ignore")
def test_a_new_class_does_not_inherit_the_arguments_of_the_old_one():
    drop_arguments_of_old_classes()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Old, "thing")
    words = ["--thing", f"{__name__}.Old", "--thing.shared=5", "--thing", f"{__name__}.Both"]
    parsed = parser.parse_args(words)
    thing = parser.instantiate_classes(parsed).thing
    assert (type(thing).__name__, thing.shared) == ("Both", 1)
