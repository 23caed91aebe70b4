"""The LightningCLI of `kpd fit`, `validate`, `test`, `predict`: where it differs from Lightning's, and why."""

import inspect
import logging
import numbers
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning_utilities.core.enums import StrEnum

from keypoint_detection.checkpoints.files import CONFIG_FILE
from keypoint_detection.checkpoints.specifications import describe_factory
from keypoint_detection.checkpoints.trust import current_trust, explain_refusal
from keypoint_detection.commands.terminal import leave_with_unreadable
from keypoint_detection.commands.training_help import describe_command, show_help
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector, check_precision
from keypoint_detection.lightning_internals import (
    KeepsCheckpointSettings,
    brings_checkpoint_io,
    command_parsers,
)
from keypoint_detection.parsing.arguments import (
    ENVIRONMENT_PREFIX,
    find_checkpoint_path,
    find_class_names,
    find_configs,
    find_texts,
    find_unknown_keys,
    gives_config,
    prepare_words,
    refuse_broken_configs,
    variables_as_words,
)
from keypoint_detection.parsing.errors import ShortErrors
from keypoint_detection.parsing.internals import list_option_strings
from keypoint_detection.printing import first_line
from keypoint_detection.reporting.calibrated_copy import CalibratedCopy
from keypoint_detection.reporting.epoch_progress_bar import EpochProgressBar
from keypoint_detection.reporting.held_out_predictions import HeldOutPredictions
from keypoint_detection.reporting.html_report import HtmlReport
from keypoint_detection.reporting.logged_overlays import PredictionOverlays
from keypoint_detection.reporting.model_artifact import ModelArtifact
from keypoint_detection.reporting.prediction_writer import PredictionWriter
from keypoint_detection.reporting.progress_lines import ProgressLines
from keypoint_detection.reporting.result_table import ResultTable
from keypoint_detection.reporting.silent_channels import SilentChannels
from keypoint_detection.reporting.wandb_run import WandbRun
from keypoint_detection.reporting.worst_images import WorstImages
from keypoint_detection.tracking.account import finish_wandb, prepare_wandb
from keypoint_detection.training.budget import check_batches, choose_validations, fill_in_budget
from keypoint_detection.training.checkpointing import BestCheckpoint, LastCheckpoint, WholeFiles
from keypoint_detection.training.exact_resume import ExactResume
from keypoint_detection.training.final_validation import FinalValidation
from keypoint_detection.training.graceful_stop import GracefulStop
from keypoint_detection.training.health import TrainingHealth
from keypoint_detection.training.idle_settings import check_idle_settings
from keypoint_detection.training.label_defaults import fill_in_channels, fill_in_max_keypoints
from keypoint_detection.training.label_warnings import warn_of_crowded_images, warn_of_labels
from keypoint_detection.training.monitors import check_monitors, fill_in_monitors
from keypoint_detection.training.restoring import explain_failed_restoring
from keypoint_detection.training.resuming import Stored, compare, read_stored
from keypoint_detection.training.run_folder import SavedRun

# What jsonargparse cannot write to a config file by itself: a parameter of torchvision's transforms, and defaults of
# Lightning's callbacks StochasticWeightAveraging and Timer.
register_type(numbers.Number, serializer=lambda value: value, deserializer=lambda value: _as_number(value))
register_type(torch.device)
yaml.SafeDumper.add_multi_representer(StrEnum, lambda dumper, word: dumper.represent_str(str(word.value)))

logger = logging.getLogger(__name__)

DEFAULT_CALLBACKS: list[dict[str, Any]] = [
    {"class_path": "keypoint_detection.training.checkpointing.BestCheckpoint"},
    {"class_path": "keypoint_detection.reporting.logged_overlays.PredictionOverlays"},
    {"class_path": "keypoint_detection.reporting.result_table.ResultTable"},
    {"class_path": "keypoint_detection.reporting.html_report.HtmlReport"},
]

# What `callbacks` can name without its module: short names refer to imported classes.
CALLBACKS = (BestCheckpoint, HtmlReport, ModelArtifact, PredictionOverlays, ResultTable, WorstImages)

# Seeds have 32 bits.
SEED_LIMIT = 2**32

DEFAULT_LOGGER = {
    "class_path": "lightning.pytorch.loggers.WandbLogger",
    "init_args": {"project": "keypoint-detection"},
}


