"""Pool several validations: the folds of a cross-validation, or runs on growing parts of the images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from keypoint_detection.checkpoints.files import CONFIG_FILE
from keypoint_detection.counting import count_in_words
from keypoint_detection.metrics.held_out import HELD_OUT_FILE, HeldOut, read_held_out
from keypoint_detection.metrics.keypoint_metrics import OBJECT_STATE, KeypointMetrics
from keypoint_detection.metrics.report import EvaluationReport
from keypoint_detection.types import DataError

# The settings that must agree: those of the metric and those of the split.
SHARED = ("channels", "thresholds_px", "relative_thresholds", "oks_sigmas", "n_folds", "group_by", "sha256")

# The settings of the detector; if they differ, the meaning of a summary is doubtful. Older files lack them.
OF_DETECTOR = ("image_size", "resize", "flip_test", "backbone")


class Run(NamedTuple):
    """A run with predictions.

    Attributes:
        folder: the run folder.
        held_out: its predictions on held-out images.
    """

    folder: Path
    held_out: HeldOut


class FoundRuns(NamedTuple):
    """Runs, in the order of their folders' names.

    Attributes:
        runs: those with predictions.
        unfinished: the folders of those without.
    """

    runs: list[Run]
    unfinished: list[Path]


def find_runs(patterns: Sequence[str]) -> FoundRuns:
    """Find runs by their folders, by a folder that contains them, or by patterns of either, each once.

    Raises:
        DataError: a pattern finds nothing, or no run has predictions.
    """
    folders: dict[Path, Path] = {}
    for pattern in patterns:
        found = [folder for path in _expand(pattern) for folder in _run_folders(path)]
        if not found:
            raise DataError(
                f"{pattern!r}: no run found; a run folder (with its {CONFIG_FILE}), a folder that contains run "
                "folders, or a pattern of either is expected, e.g. runs or 'runs/*-fit*'."
            )
        folders |= {folder.resolve(): folder for folder in found}
    ordered = sorted(folders.values())
    runs = [Run(folder, read_held_out(folder / HELD_OUT_FILE)) for folder in ordered if _has_predictions(folder)]
    unfinished = [folder for folder in ordered if not _has_predictions(folder)]
    if not runs:
        raise DataError(
            f"of {count_in_words(len(unfinished), 'run')}, none has a {HELD_OUT_FILE}, e.g. {unfinished[0]}. Training "
            "writes it at the end, and `kpd validate --ckpt_path=…` writes it for a checkpoint."
        )
    return FoundRuns(runs, unfinished)


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    # A pattern may start at the root, which `Path.glob` does not accept.
    anchor = Path(path.anchor)
    return sorted(anchor.glob(str(path.relative_to(anchor))))


def _run_folders(path: Path) -> list[Path]:
    if path.name in (HELD_OUT_FILE, CONFIG_FILE):
        path = path.parent
    if _has_predictions(path) or (path / CONFIG_FILE).is_file():
        return [path]
    return sorted({file.parent for name in (HELD_OUT_FILE, CONFIG_FILE) for file in path.glob(f"*/{name}")})


def _has_predictions(folder: Path) -> bool:
    return (folder / HELD_OUT_FILE).is_file()


def refuse_other_measurements(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers cannot be compared.

    Raises:
        DataError: they differ in channels, thresholds, folds or groups, or their images come from different files.
    """
    first = runs[0]
    for run in runs[1:]:
        for name in SHARED:
            old, new = first.held_out.about[name], run.held_out.about[name]
            if old == new:
                continue
            if name == "sha256":
                name, old, new = "held-out images", *(one.held_out.about["file"] for one in (first, run))
                old, new = (f"{old}, as it was", f"{new}, as it was then") if old == new else (old, new)
            raise DataError(
                f"these runs cannot be summarised together: {first.folder} has the {name} {old}, {run.folder} has "
                f"{new}. Leave one out, or validate one again with the settings of the other."
            )


def find_other_detectors(runs: Sequence[Run]) -> list[str]:
    """Report the detector settings in which a run differs from the first, one sentence each."""
    first = runs[0]
    return [
        f"{name} is {first.held_out.about[name]} in {first.folder} and {run.held_out.about[name]} in {run.folder}"
        for run in runs[1:]
        for name in OF_DETECTOR
        if name in first.held_out.about.keys() & run.held_out.about.keys()
        and first.held_out.about[name] != run.held_out.about[name]
    ]


def pool(runs: Sequence[Run]) -> EvaluationReport:
    """Evaluate the held-out images of several runs as if one run had measured all of them.

    Raises:
        DataError: the runs cannot be compared, or several hold out the same image.
    """
    refuse_other_measurements(runs)
    _refuse_overlaps(runs)
    about = runs[0].held_out.about
    metric = KeypointMetrics(
        *(about["channels"], about["thresholds_px"], about["relative_thresholds"], about["oks_sigmas"]),
        group=all(OBJECT_STATE in run.held_out.rows for run in runs),
    )
    n_with_losses = sum(len(run.held_out.rows["loss_rows"]) > 0 for run in runs)
    assert n_with_losses in (0, len(runs)), "every validation of a detector has losses"
    return metric.pool([run.held_out.rows for run in runs])


def _refuse_overlaps(runs: Sequence[Run]) -> None:
    owner: dict[int, Run] = {}
    for run in runs:
        image_ids = run.held_out.image_ids()
        shared = sorted(image_ids & owner.keys())
        if shared:
            other = owner[shared[0]]
            raise DataError(
                f"{other.folder} and {run.folder} measured the same images, {len(shared)} of {len(image_ids)} (image "
                f"{shared[0]}): each image may count only once. Leave one of the runs "
                f"out{_explain_overlap(other.held_out, run.held_out)}."
            )
        owner |= dict.fromkeys(image_ids, run)


def _explain_overlap(one: HeldOut, other: HeldOut) -> str:
    names = ("fold", "split_seed", "seed", "val_fraction")
    changed = [name for name in names if one.about[name] != other.about[name]]
    listed = ", ".join(f"{name} {one.about[name]} and {other.about[name]}" for name in changed)
    return f"; they differ in {listed}" if changed else "; both have the same split"


def missing_folds(runs: Sequence[Run]) -> list[int]:
    """List the folds that none of the runs held out; empty if the runs are not folds."""
    n_folds = runs[0].held_out.about["n_folds"] or 0
    present = Counter(run.held_out.about["fold"] for run in runs)
    return [fold for fold in range(n_folds) if fold not in present]


def groups_of(runs: Sequence[Run], image_ids: Tensor) -> Tensor | None:
    """Number the group of each image, (I,); None if images are not grouped."""
    groups = {int(image): int(group) for run in runs for image, group in run.held_out.groups}
    if not groups:
        return None
    return torch.tensor([groups[image] for image in image_ids.tolist()])
