"""Weights & Biases without an account or a home folder: runs are written to disk, and nothing prompts the user."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["finish_wandb", "prepare_wandb"]

logger = logging.getLogger(__name__)


# What Weights & Biases keeps in the home folder, and the variables that move it: settings, downloads, and files waiting
# for upload, without which a run cannot be uploaded later.
HOME_FOLDERS = {"WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}

# How long the end of a run waits for a server that cannot be reached; what it has not received by then stays on disk
# for `wandb sync`. By default, the client waits forever.
FINISH_TIMEOUT_S = 600


@rank_zero_only
def prepare_wandb(loggers: Iterable[Logger]) -> None:
    """Make sure that Weights & Biases neither prompts nor fails without an account or a home folder.

    Without an account, runs are written to disk, and one line says what to do with them. A WANDB_MODE that is set is
    respected.

    Args:
        loggers: those of the trainer, before the first of them starts its run.
    """
    if not any(isinstance(one, WandbLogger) for one in loggers):
        return
    if not _has_home():
        _leave_home()
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_TIMEOUT_S))
    # The client would end with a list of a hundred metrics; the result table shows what matters.
    os.environ.setdefault("WANDB_QUIET", "true")
    if not os.environ.get("WANDB_MODE"):
        _go_offline_without_account()


@rank_zero_only
def finish_wandb(exit_code: int) -> None:
    """End the run of this process, if there is one, so that its next training gets a run of its own.

    Args:
        exit_code: that of the process; the run counts as failed if it is not 0.
    """
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _go_offline_without_account() -> None:
    import wandb
    from wandb.errors import Error

    try:
        is_logged_in = wandb.login(prompt=False, verify=False)  # type: ignore[attr-defined, unused-ignore]
        problem = "no account is logged in"
    except Error as error:
        # For example, a key of the wrong length: training does not depend on it.
        is_logged_in, problem = False, f"the account cannot be used ({str(error).strip().rstrip('.')})"
    if is_logged_in:
        return
    # WANDB_MODE has been read by now.
    wandb.setup(wandb.Settings(mode="offline"))
    logger.info(
        "Weights & Biases: %s, so this run is logged on disk. `wandb login` logs in, `wandb sync wandb/offline-run-…` "
        "uploads a run, `wandb leet` shows it in the terminal; --trainer.logger=false turns it off.",
        problem,
    )


def _leave_home() -> None:
    """Keep beside the runs what belongs in the home folder, e.g. in a container whose user has none."""
    folder = Path(os.environ.get("WANDB_DIR", ".")).resolve() / "wandb"
    for variable, name in HOME_FOLDERS.items():
        os.environ.setdefault(variable, str(folder / f"home-{name}"))


def _has_home() -> bool:
    """Whether there is a home folder that can be written to."""
    try:
        with tempfile.TemporaryFile(dir=Path.home()):
            return True
    except (OSError, RuntimeError):  # not writable; or the user has no entry in the user database
        return False
