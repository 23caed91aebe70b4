"""Warn before training or testing of problems that `kpd check` would find in the labels, without reading images."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from keypoint_detection.channels import mirror_channels
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.groups import check_shared_groups
from keypoint_detection.data.checks.labels import check_channels, check_counts, check_distances
from keypoint_detection.data.checks.parts import Part, Requirements, make_part
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.types import DataError

logger = logging.getLogger(__name__)


def warn_of_labels(data: KeypointsDataModule, model: KeypointDetector) -> None:
    """Warn of channels with few points, of points too close together, and of images in both parts of a split.

    Args:
        data: the data, set up for training.
        model: defines the channels and the minimum distance between two points.
    """
    requirements = _requirements_of(data, model)
    parts = list(_parts_by_file(data, model))
    for part in parts:
        _warn([*check_channels(part), *check_distances(part, requirements)])
    if (held_out := data.describe_split()) is not None:
        logger.info("%s", held_out)
    _warn_of_sides(data)
    _warn_of_channels_without_twin(data, model)
    files = [set(dataset.table.image_paths[dataset.indices].tolist()) for dataset in data.parts.values()]
    if shared := sorted(set.intersection(*files) if len(files) > 1 else ()):
        logger.warning(
            "%s trained on and validated on (%s): the result says nothing about other images.",
            *(count_in_words(len(shared), "image is", "images are"), shared[0].decode()),
        )
    else:
        _warn(check_shared_groups(parts))


def warn_of_crowded_images(data: KeypointsDataModule, model: KeypointDetector) -> None:
    """Warn of images with more points of a channel than the model returns.

    Args:
        data: the data, set up; only points of images in one of its parts count.
        model: defines the channels and the maximum number of points.
    """
    for part in _parts_by_file(data, model):
        used = [dataset.used_points() for dataset in data.parts.values() if dataset.table.path == part.path]
        _warn(check_counts(part._replace(in_channels=np.logical_or.reduce(used)), _requirements_of(data, model)))


def _warn_of_sides(data: KeypointsDataModule) -> None:
    """Warn of types that look like left and right if images are mirrored but no types are set to swap."""
    if data.flip_pairs is None or len(data.flip_pairs):
        return
    names = {one.name for dataset in data.parts.values() for one in dataset.table.keypoint_types}
    twins = sorted((name, twin) for name in names if (twin := _name_right(name)) in names - {name})
    if twins:
        logger.warning(
            "data.flip_pairs is [], so nothing swaps in mirrored images, but the file has %s and %s: their "
            "detections would mix left and right. If they swap, set data.flip_pairs: [%s].",
            *twins[0],
            ", ".join(f"[{left}, {right}]" for left, right in twins),
        )


def _warn_of_channels_without_twin(data: KeypointsDataModule, model: KeypointDetector) -> None:
    """Warn if heatmaps are not averaged with those of mirrored images although the pairs are known."""
    if data.flip_pairs is None or model.flip_test is not None:
        return
    try:
        mirror_channels(model.channels, data.flip_pairs)
    except DataError as error:
        logger.warning("Heatmaps are not averaged with those of mirrored images: %s.", error)


def _name_right(left: str) -> str:
    return left.replace("left", "right").replace("Left", "Right").replace("LEFT", "RIGHT")


def _requirements_of(data: KeypointsDataModule, model: KeypointDetector) -> Requirements:
    return Requirements(
        image_size=data.image_size,
        resize_mode=data.resize,
        visible_only=data.visible_only,
        max_keypoints=model.codec.max_keypoints,
        min_distance_px=model.codec.min_distance_px,
    )


def _parts_by_file(data: KeypointsDataModule, model: KeypointDetector) -> Iterator[Part]:
    """Yield each file once, as the first part that it is used for."""
    tables = {dataset.table.path: (name, dataset.table) for name, dataset in reversed([*data.parts.items()])}
    for name, table in tables.values():
        yield make_part(name, table, table.image_sizes, model.channels, data.visible_only)


def _warn(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.level == "warning":
            logger.warning("%s `kpd check` lists %s.", finding.sentence, agree(finding.count, "it", "them"))
