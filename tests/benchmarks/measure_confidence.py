"""Are probabilities and covariances right on images that they were not calibrated on?

    python tests/benchmarks/measure_confidence.py best.ckpt held_out.json

calibrates on half of the images and tests on the other half, many times over, and prints the mean of the halves; their
detections pooled; and what a perfect calibration would get on as few detections as one half has. The images must be
none of those that the detector was trained on.
"""

import argparse
import math

import torch

from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.metrics import KeypointMetrics
from keypoint_detection.metrics.calibration import (
    bin_reliability,
    expected_calibration_error,
    fit_calibration,
    measure_confidence,
)
from keypoint_detection.metrics.evaluation import DetectionList, Measurements


def measure_all(checkpoint: str, labels: str, thresholds_px: list[float]) -> Measurements:
    """Detect in every image of a COCO file."""
    detector = load_detector(checkpoint, flip_test=None)
    data = KeypointsDataModule(
        val=labels,
        test=labels,
        channels=detector.channels,
        image_size=detector.inputs.image_size,
        resize=detector.inputs.resize,
        coordinates=detector.inputs.coordinates,
        num_workers=0,
    )
    data.prepare_data()
    data.setup("test")
    metric = KeypointMetrics(list(detector.channels), thresholds_px)
    with torch.inference_mode():
        for batch in data.test_dataloader():
            metric.update(detector.codec.decode(torch.sigmoid(detector.network(batch.images).logits.float())), batch)
    report = metric.compute()
    error, mean = report.overall.error_px_median, report.overall.mean_average_precision
    print(f"{report.n_images} images, {report.overall.n_detections} detections, mAP {mean:.3f}, median {error:.2f} px")
    assert report.measurements is not None
    return report.measurements


def select_images(measurements: Measurements, is_chosen: torch.Tensor) -> Measurements:
    """Keep the detections of some of the images: all that a calibration looks at."""
    kept = is_chosen[measurements.detections.image]
    return Measurements(
        image_ids=measurements.image_ids,
        detections=DetectionList(*(values[kept] for values in measurements.detections)),
        is_true_positive=measurements.is_true_positive[:, kept],
        offsets_px=measurements.offsets_px[kept],
        truths=measurements.truths,
        errors_px=measurements.errors_px,
        lengths_px=measurements.lengths_px,
        losses=None,
        thresholds_px=measurements.thresholds_px,
        relative_thresholds=measurements.relative_thresholds,
        n_channels=measurements.n_channels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("labels", help="COCO file of images that the detector has not seen")
    parser.add_argument("--n_splits", type=int, default=20)
    parser.add_argument("--thresholds_px", type=float, nargs="+", default=[2.0, 4.0, 8.0])
    options = parser.parse_args()
    everything = measure_all(options.checkpoint, options.labels, options.thresholds_px)
    generator = torch.Generator().manual_seed(0)
    n_images, thresholds = len(everything.image_ids), options.thresholds_px
    errors, floors, coverages, claims, rights = [], [], [], [], []
    for _ in range(options.n_splits):
        is_first = torch.zeros(n_images, dtype=torch.bool)
        is_first[torch.randperm(n_images, generator=generator)[: n_images // 2]] = True
        calibration = fit_calibration(select_images(everything, is_first))
        if calibration is None:
            raise SystemExit(
                "fewer than ten detections of a half are right; a better detector or more images are needed"
            )
        tested = select_images(everything, ~is_first)
        result = measure_confidence(tested, calibration)
        errors.append([expected_calibration_error(curve) for curve in result.curves])
        coverages.append(result.coverage)
        claims.append(calibration.probabilities(tested.detections.scores.double()))
        rights.append(tested.is_true_positive.T)
        lucky = torch.rand(claims[-1].shape, generator=generator) < claims[-1]
        floors.append([_error(claims[-1][:, t], lucky[:, t]) for t in range(len(thresholds))])
    claimed, is_right = torch.cat(claims), torch.cat(rights)
    print("threshold   ECE: mean of halves   pooled   perfect calibration, mean of halves")
    for t, threshold in enumerate(thresholds):
        mean, floor = (sum(row[t] for row in rows) / len(rows) for rows in (errors, floors))
        print(f"{threshold:6g} px {mean:19.3f} {_error(claimed[:, t], is_right[:, t]):10.3f} {floor:20.3f}")
    known = [value for value in coverages if not math.isnan(value)]
    print(
        f"within one standard deviation: {sum(known) / len(known):.1%} (halves: {min(known):.0%} to {max(known):.0%})"
    )


def _error(probabilities: torch.Tensor, is_right: torch.Tensor) -> float:
    return expected_calibration_error(bin_reliability(0.0, probabilities, is_right))


if __name__ == "__main__":
    main()
