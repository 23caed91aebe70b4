"""LightningCLI for `kpd fit`, `validate` and `test`: the typed signatures of model and data are the command line."""

import json
import logging
import numbers
import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from keypoint_detection.callbacks.overlays import PredictionOverlays
from keypoint_detection.callbacks.result_table import ResultTable
from keypoint_detection.callbacks.run_folder import RunFolder
from keypoint_detection.callbacks.worst_pictures import WorstPictures
from keypoint_detection.data.coco import DataError, read_coco
from keypoint_detection.data.datamodule import KeypointsDataModule, find_files
from keypoint_detection.models import backbones
from keypoint_detection.models.backbones import Backbone
from keypoint_detection.models.detector import KeypointDetector
from keypoint_detection.parsing import DetectorParser, environment, order_arguments

__all__ = ["DetectorCLI", "run_detector_cli"]

# torchvision's transforms annotate their parameters with this class, which jsonargparse cannot write to a config file.
register_type(numbers.Number, serializer=lambda value: value, deserializer=lambda value: _as_number(value))

logger = logging.getLogger(__name__)

# Of the data settings that a checkpoint carries, those that say what the network gets to see: a test repeats them.
CARRIED_DATA_SETTINGS = ("image_size", "resize", "coordinates", "visible_only")

DEFAULT_CALLBACKS: list[dict[str, Any]] = [
    {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "monitor": "val/mAP",
            "mode": "max",
            "filename": "best",
            "save_last": True,
            "enable_version_counter": False,
        },
    },
    {"class_path": "keypoint_detection.callbacks.overlays.PredictionOverlays"},
    {"class_path": "keypoint_detection.callbacks.result_table.ResultTable"},
]

DEFAULT_LOGGER = {
    "class_path": "lightning.pytorch.loggers.WandbLogger",
    "init_args": {"project": "keypoint-detection"},
}


