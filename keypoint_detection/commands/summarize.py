"""The command `kpd summarize`: combine several runs into one result, a comparison or a learning curve."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.markup import escape
from rich.table import Table

from keypoint_detection.counting import count_in_words
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.metrics.catalogue import OVERALL_METRICS
from keypoint_detection.metrics.comparison import Comparison, Setting, compare, has_repeated_images
from keypoint_detection.metrics.learning_curve import Estimate, LearningCurve, trace_learning_curve
from keypoint_detection.metrics.pooling import Run, find_other_detectors, find_runs, groups_of, missing_folds, pool
from keypoint_detection.metrics.series import ErrorName, Training, has_fractions, measure_trainings
from keypoint_detection.metrics.table import make_table, print_parts
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.plots import draw_learning_curve
from keypoint_detection.printing import make_printable
from keypoint_detection.types import DataError

logger = logging.getLogger(__name__)

# Identifies a summary, so that no other file is overwritten.
KIND = "kpd summary"


def run(words: Sequence[str]) -> None:
    """Summarise the runs named by the words, the first of which is `summarize`.

    Raises:
        SystemExit: the words are wrong, or the runs cannot be summarised together (2).
    """
    call_with_words(summarize, "kpd summarize", words[1:])


def summarize(
    runs: list[str],
    /,
    output: str = "summary.json",
    error: ErrorName = "error_px/mean",
    n_resamples: PositiveInt = 1000,
    seed: NonNegativeInt = 0,
) -> None:
    """Measure several runs together, with intervals: as one result, side by side, or as a learning curve.

    Runs of several folds (`data.n_folds`) are pooled into one table. Runs that measured the same images are compared:
    one row per setting, averaged over its seeds, the smallest error first. Runs on several parts of the training images
    (`data.train_fraction`) become a curve of the error against the number of images, with a forecast for twice the
    labels. In all cases, folds are pooled first.

    Args:
        runs: run folders, a folder that contains them, or patterns of either: 'runs/*-fit*'.
        output: the JSON file to write. The figure of a learning curve has the same name but ends in .png.
        error: the error over all channels by which settings are sorted, and which a learning curve shows.
        n_resamples: bootstrap resamples of the held-out images for the 95 % intervals. If `data.group_by` was given,
            whole groups are drawn.
        seed: seed of the resampling.

    Raises:
        DataError: the runs were measured differently or overlap only in part, or `output` is not a summary.
    """
    path = Path(output).expanduser()
    _check_output(path)
    found = find_runs(runs)
    for folder in found.unfinished:
        logger.warning("%s has no predictions and is left out: it has not finished, or it did not validate.", folder)
    is_curve = has_fractions(found.runs)
    is_comparison = not is_curve and has_repeated_images(found.runs)
    if not is_comparison and (others := find_other_detectors(found.runs)):
        logger.warning("These runs did not train the same detector: %s.", "; ".join(others))
    if is_comparison:
        summary, parts = _compare_settings(found.runs, error, n_resamples, seed)
    elif is_curve:
        summary, parts = _summarize_trainings(found.runs, path, error, n_resamples, seed)
    else:
        summary, parts = _pool_folds(found.runs, n_resamples, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"kind": KIND, **summary}, indent=2) + "\n", encoding="utf-8")
    print_parts([*parts, f"Summary  {path}"])


def _check_output(path: Path) -> None:
    if path.suffix != ".json":
        raise DataError(f"output is {str(path)!r}; a name ending in .json is expected.")
    refuse_unwritable(path, "--output")
    if not path.exists():
        return
    try:
        is_summary = json.loads(path.read_text(encoding="utf-8")).get("kind") == KIND
    except (ValueError, AttributeError):
        is_summary = False
    if not is_summary:
        raise DataError(f"{path} already exists and is not a summary; give another --output.")


def _pool_folds(runs: list[Run], n_resamples: int, seed: int) -> tuple[dict[str, Any], list[Table | str]]:
    report = pool(runs)
    assert report.measurements is not None
    missing = missing_folds(runs)
    _warn_of_missing(runs, missing)
    groups = groups_of(runs, report.measurements.image_ids)
    n_groups = report.n_images if groups is None else len(set(groups.tolist()))
    if n_groups > 1:
        report = report.with_intervals(n_resamples, seed, groups=groups)
    else:
        logger.warning("All held-out images are in one group, so it is unknown how much the numbers would vary.")
    what = "images" if groups is None else f"{n_groups} groups of images"
    title = f"{count_in_words(len(runs), 'run')}, {count_in_words(report.n_images, 'held-out image')}"
    parts: list[Table | str] = [make_table(report, title, resampled=what)]
    parts += [
        f"Channel '{name}' has no labelled points; the means leave it out." for name in report.channels_without_truth
    ]
    summary = {
        "runs": [_describe(run) for run in runs],
        "missing_folds": missing,
        "n_groups": n_groups,
        **report.as_dict(),
    }
    return summary, parts


def _warn_of_missing(runs: Sequence[Run], missing: Sequence[int]) -> None:
    if missing:
        logger.warning(
            "Of %d folds %s missing: %s. Their images are not in the result.",
            runs[0].held_out.about["n_folds"],
            "one is" if len(missing) == 1 else f"{len(missing)} are",
            ", ".join(map(str, missing)),
        )


def _describe(run: Run) -> dict[str, Any]:
    names = ("fold", "n_train_images", "train_fraction", "seed", "split_seed")
    about = run.held_out.about
    return {
        "folder": str(run.folder),
        "n_images": len(run.held_out.image_ids()),
        **{name: about[name] for name in names},
    }


def _compare_settings(
    runs: list[Run], error: ErrorName, n_resamples: int, seed: int
) -> tuple[dict[str, Any], list[Table | str]]:
    comparison = compare(runs, error, n_resamples, seed)
    conclusion = judge(comparison, error)
    summary = {
        "error": error,
        "n_images": comparison.n_images,
        "settings": [_describe_setting(setting) for setting in comparison.settings],
        "lead": comparison.lead and _as_numbers(comparison.lead),
        "conclusion": conclusion,
    }
    return summary, [_make_comparison_table(comparison, error), *([conclusion] if conclusion else [])]


def _describe_setting(setting: Setting) -> dict[str, Any]:
    return {
        "settings": setting.settings,
        "n_trainings": setting.n_trainings,
        "metrics": {name: _as_numbers(estimate) for name, estimate in setting.estimates.items()},
        "runs": [_describe(run) for run in setting.runs],
    }


def _as_numbers(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}


def _make_comparison_table(comparison: Comparison, error: ErrorName) -> Table:
    table = Table(title="Settings", title_justify="left", caption_justify="left")
    table.caption = (
        f"the same {comparison.n_images} images; below each number its 95 % interval (bootstrap over the images, "
        "training runs averaged)"
    )
    table.add_column("setting")
    table.add_column("trainings", justify="right")
    names = list(comparison.settings[0].estimates)
    for name in names:
        heading = OVERALL_METRICS[name].label
        table.add_column(f"{heading} ▲" if name == error else heading, justify="right")
    for setting in comparison.settings:
        cells = [
            "–" if math.isnan(one.value) else f"{one.value:.3g}\n[dim]{one.low:.3g}–{one.high:.3g}[/dim]"
            for one in setting.estimates.values()
        ]
        table.add_row(escape(make_printable(setting.name)), str(setting.n_trainings), *cells)
    return table


def judge(comparison: Comparison, error: ErrorName) -> str:
    """Say in words whether the first setting differs detectably from the second; empty if there is only one."""
    if comparison.lead is None:
        return ""
    lead, label = comparison.lead, OVERALL_METRICS[error].label
    first, second = (setting.name.replace("\n", " ") for setting in comparison.settings[:2])
    if math.isnan(lead.value):
        return f"{second} has no {label}: it found nothing."
    text = (
        f"The {label} of {second} minus that of {first} is {lead.value:.3g} (95 % interval {lead.low:.3g} to "
        f"{lead.high:.3g}): "
    )
    text += f"{first} is better on these images." if lead.low > 0 else "these images cannot show which is better."
    if min(setting.n_trainings for setting in comparison.settings[:2]) == 1:
        text += " One of them was trained only once, and other seeds may reverse the order."
    return text


def _summarize_trainings(
    runs: list[Run], path: Path, error: ErrorName, n_resamples: int, seed: int
) -> tuple[dict[str, Any], list[Table | str]]:
    trainings = measure_trainings(runs, error, n_resamples, seed)
    for training in trainings:
        _warn_of_missing(training.runs, training.missing_folds)
    curve = trace_learning_curve([training.point for training in trainings], seed)
    figure = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [(training.point.n_images, training.point.error) for training in trainings]
    draw_learning_curve(curve, points, f"{OVERALL_METRICS[error].label} on held-out images", figure)
    conclusion = conclude(curve)
    summary = {
        "error": error,
        "trainings": [_describe_training(training) for training in trainings],
        "sizes": [
            {"n_images": size, "n_trainings": n_runs, **estimate._asdict()}
            for size, n_runs, estimate in zip(curve.sizes, curve.n_runs, curve.errors, strict=True)
        ],
        "power_law": {name: float(value[0]) for name, value in curve.law._asdict().items()} if curve.law else None,
        "forecast": {"n_images": 2 * curve.sizes[-1], **curve.forecast._asdict()} if curve.forecast else None,
        "gain": curve.gain._asdict() if curve.gain else None,
        "fell": curve.fell._asdict(),
        "conclusion": conclusion,
    }
    return summary, [_make_curve_table(curve, OVERALL_METRICS[error].label), conclusion, f"Figure   {figure}"]


def _describe_training(training: Training) -> dict[str, Any]:
    return {
        "train_fraction": training.train_fraction,
        "seed": training.seed,
        "split_seed": training.split_seed,
        "n_images": training.point.n_images,
        "error": training.point.error,
        "missing_folds": training.missing_folds,
        "runs": [_describe(run) for run in training.runs],
    }


def _make_curve_table(curve: LearningCurve, error: str) -> Table:
    table = Table(title="Learning curve", title_justify="left", caption_justify="left")
    table.caption = "95 % intervals: bootstrap over held-out images and training runs"
    for heading in ("training images", "trainings", error, "95 % interval"):
        table.add_column(heading, justify="right")
    for size, n_runs, estimate in zip(curve.sizes, curve.n_runs, curve.errors, strict=True):
        interval = f"{estimate.low:.3g}–{estimate.high:.3g}"
        table.add_row(f"{size:g}", str(n_runs), f"{estimate.value:.3g}", interval)
    return table


def conclude(curve: LearningCurve) -> str:
    """Say in words what a learning curve shows about more labels, and what it does not."""
    first, last = curve.sizes[0], curve.sizes[-1]
    fell = f"{_percent(curve.fell.value)} (95 % interval {_percent(curve.fell.low)} to {_percent(curve.fell.high)})"
    text = f"From {first:g} to {last:g} training images the error fell by {fell}."
    if min(curve.n_runs) == 1:
        text += (
            " Some sizes were trained only once: these intervals do not include the variation between training runs."
        )
    if not curve.shows_a_fall:
        return f"{text} These runs do not show that more images help; more seeds or held-out images would tell."
    if curve.forecast is None or curve.gain is None:
        return f"{text} A forecast for twice the labels needs runs on at least three different numbers of images."
    span = f"{_percent(curve.gain.low)} to {_percent(curve.gain.high)}"
    forecast = f"{curve.forecast.value:.3g} ({curve.forecast.low:.3g}–{curve.forecast.high:.3g})"
    if not curve.determines_gain:
        return (
            f"{text} The effect of twice the labels ({2 * last:g}) is not determined: an error smaller by anything "
            f"from {span} fits these runs. More seeds, held-out images or sizes would narrow it down."
        )
    gain = f"smaller by {_percent(curve.gain.value)} ({span})"
    return f"{text} With twice the labels ({2 * last:g}) expect {forecast}: {gain}."


def _percent(share: float) -> str:
    return "?" if math.isnan(share) else f"{100 * share:.0f} %"
