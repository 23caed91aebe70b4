"""Do the 95 % intervals contain the error on other images?

    python tests/benchmarks/interval_coverage.py PREDICTIONS.npz [PREDICTIONS.npz ...] --sizes 6 10 20 40

PREDICTIONS.npz are what `kpd test` writes on images that chose nothing. Many times over, some of the images are drawn,
their interval is computed as `kpd test` does, and compared with the number on all the others. Those are finite, too:
the share inside is lower than for infinitely many, so the last column gives what perfect intervals would get, whose
width were known: two-sided normal, with the variance of the others added.
"""

import argparse
import math
from pathlib import Path

import torch

from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.metrics.bootstrap import expand_level, percentile_interval
from keypoint_detection.metrics.held_out import read_held_out
from keypoint_detection.metrics.report import INTERVAL_LEVEL, EvaluationReport

N_SPLITS = 200
N_RESAMPLES = 500
FIELDS = ("error_px_mean", "error_px_median", "mean_average_precision")


def read_report(path: Path) -> EvaluationReport:
    """Evaluate the predictions of a run."""
    held_out = read_held_out(path)
    about = held_out.about
    metric = KeypointMetrics(
        about["channels"], about["thresholds_px"], about["relative_thresholds"], about["oks_sigmas"]
    )
    return metric.pool([held_out.rows])


def cover(report: EvaluationReport, n_drawn: int, seed: int) -> dict[str, list[bool]]:
    """Tell for each number and each division whether the interval of the images drawn contains that of the others."""
    generator = torch.Generator().manual_seed(seed)
    n_images = report.n_images
    inside: dict[str, list[bool]] = {field: [] for field in FIELDS}
    for _ in range(N_SPLITS):
        order = torch.randperm(n_images, generator=generator)
        drawn, others = order[:n_drawn], torch.zeros(n_images, 1)
        others[order[n_drawn:]] = 1
        resamples = torch.zeros(n_images, N_RESAMPLES)
        chosen = drawn[torch.randint(n_drawn, (n_drawn, N_RESAMPLES), generator=generator)]
        resamples.scatter_add_(0, chosen, torch.ones(n_drawn, N_RESAMPLES))
        estimated, true = report.overall_in_resamples(resamples), report.overall_in_resamples(others)
        for field in FIELDS:
            low, high = percentile_interval(estimated[field], expand_level(INTERVAL_LEVEL, n_drawn))
            inside[field].append(bool(low <= true[field][0] <= high))
    return inside


def perfect_share(n_drawn: int, n_others: int) -> float:
    """Share of the numbers of the others inside intervals of 1.96 standard errors of the images drawn."""
    return math.erf(1.96 / math.sqrt(1 + n_drawn / n_others) / math.sqrt(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[6, 10, 20, 40])
    arguments = parser.parse_args()
    reports = [read_report(path) for path in arguments.predictions]
    print(f"{'images':>6} {'sets':>4}  {'mean error':>10} {'median':>10} {'mAP':>10} {'perfect':>10}")
    for size in arguments.sizes:
        members = [report for report in reports if report.n_images >= 2 * size]
        if not members:
            continue
        covered = [cover(report, size, seed=0) for report in members]
        shares = [sum(sum(one[field]) for one in covered) / (N_SPLITS * len(members)) for field in FIELDS]
        perfect = sum(perfect_share(size, report.n_images - size) for report in members) / len(members)
        print(f"{size:6} {len(members):4}  " + " ".join(f"{share:10.1%}" for share in (*shares, perfect)), flush=True)


if __name__ == "__main__":
    main()