class DetectorCLI(LightningCLI):
    """The command line of the detector; `run_detector_cli` starts it."""

    checkpoint: dict[str, Any] | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the commands and the arguments of the Trainer's methods that they do not take."""
        fit, *others = LightningCLI.subcommands().items()
        return dict([fit, *(entry for entry in others if entry[0] in ("validate", "test"))])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Say channels once, on the model, and show the default callbacks as any other setting."""
        parser.link_arguments("model.channels", "data.channels", apply_on="instantiate")
        parser.set_defaults({"trainer.callbacks": DEFAULT_CALLBACKS})

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Log by default when training only, and never unpickle code from a checkpoint."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for name, parser in self._subcommand_parsers.items():
            parser.set_defaults({"weights_only": True})
            if name != "fit":
                # The result table takes the place of Lightning's own list of every number.
                parser.set_defaults({"trainer.logger": False, "verbose": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, the hyper-parameters of a checkpoint standing below everything that the user says."""
        assert isinstance(args, list)
        command = args[0]
        words = order_arguments(args, environment())
        path = _find_checkpoint_path(words)
        if command != "fit" and path is None and not _asks_for_help(words):
            parser.error(
                f"`kpd {command}` needs a trained detector: give --ckpt_path=FILE.ckpt, e.g. "
                "runs/…/checkpoints/best.ckpt. Without one it would measure random weights."
            )
        if path is not None:
            self.checkpoint = _read_checkpoint(path, parser)
            words[1:1] = _settings_of(self.checkpoint)
        self.config = parser.parse_args(words)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` has put the checkpoint's hyper-parameters in their place."""

    def before_instantiate_classes(self) -> None:
        """Fill in channels that were left out, and say where the user overrules the checkpoint."""
        config = self.config[self.subcommand]
        if self.checkpoint is not None:
            _report_overrides(self.checkpoint, config)
        if config.model.channels is None:
            config.model.channels = self._channels_of_file(config.data)

    def _channels_of_file(self, data: Namespace) -> list[str]:
        try:
            files = find_files(data.train, data.val, data.test, _instantiate_synthetic(data.synthetic))
            path = files.train or files.val or files.test
            if path is None:
                raise DataError(
                    "no training file: give --data.train=FILE.json (a COCO keypoint file), or data.synthetic."
                )
            return list(read_coco(path, data.image_root, data.coordinates).keypoint_types)
        except (DataError, FileExistsError) as error:
            self._refuse(error)

    def instantiate_classes(self) -> None:
        """Make trainer, model and data, and read the data's files: what is wrong with them is said before training."""
        try:
            super().instantiate_classes()
            self._check_data(self.datamodule)
        except (ValueError, FileExistsError, MisconfigurationException) as error:
            self._refuse(error)
        _go_offline_without_account(self.trainer.loggers)

    def _check_data(self, data: LightningDataModule) -> None:
        data.setup(str(self.subcommand))

    def _refuse(self, error: Exception) -> NoReturn:
        self._parser(self.subcommand).error(str(error))


def run_detector_cli(args: Sequence[str]) -> DetectorCLI:
    """Run `fit`, `validate` or `test`.

    Args:
        args: the command and its words.

    Raises:
        SystemExit: help was asked for (0), or the words or the data are wrong (2).
    """
    logging.getLogger("keypoint_detection").setLevel(logging.INFO)
    _silence_advice()
    return DetectorCLI(
        KeypointDetector,
        KeypointsDataModule,
        args=list(args),
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_class=_DetectorParser,
        parser_kwargs={"prog": "kpd", "description": "Train and measure keypoint detectors."},
        save_config_callback=RunFolder,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={"logger": DEFAULT_LOGGER},
    )


class _DetectorParser(DetectorParser):
    short_names: ClassVar[Mapping[str, Sequence[str]]] = {
        "backbone": [name for name in backbones.__all__ if name != Backbone.__name__],
        "callbacks": [callback.__name__ for callback in (PredictionOverlays, ResultTable, WorstPictures)],
    }


def _as_number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return value


def _asks_for_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") or word.startswith("--print_config") or ".help" in word for word in words)


def _find_checkpoint_path(words: Sequence[str]) -> str | None:
    """The last `ckpt_path` that flags or config files give."""
    path: str | None = None
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        if word in ("-c", "--config"):
            path = _checkpoint_of_config(following) or path
        elif word.startswith("--config="):
            path = _checkpoint_of_config(word.removeprefix("--config=")) or path
        elif word == "--ckpt_path":
            path = following
        elif word.startswith("--ckpt_path="):
            path = word.removeprefix("--ckpt_path=")
    return None if path in (None, "", "null") else path


def _checkpoint_of_config(path: str) -> str | None:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None  # the parser says what is wrong with the file
    value = content.get("ckpt_path") if isinstance(content, dict) else None
    return str(value) if value else None


def _read_checkpoint(path: str, parser: LightningArgumentParser) -> dict[str, Any]:
    """Read the hyper-parameters of a checkpoint, or refuse it."""
    if not Path(path).is_file():
        found = sorted(Path().glob("runs/*/checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
        newest = f" The newest here is {found[-1]}." if found else ""
        parser.error(f"--ckpt_path: {path!r} is no file; the path of a checkpoint is expected.{newest}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        parser.error(f"--ckpt_path: {path} cannot be read as a checkpoint ({str(error).splitlines()[0]}).")
    if not isinstance(content, dict) or "channels" not in content.get("hyper_parameters", {}):
        parser.error(
            f"--ckpt_path: {path} is no checkpoint of kpd: it holds no hyper-parameters of a KeypointDetector."
        )
    return content


def _settings_of(checkpoint: dict[str, Any]) -> list[str]:
    """The words that repeat a checkpoint's model and what its network saw of the pictures."""
    model = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
    data = checkpoint.get("datamodule_hyper_parameters", {})
    carried = {name: data[name] for name in CARRIED_DATA_SETTINGS if name in data}
    words = [f"--model={json.dumps(model)}"]
    return [*words, f"--data={json.dumps(carried)}"] if carried else words


def _report_overrides(checkpoint: dict[str, Any], config: Namespace) -> None:
    """Say which settings differ from the checkpoint's, because the user's win."""
    data = checkpoint.get("datamodule_hyper_parameters", {})
    carried = {f"data.{name}": data[name] for name in CARRIED_DATA_SETTINGS if name in data}
    stored = {
        f"model.{name}": value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")
    }
    for name, old in _flatten({**stored, **carried}).items():
        new = config.get(name)
        new = new.as_dict() if isinstance(new, Namespace) else new
        if _comparable(new) != _comparable(old):
            logger.info("%s: %s as given (the checkpoint has %s)", name, _comparable(new), old)


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Take class specifications apart, so that one changed parameter is reported alone."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and "class_path" in value:
            flat[f"{name}.class_path"] = value["class_path"]
            flat |= {f"{name}.init_args.{key}": entry for key, entry in (value.get("init_args") or {}).items()}
        else:
            flat[name] = value
    return flat


def _comparable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _instantiate_synthetic(options: Any) -> Any:
    from keypoint_detection.data.synthetic import SyntheticBoxes

    return SyntheticBoxes(**vars(options)) if isinstance(options, Namespace) else options


def _go_offline_without_account(loggers: Sequence[Any]) -> None:
    """Let Weights & Biases write to disk where no account is logged in, with one line on what to do, never a prompt."""
    if not any(isinstance(one, WandbLogger) for one in loggers) or os.environ.get("WANDB_MODE"):
        return
    import wandb

    if wandb.login(prompt=False, verify=False):  # type: ignore[attr-defined, unused-ignore]
        return
    wandb.setup(wandb.Settings(mode="offline"))
    logger.info(
        "Weights & Biases: no account is logged in, so this run is logged on disk. `wandb login` logs in, "
        "`wandb sync wandb/offline-run-…` uploads a run, `wandb leet` shows it in the terminal; "
        "--trainer.logger=false turns it off."
    )


def _silence_advice() -> None:
    """Hide warnings that users can do nothing about."""
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed from.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether Lightning says something about this run, rather than advertise or list hardware that is not there."""
    return not re.search(r"litlogger|available: False|Loading `\w+` to estimate", record.getMessage())
