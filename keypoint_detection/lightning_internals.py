"""Everything that the package reads or changes inside Lightning for lack of a public API."""

import math
from typing import Any, NamedTuple

# The hyper-parameter that names the function that makes a module from the others; Lightning only calls its own.
_INSTANTIATOR = "_instantiator"


class KeepsCheckpointSettings:
    """A LightningCLI that applies the settings of a checkpoint itself.

    Lightning lets them override what the user sets.
    """

    def _parse_ckpt_path(self) -> None:
        """Do nothing."""


def command_parsers(cli: Any) -> dict[str, Any]:
    """Return the parser of each command of a LightningCLI."""
    parsers: dict[str, Any] = cli._subcommand_parsers
    return parsers


def brings_checkpoint_io(strategy: object) -> bool:
    """Whether a Trainer's strategy was given its own plugin for writing checkpoints, which is then the only one."""
    return getattr(strategy, "_checkpoint_io", None) is not None


def cluster_environment(trainer: Any) -> object:
    """Return what a Trainer knows about its cluster; not every strategy makes this public."""
    environment: object = trainer._accelerator_connector.cluster_environment
    return environment


def drop_minimum_length(trainer: Any) -> None:
    """Let Lightning's training stop now, however few epochs and steps it has completed."""
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None


class DescribesEpochs:
    """A RichProgressBar that describes an epoch itself; Lightning's counts from 0 and ignores a length in steps."""

    def describe_epoch(self, epoch: int) -> str:
        """Return the text in front of the bar during an epoch of training.

        Args:
            epoch: counted from 0.
        """
        raise NotImplementedError

    def _get_train_description(self, current_epoch: int) -> str:
        return self.describe_epoch(current_epoch)


def has_settings_of_config(module: Any) -> bool:
    """Whether the hyper-parameters of a model or data module are the settings of a config file, hence plain values.

    Otherwise it was created in Python, and they are the objects it was given.
    """
    return _INSTANTIATOR in module.hparams


def rebuild_from_settings(model: Any) -> None:
    """Make checkpoints of a model from Python rebuild it from its hyper-parameters, like one from a config file."""
    model.hparams[_INSTANTIATOR] = "lightning.pytorch.cli.instantiate_module"


def log_hyperparameters(model: Any) -> None:
    """Pass the hyper-parameters of a model that are already saved on to loggers.

    `save_hyperparameters` decides this too, but is called before it is known whether the model was created in Python.
    """
    model._log_hyperparams = True


class Progress(NamedTuple):
    """The progress of training.

    Attributes:
        n_epochs: finished epochs.
        n_steps: optimiser steps.
    """

    n_epochs: int
    n_steps: int


def trained_so_far(checkpoint: dict[str, Any]) -> Progress:
    """Count the finished epochs and optimiser steps behind a checkpoint."""
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_progress"]["current"]
    # A checkpoint is saved at validation, before Lightning counts the epoch that just ended.
    is_over = progress["ready"] > progress["processed"] and loops["epoch_loop.batch_progress"]["is_last_batch"]
    return Progress(int(progress["processed"]) + bool(is_over), int(checkpoint["global_step"]))


def has_extra_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether training ends with one more epoch, in which SWA only measures the statistics of batch normalisation."""
    averages = any(key.startswith("StochasticWeightAveraging") for key in checkpoint["callbacks"])
    return averages and any(name.endswith("running_mean") for name in checkpoint["state_dict"])


class Position(NamedTuple):
    """The position of training among its batches.

    Attributes:
        epoch: the current one, counted from 0; after the last batch of an epoch, the next one.
        n_batches: the number of its batches already processed.
    """

    epoch: int
    n_batches: int


def find_position(trainer: Any) -> Position:
    """Return the current position of a Trainer's training."""
    progress = trainer.fit_loop.epoch_progress.current
    is_begun = progress.ready > progress.processed
    n_batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed if is_begun else 0
    is_over = n_batches >= trainer.num_training_batches
    return Position(progress.processed + is_over, 0 if is_over else n_batches)


def seconds_left(trainer: Any) -> float:
    """Return the seconds until a time limit ends training; infinite if there is none."""
    return min((timer.time_remaining() for timer in _find_timers(trainer)), default=math.inf)


def share_of_time(trainer: Any) -> float | None:
    """Return the share of the time limit that training has used, the same in all processes; None without a limit."""
    timers = _find_timers(trainer)
    if not timers:
        return None
    share = max(one.time_elapsed() / max(one.time_elapsed() + one.time_remaining(), 1e-9) for one in timers)
    return float(trainer.strategy.broadcast(share))


def _find_timers(trainer: Any) -> list[Any]:
    # Callbacks that may limit the time have a method with this name.
    timers = [one for one in trainer.callbacks if hasattr(one, "time_remaining")]
    return [one for one in timers if one.time_remaining() is not None]


