"""Warn at the start of a training of what `kpd check` would find in the labels, without reading images."""

import logging

from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.labels import check_channels, check_distances
from keypoint_detection.data.checks.parts import Demands, make_part
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector

__all__ = ["warn_of_labels"]

logger = logging.getLogger(__name__)


def warn_of_labels(data: KeypointsDataModule, model: KeypointDetector) -> None:
    """Warn of channels with few points, of points too close together, and of images in both parts of a split.

    Args:
        data: the data, set up for a training.
        model: defines the channels and how close two points may be.
    """
    demands = Demands(
        image_size=data.image_size,
        resize_mode=data.resize,
        visible_only=data.visible_only,
        max_keypoints=model.codec.max_keypoints,
        min_distance_px=model.codec.min_distance_px,
    )
    tables = {dataset.table.path: (name, dataset.table) for name, dataset in reversed([*data.parts.items()])}
    for name, table in tables.values():
        part = make_part(name, table, table.image_sizes, model.channels, data.visible_only)
        for finding in (*check_channels(part), *check_distances(part, demands)):
            if finding.level == "warning":
                logger.warning("%s `kpd check` lists %s.", finding.sentence, agree(finding.count, "it", "them"))
    files = [set(dataset.table.image_paths[dataset.indices].tolist()) for dataset in data.parts.values()]
    if shared := sorted(set.intersection(*files) if len(files) > 1 else ()):
        logger.warning(
            "%s trained on and validated on (%s): the result says nothing about other images.",
            *(count_in_words(len(shared), "image is", "images are"), shared[0].decode()),
        )
