"""A Weights & Biases logger whose failures cause a warning but never end training."""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger

from keypoint_detection.printing import first_line

logger = logging.getLogger(__name__)

# The methods that Lightning and our callbacks call.
GUARDED_METHODS = (
    "after_save_checkpoint",
    "finalize",
    "log_hyperparams",
    "log_image",
    "log_metrics",
    "log_table",
    "save",
)

_has_warned = False


def note_new_run() -> None:
    """Warn again of the next failure to log something."""
    global _has_warned
    _has_warned = False


@contextmanager
def going_on(wandb_logger: WandbLogger, what: str) -> Iterator[None]:
    """Turn the client's first error in a run into a warning; later failures are not mentioned.

    The client's errors are of many classes, including those of its connections and data classes. If its process has
    ended, as after some answers of a server, the run continues on disk.

    Args:
        wandb_logger: logger whose run receives the data; the server is not asked about it.
        what: what may fail to be logged, for the warning.
    """
    global _has_warned
    try:
        with _not_asking_server(wandb_logger):
            yield
    except Exception as error:  # noqa: BLE001 - training matters more than its log
        if not _has_warned:
            logger.warning(
                "Weights & Biases: %s could not be logged (%s). Training continues; later failures are not shown.",
                *(what, first_line(error)),
            )
        _has_warned = True
        if drop_dead_client() and wandb_logger._experiment is not None:
            _continue_on_disk(wandb_logger)


def _continue_on_disk(wandb_logger: WandbLogger) -> None:
    """Start an offline run with the id and the config of one whose client has ended."""
    from wandb.sdk.lib import module

    old: Any = wandb_logger._experiment
    module.unset_globals()  # type: ignore[no-untyped-call]
    wandb_logger._experiment = None
    wandb_logger._wandb_init["id"] = old.id
    log_on_disk("the client has ended")
    config = {key: value for key, value in old.config.items() if key != "_wandb"}
    with suppress(Exception):
        wandb_logger.experiment.config.update(config, allow_val_change=True)


def log_on_disk(reason: str) -> None:
    """Log the runs of this process to disk from now on.

    Args:
        reason: the reason, for the log.
    """
    import wandb

    # WANDB_MODE has already been read by now.
    wandb.setup(wandb.Settings(mode="offline"))
    in_sweep = " The sweep does not see its results before that." if os.environ.get("WANDB_SWEEP_ID") else ""
    logger.warning(
        "Weights & Biases: %s, so this run is logged to disk. `wandb sync wandb/offline-run-…` uploads it, `wandb "
        "leet` shows it in the terminal.%s --trainer.logger=false turns logging off.",
        *(reason, in_sweep),
    )


def end_client() -> None:
    """End the process through which the client sends; data it has written to disk stays there."""
    process = _client_process()
    if process is not None:
        process.terminate()
        process.wait()


def drop_dead_client() -> bool:
    """Forget the process through which the client sends if it has ended, so that the next run starts a new one.

    Returns: Whether it had ended; otherwise nothing has changed.
    """
    import wandb

    process = _client_process()
    if process is None or process.poll() is None:
        return False
    # The client reports this as an error, and may exit with the code of the process.
    with suppress(Exception, SystemExit):
        wandb.teardown()
    return True


def _client_process() -> "subprocess.Popen[bytes] | None":
    import wandb

    service = getattr(getattr(wandb.setup(), "_connection", None), "_proc", None)
    return getattr(service, "_process", None)


class GuardedWandbLogger(WandbLogger):
    """A `WandbLogger` that never stops training; `guard` turns a logger into one."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; on disk if the server refuses it, and a disabled one if that fails too."""
        if self._experiment is not None:
            return self._experiment
        try:
            return super().experiment
        except Exception as error:  # noqa: BLE001 - as above
            log_on_disk(f"the run cannot be started ({first_line(error)})")
        try:
            return super().experiment
        except Exception as error:  # noqa: BLE001 - as above
            import wandb

            logger.warning("Weights & Biases: nothing from this run is logged (%s).", first_line(error))
            self._experiment = wandb.init(mode="disabled")
            return self._experiment


def guard(wandb_logger: WandbLogger) -> None:
    """Make a logger, of any subclass, never stop training."""
    kind = type(wandb_logger)
    if not issubclass(kind, GuardedWandbLogger):
        is_plain = kind is WandbLogger
        wandb_logger.__class__ = GuardedWandbLogger if is_plain else type(kind.__name__, (GuardedWandbLogger, kind), {})


def _guarded(name: str) -> Any:
    def call(self: GuardedWandbLogger, *args: Any, **kwargs: Any) -> None:
        with going_on(self, name.removeprefix("log_").replace("_", " ")):
            getattr(super(GuardedWandbLogger, self), name)(*args, **kwargs)

    call.__doc__ = getattr(WandbLogger, name).__doc__
    return call


for _name in GUARDED_METHODS:
    setattr(GuardedWandbLogger, _name, _guarded(_name))


@contextmanager
def _not_asking_server(wandb_logger: WandbLogger) -> Iterator[None]:
    """Make the run accept tables and other artifacts as an offline run does; they are still sent.

    Otherwise the client asks the server for the type of each: 20 s if it is gone, and the data is then neither sent nor
    on disk.
    """
    run: Any = getattr(wandb_logger, "_experiment", None)
    is_online = getattr(run, "offline", True) is False and not run.disabled
    # Because one method calls another.
    if not is_online or "_log_artifact" in run.__dict__:
        yield
        return
    log, settings = run._log_artifact, run._settings

    def log_unasked(*args: Any, **kwargs: Any) -> Any:
        before, settings.mode = settings.mode, "offline"
        try:
            return log(*args, **kwargs)
        finally:
            settings.mode = before

    run._log_artifact = log_unasked
    try:
        yield
    finally:
        del run._log_artifact
