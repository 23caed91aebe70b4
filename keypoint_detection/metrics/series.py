"""Identify and measure runs on growing parts of the images, for a learning curve."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from keypoint_detection.metrics.bootstrap import resample_groups
from keypoint_detection.metrics.catalogue import OVERALL_METRICS
from keypoint_detection.metrics.learning_curve import CurvePoint
from keypoint_detection.metrics.pooling import Run, groups_of, missing_folds, pool, refuse_other_measurements
from keypoint_detection.types import DataError

# The names of the metrics that fall as a detector improves; the parser accepts no others.
if TYPE_CHECKING:
    ErrorName: TypeAlias = str
else:
    ErrorName = Literal[tuple(name for name, metric in OVERALL_METRICS.items() if metric.better == "min")]


class Training(NamedTuple):
    """A training run on a part of the images, or all folds of one.

    Attributes:
        train_fraction: the part of the images used.
        seed: seed of training, and of the choice of images in the part.
        split_seed: seed of the split.
        runs: its folds; a single run if there are none.
        missing_folds: folds that are missing.
        point: number of training images (the mean over the folds) and the error on all held-out images.
    """

    train_fraction: float
    seed: int
    split_seed: int
    runs: list[Run]
    missing_folds: list[int]
    point: CurvePoint


def has_fractions(runs: Sequence[Run]) -> bool:
    """Whether runs were trained on different parts of their images."""
    return len({run.held_out.about["train_fraction"] for run in runs} - {None}) > 1


def measure_trainings(runs: Sequence[Run], error_name: ErrorName, n_resamples: int, seed: int) -> list[Training]:
    """Measure each training run, pooled over its folds, with the same resamples of the held-out images.

    Args:
        runs: runs of at least two parts.
        error_name: the number in a report to use as the error.
        n_resamples: resamples of the images (R); of whole groups if the runs have groups.
        seed: seed of the resamples.

    Raises:
        DataError: the runs cannot be compared or overlap, it is unknown how many images one was trained on, or an error
            is undefined.
    """
    refuse_other_measurements(runs)
    series: dict[tuple[float, int, int], list[Run]] = {}
    for run in runs:
        about = run.held_out.about
        if about["n_train_images"] is None:
            raise DataError(
                f"{run.folder} is a validation: it is unknown how many images its detector was trained on. Give the "
                "folders of training runs, e.g. 'runs/*-fit*'."
            )
        series.setdefault((about["train_fraction"], about["seed"], about["split_seed"]), []).append(run)
    resamples = resample_images(runs, n_resamples, seed)
    return [
        Training(*key, members, missing_folds(members), _measure(members, key[0], error_name, *resamples))
        for key, members in sorted(series.items(), key=lambda item: item[0])
    ]


def resample_images(runs: Sequence[Run], n_resamples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the ids of all held-out images (I,), ascending, and how often each is in each resample (I, R)."""
    image_ids = torch.tensor(sorted(set().union(*(run.held_out.image_ids() for run in runs))))
    groups = groups_of(runs, image_ids)
    groups = torch.arange(len(image_ids)) if groups is None else groups
    return image_ids, resample_groups(groups, n_resamples, torch.Generator().manual_seed(seed))


def _measure(
    runs: Sequence[Run], part: float, error_name: ErrorName, image_ids: Tensor, multiplicities: Tensor
) -> CurvePoint:
    report, field = pool(runs), OVERALL_METRICS[error_name].field
    assert report.measurements is not None
    error = float(getattr(report.overall, field))
    if not error > 0:
        raise DataError(
            f"{runs[0].folder}: {error_name} is {error:g}, from which no curve can be drawn; choose another --error, "
            "or leave this run out."
        )
    positions = torch.searchsorted(image_ids, report.measurements.image_ids)
    resampled = report.overall_in_resamples(multiplicities[positions])[field]
    n_images = [int(run.held_out.about["n_train_images"]) for run in runs]
    return CurvePoint(part, sum(n_images) / len(n_images), error, resampled.double().numpy())
