"""Weights & Biases without an account or a home folder: runs are written to disk, and nothing prompts the user."""

import logging
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from keypoint_detection.destinations import shorten_path
from keypoint_detection.printing import first_line
from keypoint_detection.tracking.guarded_logger import (
    drop_dead_client,
    end_client,
    guard,
    log_on_disk,
    note_new_run,
)

logger = logging.getLogger(__name__)


# Folders that Weights & Biases keeps in the home folder, and the variables that relocate them: settings, downloads, and
# files waiting for upload, without which a run cannot be uploaded later.
HOME_FOLDERS = {"WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}

# How long the end of a run waits for its uploads; anything the server has not received by then stays on disk for `wandb
# sync`. By default, the client waits forever. Enough for a model of 100 MB at 10 Mbit/s.
FINISH_TIMEOUT_S = 120
# How long the start of a run waits for a server: for its first answer, and then for the run. Together with the start of
# the client, no more than 30 s.
ANSWER_TIMEOUT_S = 10
INIT_TIMEOUT_S = 15
# How long the client has to write unsent data to disk, which it does every 15 s.
FLUSH_TIMEOUT_S = 20


@rank_zero_only
def prepare_wandb(loggers: Iterable[Logger]) -> None:
    """Make sure that Weights & Biases neither prompts nor fails, with or without an account, server or home folder.

    Without an account or a responding server, runs are written to disk, and one line explains what to do with them. A
    WANDB_MODE of `offline` or `disabled` is respected.

    Args:
        loggers: those of the trainer, before the first of them starts its run. From here on, their failures cause only
            a warning.
    """
    ours = [one for one in loggers if isinstance(one, WandbLogger)]
    if not ours:
        return
    note_new_run()
    for one in ours:
        guard(one)
    if not _has_home():
        _leave_home()
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_TIMEOUT_S))
    os.environ.setdefault("WANDB_FINISH_TIMEOUT_RAISES", "true")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", str(INIT_TIMEOUT_S))
    # The client would finish with a list of a hundred metrics; the result table shows the important ones.
    os.environ.setdefault("WANDB_QUIET", "true")
    if os.environ.get("WANDB_MODE", "online") in ("online", "shared", "run"):
        _go_offline_without_account()


@rank_zero_only
def finish_wandb(exit_code: int) -> None:
    """End the run of this process, if there is one, so that its next training gets a new run.

    Data that the server has not received is on disk; the last line then says how to upload it.

    Args:
        exit_code: exit code of the process; the run counts as failed if it is not 0.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    run, folder = wandb.run, shlex.quote(str(shorten_path(Path(wandb.run.settings.sync_dir))))
    problem = _finish(run, exit_code)
    if run.offline or run.disabled:
        return
    # If the server refuses the data, the client gives up without raising anything.
    problem = problem or find_problem_of_server(ANSWER_TIMEOUT_S)
    if problem is not None:
        logger.warning(
            "Weights & Biases: the server has not received all of this run (%s). To upload it: "
            "wandb sync --no-skip-online %s",
            *(problem, folder),
        )


def find_problem_of_server(timeout_s: int) -> str | None:
    """Ask the Weights & Biases server who the user is; return the problem, or None if it answers.

    Args:
        timeout_s: how long to wait for the answer.
    """
    import wandb

    try:
        wandb.Api(timeout=timeout_s)
    except Exception as error:  # noqa: BLE001 - the client raises errors of any class
        problem = first_line(error)
        # The client's message about any failing server, including one that answers with errors.
        is_silent = "did not respond in time" in problem
        return f"no usable answer from {wandb.setup().settings.base_url} in {timeout_s} s" if is_silent else problem
    return None


def _finish(run: Any, exit_code: int) -> str | None:
    """End a run, and return what went wrong."""
    from wandb.sdk.lib import module

    problems: list[str] = []

    def finish() -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 - nothing depends on the log
            problems.append(first_line(error))

    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    timeout_s = run.settings.finish_timeout
    thread.join(timeout_s + FLUSH_TIMEOUT_S if timeout_s else None)
    if thread.is_alive():
        # Artifacts keep the client waiting beyond its own timeout. By now, everything is on disk.
        end_client()
        thread.join(FLUSH_TIMEOUT_S)
        problems = [f"no answer in {timeout_s:.0f} s"]
    if problems:
        module.unset_globals()  # type: ignore[no-untyped-call] # or the next training would continue this run
        drop_dead_client()
    return next(iter(problems), None)


def _go_offline_without_account() -> None:
    import wandb

    if wandb.setup().settings._offline:
        return
    try:
        is_logged_in = wandb.login(prompt=False, verify=False)  # type: ignore[attr-defined, unused-ignore]
    except Exception as error:  # noqa: BLE001 - for example, a key of the wrong length
        log_on_disk(f"the account cannot be used ({first_line(error)})")
        return
    if not is_logged_in:
        log_on_disk("no account is logged in (`wandb login` logs in)")
    elif problem := find_problem_of_server(ANSWER_TIMEOUT_S):
        log_on_disk(f"the server cannot be used ({problem})")


def _leave_home() -> None:
    """Keep the content of the home folder beside the runs, e.g. in a container whose user has none."""
    folder = Path(os.environ.get("WANDB_DIR", ".")).resolve() / "wandb"
    for variable, name in HOME_FOLDERS.items():
        os.environ.setdefault(variable, str(folder / f"home-{name}"))


def _has_home() -> bool:
    """Whether there is a writable home folder."""
    try:
        with tempfile.TemporaryFile(dir=Path.home()):
            return True
    except (OSError, RuntimeError):  # not writable; or the user has no entry in the user database
        return False
