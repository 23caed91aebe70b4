"""Compare runs with different settings on the same images: which is best, and how certain that is."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.checkpoints.files import CONFIG_FILE
from keypoint_detection.documents import read_yaml
from keypoint_detection.metrics.bootstrap import percentile_interval
from keypoint_detection.metrics.catalogue import OVERALL_METRICS
from keypoint_detection.metrics.learning_curve import Estimate
from keypoint_detection.metrics.pooling import Run, pool, refuse_other_measurements
from keypoint_detection.metrics.report import INTERVAL_LEVEL, EvaluationReport
from keypoint_detection.metrics.series import ErrorName, resample_images
from keypoint_detection.types import DataError

# Options that can differ between runs of one setting: the seed, the part held out, where files are, and how fast they
# are read.
NOT_SETTINGS = {
    "seed_everything", "ckpt_path", "data.fold", "data.split_seed", "data.num_workers", "data.cache",
    "data.cache_folder", "data.cache_gb", "trainer.default_root_dir", "trainer.enable_progress_bar",
}  # fmt: skip
NOT_SETTINGS_BELOW = "trainer.logger"
SHOWN = ("error_px/median", "error_px/mean", "mAP", "detection_rate")


class Setting(NamedTuple):
    """Runs that differ only in their seed or fold.

    Attributes:
        name: the options that distinguish it, as on the command line; `all runs` if there are no others.
        settings: the same, by name.
        runs: its runs.
        n_trainings: number of training runs; the folds of a cross-validation count as one.
        estimates: the mean of each number over its training runs, with a 95 % interval.
        resampled: (R,) the error that settings are sorted by, in each resample of the images.
    """

    name: str
    settings: dict[str, Any]
    runs: list[Run]
    n_trainings: int
    estimates: dict[str, Estimate]
    resampled: Tensor


class Comparison(NamedTuple):
    """Settings, the smallest error first.

    Attributes:
        n_images: number of images that every run measured.
        settings: the settings compared.
        lead: by how much the error of the second exceeds that of the first; None if there is only one, NaN if the
            second found nothing.
    """

    n_images: int
    settings: list[Setting]
    lead: Estimate | None


def has_repeated_images(runs: Sequence[Run]) -> bool:
    """Whether some images were measured by several of the runs."""
    image_ids = [run.held_out.image_ids() for run in runs]
    return sum(map(len, image_ids)) > len(set().union(*image_ids))


def compare(runs: Sequence[Run], error_name: ErrorName, n_resamples: int, seed: int) -> Comparison:
    """Measure each setting, averaged over its seeds, in the same resamples of the images.

    Args:
        runs: runs that measured the same images.
        error_name: the error that settings are sorted by.
        n_resamples: resamples of the images (R); of whole groups if the runs have groups.
        seed: seed of the resamples.

    Raises:
        DataError: the runs measured different images or measured differently, or one run is given twice.
    """
    refuse_other_measurements(runs)
    _refuse_mixture(runs)
    resamples = resample_images(runs, n_resamples, seed)
    members: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run, settings in zip(runs, _find_differences([_read_settings(run.folder) for run in runs]), strict=True):
        members.setdefault(_name(settings), (settings, []))[1].append(run)
    reports = {name: _report_trainings(of_setting) for name, (_, of_setting) in members.items()}
    n_images = _count_shared_images([training for trainings in reports.values() for training in trainings])
    compared = [
        _measure(name, *members[name], [report for _, report in trainings], error_name, *resamples)
        for name, trainings in reports.items()
    ]
    # NaN, from a setting that found nothing, comes last.
    compared.sort(key=lambda one: (math.isnan(one.estimates[error_name].value), one.estimates[error_name].value))
    lead = None
    if len(compared) > 1:
        first, second = compared[:2]
        difference = second.estimates[error_name].value - first.estimates[error_name].value
        lead = _estimate(difference, second.resampled - first.resampled)
    return Comparison(n_images, compared, lead)


def _refuse_mixture(runs: Sequence[Run]) -> None:
    kinds = {run.held_out.about["n_train_images"] is None: run.folder for run in runs}
    if len(kinds) > 1:
        raise DataError(
            f"{kinds[False]} is a training run, and {kinds[True]} only measures a checkpoint, perhaps of the same run. "
            "Give either the folders of training runs, e.g. 'runs/*-fit*', or those of measurements."
        )


def _read_settings(folder: Path) -> dict[str, Any]:
    content = read_yaml(folder / CONFIG_FILE, "the settings of a run")
    if not isinstance(content, dict):
        raise DataError(f"{folder / CONFIG_FILE} has no settings; those of a run are expected. Leave the run out.")
    settings = _flatten("", content)
    return {
        name: value
        for name, value in settings.items()
        if name not in NOT_SETTINGS and not f"{name}.".startswith(f"{NOT_SETTINGS_BELOW}.")
    }


def _flatten(prefix: str, content: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(f"{prefix}{key}.", value) if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _find_differences(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep only those settings of each run that differ between runs.

    If the class itself differs, its parameters are kept only if runs with the same class differ in them.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for one in settings:
        for name in {name for other in settings for name in other}:
            classes = json.dumps([one.get(path) for path in _classes_above(name)])
            values.setdefault(name, {}).setdefault(classes, set()).add(json.dumps(one.get(name), default=str))
    differing = {name for name, by_class in values.items() if any(len(found) > 1 for found in by_class.values())}
    return [{name: one[name] for name in one if name in differing} for one in settings]


def _classes_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join([*parts[:at], "class_path"]) for at, part in enumerate(parts) if part == "init_args"]


def _name(settings: dict[str, Any]) -> str:
    """Write settings as on the command line, without `init_args`; classes by their own name."""
    words = []
    for name, value in settings.items():
        if name.endswith("class_path"):
            name, value = name.removesuffix(".class_path"), str(value).rpartition(".")[2]
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        words.append(f"{name.replace('.init_args', '')}={text}")
    return "\n".join(words) or "all runs"


def _report_trainings(runs: Sequence[Run]) -> list[tuple[Run, EvaluationReport]]:
    """Evaluate each training run of a setting, with its folds pooled, and return one run of each."""
    trainings: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        # Measurements of checkpoints do not know the seeds used in training. Older files lack the checkpoint.
        key = tuple(run.held_out.about.get(name) for name in ("seed", "split_seed", "checkpoint"))
        trainings.setdefault(key, []).append(run)
    return [(members[0], pool(members)) for members in trainings.values()]


def _count_shared_images(trainings: Sequence[tuple[Run, EvaluationReport]]) -> int:
    sets = [set(_image_ids(report).tolist()) for _, report in trainings]
    for (run, _), image_ids in zip(trainings, sets, strict=True):
        if image_ids != sets[0]:
            raise DataError(
                f"{trainings[0][0].folder} measured {len(sets[0])} images and {run.folder} {len(image_ids)}, of which "
                f"{len(image_ids & sets[0])} are the same; settings are compared on the same images. Train both with "
                "the same data.val (or the same data.val_fraction and data.split_seed), or all folds of each."
            )
    return len(sets[0])


def _image_ids(report: EvaluationReport) -> Tensor:
    assert report.measurements is not None
    return report.measurements.image_ids


def _measure(
    name: str,
    settings: dict[str, Any],
    runs: list[Run],
    reports: Sequence[EvaluationReport],
    error_name: ErrorName,
    image_ids: Tensor,
    multiplicities: Tensor,
) -> Setting:
    resampled = [
        report.overall_in_resamples(multiplicities[torch.searchsorted(image_ids, _image_ids(report))])
        for report in reports
    ]
    fields = {shown: OVERALL_METRICS[shown].field for shown in dict.fromkeys((*SHOWN, error_name))}
    means = {shown: torch.stack([one[field] for one in resampled]).double().mean(0) for shown, field in fields.items()}
    estimates = {
        shown: _estimate(sum(getattr(one.overall, fields[shown]) for one in reports) / len(reports), mean)
        for shown, mean in means.items()
    }
    return Setting(name, settings, runs, len(reports), estimates, means[error_name])


def _estimate(value: float, resampled: Tensor) -> Estimate:
    low, high = percentile_interval(resampled, INTERVAL_LEVEL)
    return Estimate(float(value), float(low), float(high))
