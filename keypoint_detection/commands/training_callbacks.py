"""What training and measuring use besides the user's settings: callbacks, logger, plugins."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.plugins import CheckpointIO

from keypoint_detection.lightning_internals import brings_checkpoint_io
from keypoint_detection.reporting.calibrated_copy import CalibratedCopy
from keypoint_detection.reporting.epoch_progress_bar import EpochProgressBar
from keypoint_detection.reporting.held_out_predictions import HeldOutPredictions
from keypoint_detection.reporting.html_report import HtmlReport
from keypoint_detection.reporting.logged_overlays import PredictionOverlays
from keypoint_detection.reporting.model_artifact import ModelArtifact
from keypoint_detection.reporting.progress_lines import ProgressLines
from keypoint_detection.reporting.result_table import ResultTable
from keypoint_detection.reporting.silent_channels import SilentChannels
from keypoint_detection.reporting.wandb_run import WandbRun
from keypoint_detection.reporting.worst_images import WorstImages
from keypoint_detection.training.checkpointing import BestCheckpoint, LastCheckpoint, WholeFiles
from keypoint_detection.training.exact_resume import ExactResume
from keypoint_detection.training.final_validation import FinalValidation
from keypoint_detection.training.graceful_stop import GracefulStop
from keypoint_detection.training.health import TrainingHealth

DEFAULT_CALLBACKS: list[dict[str, Any]] = [
    {"class_path": "keypoint_detection.training.checkpointing.BestCheckpoint"},
    {"class_path": "keypoint_detection.reporting.logged_overlays.PredictionOverlays"},
    {"class_path": "keypoint_detection.reporting.result_table.ResultTable"},
    {"class_path": "keypoint_detection.reporting.html_report.HtmlReport"},
]

# Callbacks that `callbacks` can name without their module: short names refer to imported classes.
CALLBACKS = (BestCheckpoint, HtmlReport, ModelArtifact, PredictionOverlays, ResultTable, WorstImages)

DEFAULT_LOGGER = {
    "class_path": "lightning.pytorch.loggers.WandbLogger",
    "init_args": {"project": "keypoint-detection"},
}


def list_constant_callbacks(stop: GracefulStop) -> list[Callback]:
    """List the callbacks that are always present, whatever the user's own list contains.

    Args:
        stop: the callback that ends the run when a signal asks for it.
    """
    return [
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
    ]


def complete_callbacks(trainer: Namespace, constant: Sequence[Callback]) -> tuple[list[Callback], list[Callback]]:
    """Add the progress bar and leave out checkpoint callbacks, as the settings of the trainer ask.

    Args:
        trainer: its settings, with the user's callbacks.
        constant: the callbacks that are always present.

    Returns:
        The user's callbacks, and those that are always present.
    """
    own = [trainer.callbacks] if isinstance(trainer.callbacks, Callback) else list(trainer.callbacks or [])
    always = list(constant)
    if trainer.enable_progress_bar is not False and not any(isinstance(one, ProgressBar) for one in own):
        always.append(EpochProgressBar())
    if trainer.enable_checkpointing is False:
        own, always = ([one for one in group if not isinstance(one, Checkpoint)] for group in (own, always))
    return own, always


def complete_plugins(trainer: Namespace) -> list[Any]:
    """List the user's plugins, and one that writes files atomically unless the user's own write them."""
    given = trainer.plugins
    plugins = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    is_written = brings_checkpoint_io(trainer.strategy) or any(isinstance(one, CheckpointIO) for one in plugins)
    return plugins if is_written else [*plugins, WholeFiles()]
