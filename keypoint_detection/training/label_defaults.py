"""Settings filled in from the labels: the channels, and the maximum number of points of each in an image."""

import logging
from pathlib import Path

from jsonargparse import Namespace

from keypoint_detection.boxes.scene import KEYPOINT_NAMES
from keypoint_detection.channels import resolve_channels
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.labels import count_grouped_images, count_per_image
from keypoint_detection.data.checks.parts import Part, make_part
from keypoint_detection.data.coco_keypoints import CocoKeypoints
from keypoint_detection.data.label_files import read_table
from keypoint_detection.types import DataError

logger = logging.getLogger(__name__)


def fill_in_channels(model: Namespace, data: Namespace) -> None:
    """Give each keypoint type of the labels a channel with its name if channels were left out.

    Args:
        model: the parsed settings of the detector; changed in place.
        data: the parsed settings of the data.

    Raises:
        DataError: there is no file with labels, or it cannot be read.
    """
    if model.channels is not None:
        return
    source = data.train or data.val or data.test
    if data.synthetic is not None:
        model.channels = list(KEYPOINT_NAMES)  # the boxes need not be drawn yet
    elif source is None:
        raise DataError("no training file: give --data.train=FILE.json (a COCO keypoint file), or data.synthetic.")
    else:
        model.channels = list(resolve_channels(None, _read(source, data).keypoint_types, source))


def fill_in_group(model: Namespace, data: Namespace) -> None:
    """Choose whether points are grouped if that was left out, and log it if they are.

    They are if an image has several objects, one of them with several points. If the user asks for it although none
    has, the log says so.

    Args:
        model: the parsed settings of the detector, with its channels; changed in place.
        data: the parsed settings of the data.

    Raises:
        DataError: the training file cannot be read, or lacks a type that a channel names.
    """
    is_given = model.group is not None
    if model.group is False:
        return
    model.group = bool(model.group)
    if data.synthetic is not None:
        model.group |= _max_boxes(data) > 1
        return
    if data.train is None:
        return
    n_images = count_grouped_images(_read_training_part(model, data))
    if is_given and not n_images:
        logger.info(
            "model.group is true, but no image of %s has several objects: there is nothing to learn about telling them "
            "apart.",
            data.train,
        )
    elif not is_given and n_images:
        model.group = True
        logger.info(
            "Points are grouped into objects: %s of %s several objects. --model.group=false leaves that out.",
            *(count_in_words(n_images, "image"), f"{data.train} {agree(n_images, 'has', 'have')}"),
        )


def fill_in_max_keypoints(model: Namespace, data: Namespace) -> None:
    """Fill in the maximum number of points of a channel if it was left out, and log that.

    In images like these, any more detections can only be wrong.

    Args:
        model: the parsed settings of the detector, with its channels; changed in place.
        data: the parsed settings of the data.

    Raises:
        DataError: the training file cannot be read, or lacks a type that a channel names.
    """
    if model.max_keypoints is not None:
        return
    if data.synthetic is not None:  # not drawn yet
        channels = model.channels
        most = _max_boxes(data) * (max(map(len, channels.values())) if isinstance(channels, dict) else 1)
        source = "data.synthetic"
    elif data.train is not None:
        source = data.train
        most = int(count_per_image(_read_training_part(model, data)).max(initial=0))
    else:
        return
    model.max_keypoints = max(1, most)
    points = count_in_words(model.max_keypoints, "point")
    logger.info(
        "At most %s of a channel %s found in an image, the maximum in %s; --model.max_keypoints sets another.",
        *(points, "is" if model.max_keypoints == 1 else "are", source),
    )


def _max_boxes(data: Namespace) -> int:
    return int(data.synthetic.get("max_boxes", 1))


def _read_training_part(model: Namespace, data: Namespace) -> Part:
    table = _read(data.train, data)
    channels = resolve_channels(model.channels, table.keypoint_types, data.train)
    return make_part("train", table, table.image_sizes, channels, data.visible_only)


def _read(source: str, data: Namespace) -> CocoKeypoints:
    bounds = (data.missing_images, data.outside_images)
    return read_table(Path(source), data.image_root, data.coordinates, data.categories, *bounds)
