"""The LightningCLI of `kpd fit`, `validate`, `test`, `predict`: where it differs from Lightning's, and why."""

import inspect
import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning_utilities.core.enums import StrEnum

from keypoint_detection.checkpoints.specifications import describe_factory
from keypoint_detection.checkpoints.trust import current_trust, explain_refusal
from keypoint_detection.commands.terminal import leave_with_unreadable
from keypoint_detection.commands.training_callbacks import (
    DEFAULT_CALLBACKS,
    DEFAULT_LOGGER,
    complete_callbacks,
    complete_plugins,
    list_constant_callbacks,
)
from keypoint_detection.commands.training_help import describe_command, show_help
from keypoint_detection.commands.training_words import RESUME, Request, read_request, warn_of_lost_settings
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector, check_precision
from keypoint_detection.lightning_internals import KeepsCheckpointSettings, command_parsers
from keypoint_detection.parsing.arguments import ENVIRONMENT_PREFIX
from keypoint_detection.parsing.errors import ShortErrors
from keypoint_detection.parsing.internals import let_stand_alone
from keypoint_detection.printing import first_line
from keypoint_detection.reporting.prediction_writer import PredictionWriter
from keypoint_detection.reporting.result_table import ResultTable
from keypoint_detection.tracking.account import finish_wandb, prepare_wandb
from keypoint_detection.training.budget import check_batches, choose_validations, fill_in_budget
from keypoint_detection.training.graceful_stop import GracefulStop
from keypoint_detection.training.idle_settings import check_idle_settings
from keypoint_detection.training.label_defaults import fill_in_channels, fill_in_group, fill_in_max_keypoints
from keypoint_detection.training.label_warnings import warn_of_crowded_images, warn_of_labels
from keypoint_detection.training.monitors import check_monitors, fill_in_monitors
from keypoint_detection.training.restoring import explain_failed_restoring
from keypoint_detection.training.resuming import compare
from keypoint_detection.training.run_folder import SavedRun

# Values that jsonargparse cannot write to a config file itself: a parameter of torchvision's transforms, and defaults
# of Lightning's callbacks StochasticWeightAveraging and Timer.
register_type(numbers.Number, serializer=lambda value: value, deserializer=lambda value: _as_number(value))
register_type(torch.device)
yaml.SafeDumper.add_multi_representer(StrEnum, lambda dumper, word: dumper.represent_str(str(word.value)))

# Seeds have 32 bits.
SEED_LIMIT = 2**32