class DetectorCLI(KeepsCheckpointSettings, LightningCLI):
    """The command line of the detector; `run` starts it."""

    # The checkpoint that a training resumes, or that is measured.
    stored: Stored | None = None
    # The texts that the user wrote, each after its option.
    given: Collection[tuple[str, str]] = ()

    def __init__(self, words: Sequence[str], stop: GracefulStop) -> None:
        self.command = words[0]
        super().__init__(
            KeypointDetector,
            KeypointsDataModule,
            args=list(words),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=_DetectorParser,
            parser_kwargs={
                "prog": "kpd",
                "description": "Train and measure keypoint detectors.",
                "default_env": True,
                "env_prefix": ENVIRONMENT_PREFIX,
            },
            save_config_callback=SavedRun,
            save_config_kwargs={"save_to_log_dir": False},
            # These callbacks are present whatever the user's own list contains.
            trainer_defaults={
                "logger": DEFAULT_LOGGER,
                # Lightning's own table shows FLOPs that it does not know and modes that users do not need.
                "enable_model_summary": False,
                "callbacks": [
                    WandbRun(),
                    TrainingHealth(),
                    SilentChannels(),
                    ExactResume(),
                    stop,
                    FinalValidation(),
                    CalibratedCopy(),
                    ProgressLines(),
                    HeldOutPredictions(),
                    LastCheckpoint(),
                ],
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the command, and those arguments of the Trainer's method that are not options.

        Parsers of the other commands, which nobody would use, take a second to make.
        """
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Set channels once, on the model, and show the default callbacks like any other setting."""
        parser.link_arguments("model.channels", "data.channels", apply_on="instantiate")
        # jsonargparse knows how to name a class that is a default, and not one with arguments.
        optimizer = describe_factory(inspect.signature(KeypointDetector).parameters["optimizer"].default)
        parser.set_defaults({"trainer.callbacks": DEFAULT_CALLBACKS, "model.optimizer": optimizer})

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """By default log only when training, and never unpickle code from a checkpoint."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        parser = command_parsers(self)[self.command]
        parser.set_defaults({"weights_only": True})
        if self.command != "fit":
            parser.set_defaults({"trainer.logger": False})
        if self.command in ("validate", "test"):
            # The result table replaces Lightning's own list of every number.
            parser.set_defaults({"verbose": False})
        if self.command == "predict":
            parser.add_lightning_class_args(PredictionWriter, "output")
            # Predictions already written need not be kept in memory.
            parser.set_defaults({"return_predictions": False})
        describe_command(parser, self.command)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; the settings of a checkpoint rank below everything that the user sets."""
        assert isinstance(args, list)
        command, *typed = args
        if command == "predict":
            typed = [f"--output.{word[2:]}" if word.startswith("--resume=") else word for word in typed]
            typed = ["--output.resume=true" if word == "--resume" else word for word in typed]
        subparser = command_parsers(self)[command]
        show_help(subparser, command, typed)
        options = set(list_option_strings(subparser))
        words = [
            *variables_as_words(command, options, os.environ),
            *prepare_words(typed),
        ]
        try:
            refuse_broken_configs(words)
        except ValueError as error:
            subparser.error(str(error))
        if unknown := find_unknown_keys(words, options):
            subparser.error("\n".join(unknown))
        current_trust().names.update(find_class_names(words, os.environ))
        self.given = {*find_texts(words, os.environ)}
        reference = find_checkpoint_path(words)
        if reference is None:
            reference = os.environ.get(f"{ENVIRONMENT_PREFIX}_{command}__CKPT_PATH".upper())
        if command != "fit" and reference is None and not _asks_for_help(words):
            subparser.error(
                f"`kpd {command}` needs a trained detector: give --ckpt_path=FILE.ckpt, e.g. "
                "runs/…/checkpoints/best.ckpt. Without one, it would measure random weights."
            )
        if reference is not None:
            try:
                self.stored = read_stored(command, reference, lambda config: _is_given(config, words))
                self.stored.refuse_unknown(options)
                subparser.set_defaults(self.stored.settings)
            except ValueError as error:
                subparser.error(f"--ckpt_path: {error}")
        self.config = parser.parse_args([command, *words])
        seed = self.config[command].get("seed_everything")
        if not (seed is None or (isinstance(seed, int) and 0 <= seed < SEED_LIMIT)):
            subparser.error(f"seed_everything is {seed!r}; a whole number from 0 to {SEED_LIMIT - 1} is expected.")
        if self.stored is not None:
            self.config[command].ckpt_path = self.stored.path
            if command == "fit" and self.stored.run is None and not gives_config(words):
                logger.warning(
                    "%s is not in the checkpoints/ folder of a run with its %s: settings not given here, such as "
                    "seed, length or logger, take their defaults, and the run gets a new folder. To resume as before, "
                    "give the %s of its run with --config.",
                    *(self.stored.path, CONFIG_FILE, CONFIG_FILE),
                )

    def before_instantiate_classes(self) -> None:
        """Fill in what was left out, and report where the user overrides the checkpoint."""
        config = self.config[self.subcommand]
        try:
            if self.stored is not None:
                compare(self.stored, self.command, config, self.given)
            fill_in_channels(config.model, config.data)
            if self.command == "fit":
                fill_in_budget(config.trainer)
                fill_in_monitors(config.trainer)
                fill_in_max_keypoints(config.model, config.data)
        except ValueError as error:
            self._refuse(error)

    def instantiate_classes(self) -> None:
        """Create trainer, model and data, and read the data's files, to report errors in them before training."""
        try:
            super().instantiate_classes()
            check_precision(str(self.trainer.precision))
            if self.subcommand == "fit":
                check_monitors(self.trainer, self.model)
                check_idle_settings(self.trainer, self.model)
            self._check_data(self.datamodule)
            if self.subcommand == "fit" and self.stored is None:
                self.model.initialise()
        except (ValueError, FileExistsError, MisconfigurationException) as error:
            self._refuse(error)
        prepare_wandb(self.trainer.loggers)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the trainer, with the progress bar, and without callbacks that keep checkpoints if switched off."""
        trainer = self.config_init[self.subcommand].trainer
        own = [trainer.callbacks] if isinstance(trainer.callbacks, Callback) else list(trainer.callbacks or [])
        always = list(self.trainer_defaults["callbacks"])
        if trainer.enable_progress_bar is not False and not any(isinstance(one, ProgressBar) for one in own):
            always.append(EpochProgressBar())
        if trainer.enable_checkpointing is False:
            own, always = ([one for one in group if not isinstance(one, Checkpoint)] for group in (own, always))
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": always}
        validations = choose_validations(trainer) if self.subcommand == "fit" else {}
        plugins = _with_whole_files(trainer)
        try:
            made = super().instantiate_trainer(**{**kwargs, **validations, "callbacks": own, "plugins": plugins})
        except (TypeError, RuntimeError, LookupError, AttributeError) as error:  # of values that it does not check
            reason = first_line(error)
            raise MisconfigurationException(f"the settings of the trainer cannot be used: {reason}") from error
        explain_failed_restoring(made, _explain_failed_restoring)
        return made

    def _check_data(self, data: KeypointsDataModule) -> None:
        data.prepare_data()
        data.setup(str(self.subcommand))
        self.model.take_flip_pairs(data.flip_pairs)
        if self.subcommand == "predict":
            return
        self.model.network.check_size(data.first_size())
        if self.subcommand == "fit":
            self.model.network.check_backbone()
            n_train, n_val = (len(data.parts.get(name, ())) for name in ("train", "val"))
            check_batches(self.trainer, n_train, n_val, data.batch_size)
            warn_of_labels(data, self.model)
        warn_of_crowded_images(data, self.model)

    def after_fit(self) -> None:
        """Show the result when all else has been said."""
        self._show_result()

    def after_validate(self) -> None:
        """Show the result when all else has been said."""
        self._show_result()

    def after_test(self) -> None:
        """Show the result when all else has been said."""
        self._show_result()

    def after_predict(self) -> None:
        """List what could not be read, and let the exit code say so."""
        writer = next(one for one in self.trainer.callbacks if isinstance(one, PredictionWriter))  # type: ignore[attr-defined]
        if writer.unread.reasons:
            leave_with_unreadable("kpd predict", *writer.unread)

    def _show_result(self) -> None:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        finish_wandb(next(one.exit_code for one in callbacks if isinstance(one, GracefulStop)))
        for callback in callbacks:
            if isinstance(callback, ResultTable):
                callback.print_result()

    def _refuse(self, error: Exception) -> NoReturn:
        parser: ShortErrors = command_parsers(self)[str(self.subcommand)]
        parser.error(str(error), error)


def _is_given(config: Path, words: Sequence[str]) -> bool:
    """Whether the user names a config as one of their own."""
    return os.path.realpath(config) in {os.path.realpath(one.source) for one in find_configs(words).values()}


def _explain_failed_restoring(problem: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"--ckpt_path: the state of the training in the checkpoint is damaged ({problem}). Start a new training from "
        "its weights: --model.init_from=FILE.ckpt instead of --ckpt_path."
    )


def _with_whole_files(trainer: Namespace) -> list[Any]:
    """List the plugins of the user, and one that writes whole files unless the user has one that writes them."""
    given = trainer.plugins
    plugins = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    is_written = brings_checkpoint_io(trainer.strategy) or any(isinstance(one, CheckpointIO) for one in plugins)
    return plugins if is_written else [*plugins, WholeFiles()]


class _DetectorParser(ShortErrors, LightningArgumentParser):
    """The parser of `fit`, `validate`, `test` and `predict`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what a stored setting may not name, rather than how the parser failed for lack of it."""
        refused = current_trust().refused if self.exit_on_error else []
        super().error(f"--ckpt_path: {explain_refusal(refused[0])}" if refused else message, ex)


def _as_number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return value


def _asks_for_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") or word.startswith("--print_config") or ".help" in word for word in words)
