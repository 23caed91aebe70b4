"""Check the metrics that callbacks and schedules watch: fill in missing ones, refuse unknown ones."""

import difflib
import logging
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from keypoint_detection.detector import KeypointDetector
from keypoint_detection.metrics.catalogue import find_better
from keypoint_detection.training.checkpointing import BestCheckpoint

logger = logging.getLogger(__name__)

MODEL_CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"
N_OFFERED = 3
# Maximum number of metrics listed if none has a similar name.
N_LISTED = 12
# Pixel errors are measured only on the points that were found.
ERROR_PREFIX = "val/error_px/"


def fill_in_monitors(trainer: Namespace) -> None:
    """Make callbacks that keep several checkpoints keep the best ones, unless the user sets otherwise.

    `--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.save_top_k=3` then keeps the three best.

    Args:
        trainer: the parsed settings of the Trainer; changed in place.
    """
    best = BestCheckpoint()
    for callback in trainer.callbacks or []:
        options = callback.get("init_args")
        is_timed = options and (options.get("every_n_train_steps") or options.get("train_time_interval"))
        if callback.class_path == MODEL_CHECKPOINT and options and options.monitor is None and not is_timed:
            options.monitor, options.mode = best.monitor, best.mode


def check_monitors(trainer: Trainer, model: KeypointDetector) -> None:
    """Refuse callbacks and schedules that watch a metric that is never logged, or that lack a logger they need.

    Raises:
        MisconfigurationException: with the nearest names.
    """
    names = model.logged_names()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LearningRateMonitor) and not trainer.loggers:
            raise MisconfigurationException(
                "LearningRateMonitor writes to a logger, but there is none: give e.g. --trainer.logger=CSVLogger, or "
                "leave the callback out."
            )
        if isinstance(callback, EarlyStopping | ModelCheckpoint):
            _check_monitor(type(callback).__name__, callback.monitor, names)
            _check_mode(type(callback).__name__, callback.monitor, callback.mode)
            if callback.monitor is not None and callback.monitor.startswith(ERROR_PREFIX):
                logger.warning(
                    "%s watches %s, which leaves out points that are not found: a detector that finds few may be "
                    "judged the best. val/mAP counts them.",
                    *(type(callback).__name__, callback.monitor),
                )
    specification = model.hparams.get("lr_scheduler")
    if isinstance(specification, dict):
        options: dict[str, Any] = specification.get("init_args") or {}
        _check_monitor("model.lr_scheduler", options.get("monitor"), names)
        _check_mode("model.lr_scheduler", options.get("monitor"), options.get("mode", "min"))


def _check_monitor(who: str, monitor: str | None, names: set[str]) -> None:
    if monitor is None or monitor in names:
        return
    near = difflib.get_close_matches(monitor, sorted(names), n=N_OFFERED)
    found = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(sorted(names)[:N_LISTED])}, …"
    raise MisconfigurationException(f"{who} watches {monitor!r}, which is not logged. {found}")


def _check_mode(who: str, monitor: str | None, mode: str) -> None:
    """Warn if a metric that should rise is watched as if it should fall, or vice versa."""
    better = find_better((monitor or "").removeprefix("val/").removeprefix("train/"))
    if better is not None and mode != better:
        logger.warning(
            "%s watches %s with mode=%s, which treats improvements as deterioration. Set its mode to %s.",
            *(who, monitor, mode, better),
        )
