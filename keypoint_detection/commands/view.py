"""The command `kpd view`: labels and the predictions of several checkpoints, image by image, in FiftyOne."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import ClosedUnitInterval
from numpy.typing import NDArray

from keypoint_detection.data.coco_keypoints import CocoKeypoints, Coordinates
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.data.label_files import read_table
from keypoint_detection.extras import how_to_install
from keypoint_detection.images import read_sizes
from keypoint_detection.inference.predictor import Predictor
from keypoint_detection.inference.results import Result
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.printing import say
from keypoint_detection.types import DataError

GROUND_TRUTH = "ground_truth"
# The fields that every sample has.
RESERVED = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at")


def run(words: Sequence[str]) -> None:
    """Show the data set described by the words, the first of which is `view`.

    Raises:
        SystemExit: the words or the data are wrong, or FiftyOne is missing (2).
    """
    call_with_words(view, "kpd view", words[1:])


def view(
    data: str,
    ckpt_path: str | list[str],
    image_root: str | None = None,
    missing_images: MissingImages = "error",
    outside_images: OutsideImages = "error",
    coordinates: Coordinates = "continuous",
    score_threshold: ClosedUnitInterval | Literal["best_f1"] = "best_f1",
) -> None:
    """Show the labels of a data set and the predictions of detectors side by side in a browser, with FiftyOne.

    The field `ground_truth` has the labels; every checkpoint has its own field. Labels and points that are grouped into
    objects carry the number of their object as `index`, by which FiftyOne can colour them. Ctrl-C quits.

    Args:
        data: the COCO keypoint file.
        ckpt_path: checkpoint of a detector, or a list of them: paths or wandb://entity/project/name:alias.
        image_root: folder that the images' file names are relative to; by default, the folder of the file.
        missing_images: whether images whose file is missing are an error, or left out (skip).
        outside_images: whether images outside that folder are an error, or shown too (allow).
        coordinates: convention of the file: in `continuous`, (0, 0) is the outer corner of the top-left pixel; in
            `pixel_index`, integers name pixels.
        score_threshold: points with lower scores are left out. `best_f1` uses the score with the best F1 in each
            detector's validation.

    Raises:
        ValueError: FiftyOne is not installed, or a file cannot be used.
    """
    fiftyone = _import_fiftyone()
    try:
        table = read_table(Path(data), image_root, coordinates, None, missing_images, outside_images)
    except DataError as error:
        # The options have other names here than in `kpd fit`.
        raise DataError(str(error).replace("--data.", "--")) from error
    paths = [ckpt_path] if isinstance(ckpt_path, str) else ckpt_path
    predictors = {
        field: Predictor.from_checkpoint(path, score_threshold=score_threshold, coordinates="continuous")
        for field, path in zip(name_fields(paths), paths, strict=True)
    }
    for field, path in zip(predictors, paths, strict=True):
        say(f"{field}: {path}\n")
    dataset = fiftyone.Dataset()
    dataset.add_samples(list(make_samples(fiftyone, table, predictors)))
    session = fiftyone.launch_app(dataset)
    session.wait()


def make_samples(fiftyone: Any, table: CocoKeypoints, predictors: Mapping[str, Predictor]) -> Iterator[Any]:
    """Make a sample of each image, with its labels and the predictions of each detector.

    Args:
        fiftyone: the imported module.
        table: the data set.
        predictors: the predictors, by the field for their predictions.
    """
    n_types = len(table.keypoint_types)
    for index, stored in enumerate(table.image_paths):
        path = stored.decode()
        height, width = read_sizes(path).shown
        # FiftyOne expects fractions of the width and the height.
        scale = np.array([width, height])
        rows = slice(table.offsets[index], table.offsets[index + 1])
        types, truths = table.types[rows], table.truths
        sample = fiftyone.Sample(filepath=path)
        true = [
            _as_keypoints(fiftyone, str(one), truths.points[rows][is_type] / scale, truths.instances[rows][is_type])
            for one, is_type in zip(table.keypoint_types, types == np.arange(n_types)[:, None], strict=True)
        ]
        sample[GROUND_TRUTH] = fiftyone.Keypoints(keypoints=list(itertools.chain(*true)))
        for field, predictor in predictors.items():
            result = predictor(path)
            predicted = [
                _as_keypoints(fiftyone, name, points / scale, _objects_of(result, name), result.scores[name])
                for name, points in result.xy.items()
            ]
            sample[field] = fiftyone.Keypoints(keypoints=list(itertools.chain(*predicted)))
        yield sample


def name_fields(paths: Sequence[str]) -> list[str]:
    """Name the field of each checkpoint after its file, in characters that FiftyOne allows, without repeats.

    >>> name_fields(["a/best.ckpt", "b/best.ckpt", "wandb://me/p/model:v3"])
    ['best', 'best_2', 'model_v3']
    """
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"\W+", "_", path.rsplit("/", 1)[-1].removesuffix(".ckpt"), flags=re.ASCII).strip("_")
        stem = stem if re.match(r"[A-Za-z]", stem) else f"detector_{stem}"
        name, number = stem, 1
        while name in (GROUND_TRUTH, *RESERVED, *names):
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names


def _objects_of(result: Result, channel: str) -> NDArray[np.int64]:
    """Return the object of each point of a channel; -1 for none, as of all points of a detector without grouping."""
    return np.full(len(result.xy[channel]), -1) if result.object_of is None else result.object_of[channel]


def _as_keypoints(
    fiftyone: Any,
    name: str,
    points: NDArray[np.floating[Any]],
    objects: NDArray[np.int64],
    scores: NDArray[np.float32] | None = None,
) -> list[Any]:
    """Make a label of the points of one name in each object, and of those in none (-1).

    Args:
        fiftyone: the imported module.
        name: of the keypoint type or channel.
        points: (N, 2) fractions of the image size.
        objects: (N,) the object of each.
        scores: (N,), if they were predicted.
    """
    labels = []
    for number in np.unique(objects).tolist():
        is_member = objects == number
        further = {} if number < 0 else {"index": number}
        if scores is not None:
            further["confidence"] = scores[is_member].tolist()
        places = [tuple(point) for point in points[is_member].tolist()]
        labels.append(fiftyone.Keypoint(label=name, points=places, **further))
    return labels


def _import_fiftyone() -> ModuleType:
    try:
        import fiftyone
    except ImportError as error:
        raise DataError(
            f"kpd view shows images with FiftyOne, which is not installed: {how_to_install('view')}."
        ) from error
    module: ModuleType = fiftyone
    return module