def is_at_end(trainer: Any) -> bool:
    """Whether the current batch is the last one of training, by the limit on steps, time, or epochs."""
    if 0 <= trainer.max_steps <= trainer.global_step or seconds_left(trainer) <= 0:
        return True
    ends_epoch = trainer.fit_loop.epoch_loop.batch_idx + 1 >= trainer.num_training_batches
    return bool(ends_epoch and trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1)


def is_validation_scheduled(trainer: Any) -> bool:
    """Whether training would validate after this batch in any case, and not only because something stops it.

    At the end of training it always does. Before, this follows the condition of Lightning's epoch loop, which a stop
    overrides.
    """
    if is_at_end(trainer):
        return True
    every_n_epochs = trainer.check_val_every_n_epoch
    if every_n_epochs is not None and (trainer.current_epoch + 1) % every_n_epochs:
        return False
    if trainer.val_check_batch is None:  # an interval of time: only a validation itself shows that it is over
        return bool(trainer.validating)
    if math.isinf(trainer.val_check_batch):
        return bool(trainer.is_last_batch)
    loop = trainer.fit_loop.epoch_loop
    n_batches = (loop.total_batch_idx if every_n_epochs is None else loop.batch_idx) + 1
    return bool(n_batches % trainer.val_check_batch == 0)


def is_between_batches(trainer: Any) -> bool:
    """Whether training has finished every batch that it began, so that its state is that after a batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(progress.started == progress.processed)


def is_between_steps(trainer: Any) -> bool:
    """Whether the optimiser has used every batch so far; not so while gradients are accumulated."""
    n_processed = trainer.fit_loop.epoch_loop.batch_progress.current.processed
    return bool(trainer.is_last_batch or n_processed % trainer.accumulate_grad_batches == 0)


def is_in_validation(trainer: Any) -> bool:
    """Whether a validation during training has begun but not yet ended."""
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    return bool(trainer.validating and not (progress.is_last_batch and progress.current.completed))


def is_validation_due(trainer: Any) -> bool:
    """Whether the batch just processed is to be followed by a validation that has not begun."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    is_new = progress.completed < progress.processed == progress.ready
    return bool(is_new and trainer.enable_validation and is_validation_scheduled(trainer))


def mark_validation_due(checkpoint: dict[str, Any], has_begun: bool) -> None:
    """Change a checkpoint so that a run resumed from it begins with a complete validation.

    Lightning resumes a validation after as many batches as it had processed, without their results, and treats one that
    had not begun as finished. To make it start one, the validation must seem to have stopped in its first batch.

    Args:
        checkpoint: the content that Lightning is about to save.
        has_begun: whether the validation is under way.
    """
    loops = checkpoint["loops"]["fit_loop"]
    for progress in (loops["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        progress["completed"] = progress["processed"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    n_before = validation["total"]["completed"] - (validation["current"]["completed"] if has_begun else 0)
    for progress, n_done in ((validation["total"], n_before), (validation["current"], 0)):
        progress |= {"ready": n_done + 1, "started": n_done + 1, "processed": n_done, "completed": n_done}
    validation["is_last_batch"] = False


def forget_marked_batch(trainer: Any) -> None:
    """Remove from the count of all batches the one in which a validation only seemed to have stopped."""
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def count_last_step(checkpoint: dict[str, Any]) -> None:
    """Count, for the loggers, the step before a finished validation, which Lightning counts only later.

    Lightning corrects this in resumed runs, but not if the validation was an extra one.
    """
    checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def find_metrics(trainer: Any) -> dict[str, Any]:
    """Return the metrics that callbacks can monitor, including the means over an epoch whose last batch is done."""
    results = trainer.fit_loop.epoch_loop._results
    means = results.metrics(on_step=False)["callback"] if trainer.is_last_batch else {}
    return {**trainer.callback_metrics, **means}


def find_epoch_sums(trainer: Any) -> dict[str, dict[str, Any]]:
    """Return the intermediate values of the means that a model logs over the current epoch, by name."""
    return {
        key: {"value": one.value.cpu(), "n": one.cumulated_batch_size.cpu()}
        for key, one in trainer.fit_loop.epoch_loop._results.items()
        if _is_epoch_mean(one) and not one.has_reset
    }


def restore_epoch_sums(trainer: Any, sums: dict[str, dict[str, Any]]) -> None:
    """Add the values logged before training was stopped to the means over the current epoch."""
    for key, one in trainer.fit_loop.epoch_loop._results.items():
        if key in sums and _is_epoch_mean(one):
            one.value = one.value + sums[key]["value"].to(one.value.device)
            one.cumulated_batch_size = one.cumulated_batch_size + sums[key]["n"].to(one.value.device)


def _is_epoch_mean(result: Any) -> bool:
    return bool(result.is_tensor and result.meta.on_epoch and result.meta.is_mean_reduction)
