"""Describe a run in Weights & Biases: data, size of the network, config file."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keypoint_detection.tracking.runs import add_file, describe_run, summarise_by, write_summary
from keypoint_detection.tracking.tables import log_table, wandb_loggers
from keypoint_detection.training.checkpointing import find_best_checkpoint, read_best_validation
from keypoint_detection.training.run_folder import find_run_folder, find_saved_run

DATA_SET_COLUMNS = ("part", "channel", "points", "images", "file", "sha256")
# Suffix of the name of a metric that is averaged over validations.
SMOOTHED_SUFFIX = "_smoothed"


class WandbRun(Callback):
    """Describe a run to Weights & Biases; without a `WandbLogger`, do nothing.

    The data set (files, SHA-256, images, points per channel; also shown in a table), the number of parameters and the
    run folder are added to the run's config, and the resolved config to its files. Weights & Biases itself records
    commit, diff and package versions. `best` in the summary holds every number of `best.ckpt`. If the best value of a
    metric chooses that, the summary of the metric is its best value (for `val/mAP_smoothed`, that of `val/mAP` too);
    otherwise its last.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe a training."""
        self._describe(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe `kpd validate`."""
        if trainer.state.fn == "validate":
            self._describe(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe `kpd test`."""
        self._describe(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation of the best checkpoint into the summary of the run."""
        loggers = wandb_loggers(trainer)
        if not loggers or not trainer.is_global_zero:
            return
        validation = read_best_validation(trainer)
        if validation is None:
            return
        summary = {"epoch": validation.epoch, "step": validation.step, **validation.defined_numbers()}
        for logger in loggers:
            write_summary(logger, "best", summary)

    def _describe(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = wandb_loggers(trainer)
        if not loggers or not trainer.is_global_zero:
            return
        description: dict[str, Any] = {
            "n_parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "run_folder": str(find_run_folder(trainer).resolve()),
        }
        describe_data = getattr(trainer.datamodule, "describe", None)  # type: ignore[attr-defined]
        if describe_data is not None:
            description["data_set"] = describe_data()
        best = find_best_checkpoint(trainer)
        saved = find_saved_run(trainer)
        for logger in loggers:
            describe_run(logger, description)
            if best is not None and not best.prefers_latest:
                # Sweeps compare the metric itself.
                for metric in {best.monitor, best.monitor.removesuffix(SMOOTHED_SUFFIX)}:
                    summarise_by(logger, metric, best.mode)
            if saved is not None and saved.config_file is not None:
                # The files of the run already include a `config.yaml` in another format.
                add_file(logger, saved.config_file, f"kpd-{saved.config_filename}")
            # The first table also makes the client look up its account: with an unreachable server, later tables would
            # wait for it.
            log_table(logger, "data_set", DATA_SET_COLUMNS, _data_set_rows(description.get("data_set", {})))


def _data_set_rows(description: dict[str, dict[str, Any]]) -> list[list[Any]]:
    return [
        [part, channel, n_points, content["images"], content["file"], content["sha256"]]
        for part, content in description.items()
        for channel, n_points in content["points"].items()
    ]