class DetectorCLI(KeepsCheckpointSettings, LightningCLI):
    """The command line of the detector; `run` starts it.

    What it overrides, in the order in which Lightning calls it:

    - `subcommands`: only the parser of the running command is made, which saves a second.
    - `add_arguments_to_parser`, `setup_parser`: the defaults of this package, links, and the options of `kpd predict`.
    - `parse_arguments`: the user's arguments rank above the settings of a checkpoint, and these above the defaults.
    - `before_instantiate_classes`: what can be derived from the labels need not be set.
    - `instantiate_classes`, `instantiate_trainer`: errors in settings and data are found before anything is trained.
    - `after_fit` and so on: results and what could not be read are shown last.
    """

    request: Request

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
            trainer_defaults={
                "logger": DEFAULT_LOGGER,
                # Lightning's own table shows FLOPs that it cannot count and modes that users do not need.
                "enable_model_summary": False,
                "callbacks": list_constant_callbacks(stop),
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the command, and the arguments of the Trainer's method that are not options.

        Making the parsers of the other commands, which would go unused, takes a second.
        """
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Set channels once, on the model, and show the default callbacks like any other setting."""
        parser.link_arguments("model.channels", "data.channels", apply_on="instantiate")
        # jsonargparse can name a class that is a default, but not one with arguments.
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
            let_stand_alone(parser, "--output.resume", RESUME)
            # Predictions that have been written need not be kept in memory.
            parser.set_defaults({"return_predictions": False})
        describe_command(parser, self.command)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; the settings of a checkpoint rank below everything that the user sets."""
        assert isinstance(args, list)
        command, *typed = args
        subparser = command_parsers(self)[command]
        show_help(subparser, command, typed)
        self.request = read_request(subparser, command, typed)
        self.config = parser.parse_args([command, *self.request.words])
        seed = self.config[command].get("seed_everything")
        if not (seed is None or (isinstance(seed, int) and 0 <= seed < SEED_LIMIT)):
            subparser.error(f"seed_everything is {seed!r}; a whole number from 0 to {SEED_LIMIT - 1} is expected.")
        if self.request.stored is not None:
            self.config[command].ckpt_path = self.request.stored.path
            if command == "fit":
                warn_of_lost_settings(self.request.stored, self.request.words)

    def before_instantiate_classes(self) -> None:
        """Fill in what was left out, and report where the user overrides the checkpoint."""
        config = self.config[self.subcommand]
        try:
            if self.request.stored is not None:
                compare(self.request.stored, self.command, config, self.request.texts)
            fill_in_channels(config.model, config.data)
            if self.command == "fit":
                fill_in_budget(config.trainer)
                fill_in_monitors(config.trainer)
                fill_in_max_keypoints(config.model, config.data)
                fill_in_group(config.model, config.data)
        except ValueError as error:
            self._refuse(error)

    def instantiate_classes(self) -> None:
        """Create trainer, model and data module, and read the data files, to report errors before training."""
        try:
            super().instantiate_classes()
            check_precision(str(self.trainer.precision))
            if self.subcommand == "fit":
                check_monitors(self.trainer, self.model)
                check_idle_settings(self.trainer, self.model)
            self._check_data(self.datamodule)
            if self.subcommand == "fit" and self.request.stored is None:
                self.model.initialise()
        except (ValueError, FileExistsError, MisconfigurationException) as error:
            self._refuse(error)
        prepare_wandb(self.trainer.loggers)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the trainer, with the progress bar, and without checkpoint callbacks if they are switched off."""
        trainer = self.config_init[self.subcommand].trainer
        own, always = complete_callbacks(trainer, self.trainer_defaults["callbacks"])
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": always}
        validations = choose_validations(trainer) if self.subcommand == "fit" else {}
        plugins = complete_plugins(trainer)
        try:
            made = super().instantiate_trainer(**{**kwargs, **validations, "callbacks": own, "plugins": plugins})
        # Values that the parser does not check.
        except (TypeError, RuntimeError, LookupError, AttributeError) as error:
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
        """Show the result after everything else."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        finish_wandb(next(one.exit_code for one in callbacks if isinstance(one, GracefulStop)))
        for callback in callbacks:
            if isinstance(callback, ResultTable):
                callback.print_result()

    after_validate = after_test = after_fit

    def after_predict(self) -> None:
        """List what could not be read, and set the exit code accordingly."""
        writer = next(one for one in self.trainer.callbacks if isinstance(one, PredictionWriter))  # type: ignore[attr-defined]
        if writer.unread.reasons:
            leave_with_unreadable("kpd predict", *writer.unread)

    def _refuse(self, error: Exception) -> NoReturn:
        parser: ShortErrors = command_parsers(self)[str(self.subcommand)]
        parser.error(str(error), error)


def _explain_failed_restoring(problem: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"--ckpt_path: the training state in the checkpoint is damaged ({problem}). Start a new training from its "
        "weights: --model.init_from=FILE.ckpt instead of --ckpt_path."
    )


class _DetectorParser(ShortErrors, LightningArgumentParser):
    """The parser of `fit`, `validate`, `test` and `predict`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report the name that a stored setting may not use, rather than how the parser failed without it."""
        refused = current_trust().refused if self.exit_on_error else []
        super().error(f"--ckpt_path: {explain_refusal(refused[0])}" if refused else message, ex)


def _as_number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return value
