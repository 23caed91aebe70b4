"""Write the points that `kpd predict` finds: completely or not at all, and resumable."""

import hashlib
import json
import logging
import shlex
import time
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from keypoint_detection.confidence import UNCALIBRATED_WARNING
from keypoint_detection.data.coco_keypoints import Coordinates, offset_px
from keypoint_detection.data.unlabelled import UnlabelledFile
from keypoint_detection.inference.prediction_files import OUTPUT_FORMATS, Format, Record
from keypoint_detection.inference.results import number_objects, spread_of
from keypoint_detection.inference.thresholds import choose_threshold, read_best_f1
from keypoint_detection.reporting.measuring import is_flip_averaged
from keypoint_detection.reporting.overlay_files import (
    OVERLAY_FOLDER,
    OVERLAY_VIDEO,
    OverlayStyle,
)
from keypoint_detection.reporting.prediction_results import FRAME_FOLDER, write_results
from keypoint_detection.reporting.unfinished_records import (
    PART_PATTERN,
    Unread,
    find_records,
    read_records,
)
from keypoint_detection.training.run_folder import find_run_folder
from keypoint_detection.types import DataError, Detections, ImageBatch

logger = logging.getLogger(__name__)

SETTINGS_FILE = ".unfinished.json"
DIGEST_BYTES = 16
N_DECIMALS, N_SCORE_DECIMALS = 3, 6


class PredictionWriter(Callback):
    """Write predictions to files that other programs can read.

    Args:
        folder: where the files go; by default, the run folder. Files appear only once everything is done.
        format: `csv` (image, channel, x, y, score, probability, spread; for a video, frame after image), `jsonl` (one
            line per image, with covariances), `coco` (results for `COCO.loadRes`), `coco_labels` (a COCO data set to
            correct in a labelling tool, with the frames of videos as images); one or a list. In both COCO formats, the
            best points of every channel make the first instance, the second best the next, and so on: which points
            belong to one object is not predicted.
        score_threshold: points with lower scores are left out, as are those below model.score_threshold. `best_f1` uses
            the threshold with the best F1 in the validation stored in the checkpoint; without one, the low threshold of
            training.
        coordinates: the convention of the points: `continuous` or `pixel_index`; by default, that of the labels that
            the detector was trained on.
        overlays: draw the points on every image, or on every frame of a video.
        resume: resume an interrupted prediction of the same images by the same checkpoint in `folder`.

    Raises:
        DataError: no format is given, or no folder to resume in.
    """

    def __init__(
        self,
        folder: str | None = None,
        format: Format | list[Format] = "csv",
        score_threshold: Literal["best_f1"] | ClosedUnitInterval = "best_f1",
        coordinates: Coordinates | None = None,
        overlays: bool = False,
        resume: bool = False,
    ) -> None:
        if not format:
            raise DataError(f"output.format is empty; one or more of {', '.join(OUTPUT_FORMATS)} are expected.")
        if resume and folder is None:
            raise DataError("output.resume needs the folder of the interrupted prediction: give --output.folder.")
        self.folder = None if folder is None else Path(folder).expanduser()
        self.formats: list[Format] = list(dict.fromkeys(format if isinstance(format, list) else [format]))
        self.score_threshold = score_threshold
        self.coordinates: Coordinates | None = coordinates
        self.overlays = overlays
        self.resume = resume
        # The unreadable images and frames; known on the first process once everything is done.
        self.unread = Unread("", [])
        self._part: Any = None
        self._threshold = 0.0
        self._offset = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the results of an interrupted prediction before images are read."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # The run has no folder yet: if none was given, there is nothing to look for.
        if self.folder is None:
            return
        if self.resume:
            data.predicted = self._read_interrupted(data)
        elif trainer.is_global_zero:
            self._begin(data)

    def _begin(self, data: Any) -> None:
        """Create the folder, unless it contains something that would be lost."""
        assert self.folder is not None
        if any(self.folder.glob(PART_PATTERN)):
            raise DataError(
                f"{self.folder} contains an interrupted prediction. Resume it with --resume, or give "
                "another --output.folder."
            )
        outputs = [
            *(OUTPUT_FORMATS[one].file_name for one in self.formats),
            *((OVERLAY_FOLDER, OVERLAY_VIDEO) * self.overlays),
        ]
        if "coco_labels" in self.formats and any(file.is_video for file in data.unlabelled):
            outputs.append(FRAME_FOLDER)
        finished = [name for name in outputs if (self.folder / name).exists()]
        if finished:
            raise DataError(f"{self.folder / finished[0]} already exists; give another --output.folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / SETTINGS_FILE).write_text(json.dumps(_describe_images(data)), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{self.folder} cannot be written ({error.strerror}); give another --output.folder."
            ) from error

    def _read_interrupted(self, data: Any) -> set[tuple[int, int]]:
        """Find the images and frames that an interrupted prediction has finished."""
        assert self.folder is not None
        stored = self.folder / SETTINGS_FILE
        if not stored.is_file():
            raise DataError(f"{self.folder} contains no interrupted prediction to resume.")
        before, now = json.loads(stored.read_text(encoding="utf-8")), _describe_images(data)
        if before["images"] != now["images"]:
            raise DataError(
                f"{self.folder} contains an interrupted prediction of {before['images']}; this one is of "
                f"{now['images']}. Give the same images, or another --output.folder."
            )
        if before.get("files", now["files"]) != now["files"]:
            raise DataError(
                f"{self.folder} contains an interrupted prediction of {before['images']}, in which files have been "
                "added, removed or renamed since. Restore them, or give another --output.folder."
            )
        finished = (record for record in read_records(find_records(self.folder)) if "error" not in record)
        return {tuple(record["index"]) for record in finished}

    def _compare_settings(self, trainer: Trainer, settings: dict[str, Any]) -> None:
        """Record the settings behind a new prediction's points, and refuse to resume one with other settings."""
        assert self.folder is not None
        stored = self.folder / SETTINGS_FILE
        if not self.resume:
            if trainer.is_global_zero:
                described = _describe_images(trainer.datamodule) | settings  # type: ignore[attr-defined]
                stored.write_text(json.dumps(described), encoding="utf-8")
            return
        before = json.loads(stored.read_text(encoding="utf-8"))
        changed = [name for name, value in settings.items() if before.get(name, value) != value]
        if "weights" in changed:
            raise DataError(
                f"{self.folder} contains an interrupted prediction by another detector. Give its --ckpt_path, or "
                "another --output.folder."
            )
        if changed:
            differences = ", ".join(f"{name} {before[name]!r} instead of {settings[name]!r}" for name in changed)
            raise DataError(
                f"{self.folder} contains an interrupted prediction made with {differences}. Resume it with its "
                "original options, or give another --output.folder."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's part of the result."""
        model, data = _parts(trainer, pl_module)
        best = read_best_f1(model.latest_validation)
        self._threshold = choose_threshold(self.score_threshold, best, model.codec.score_threshold)
        if model.calibration is None and trainer.is_global_zero:
            logger.warning(UNCALIBRATED_WARNING)
        self._offset = offset_px(self.coordinates or data.coordinates)
        if self.folder is None:
            self.folder = Path(trainer.strategy.broadcast(str(find_run_folder(trainer))))
            if trainer.is_global_zero:
                self._begin(data)
            trainer.strategy.barrier()
        settings = _describe_detector(trainer, model, data) | {
            "output.score_threshold": self._threshold,
            "output.coordinates": self.coordinates or data.coordinates,
        }
        self._compare_settings(trainer, settings)
        name = PART_PATTERN.replace("*", f"{trainer.global_rank}-{time.time_ns()}")
        self._part = (self.folder / name).open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the points of a batch, so that an interruption loses at most one batch."""
        model, data = _parts(trainer, pl_module)
        names = list(model.channels)
        detections: Detections = apply_to_collection(outputs, Tensor, Tensor.cpu)
        detections = detections._replace(points=detections.points - self._offset)
        for row, (position, number) in enumerate(batch.indices.tolist()):
            height, width = batch.image_sizes[row].tolist()
            found = _as_points(detections, row, names, self._threshold)
            record = _identify(data.unlabelled, (position, number), is_frame=data.unlabelled[position].is_video)
            self._part.write(json.dumps(record | {"height": height, "width": width} | found, allow_nan=False) + "\n")
        for failure in batch.failures:
            record = _identify(data.unlabelled, failure.place, is_frame=failure.is_frame)
            self._part.write(json.dumps(record | {"error": failure.reason}, allow_nan=False) + "\n")
        self._part.flush()
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log how to resume an interrupted prediction."""
        if self._part is not None and trainer.is_global_zero:
            logger.warning("Interrupted: --output.folder=%s --resume resumes from here.", shlex.quote(str(self.folder)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the parts of all processes."""
        self._part.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._finish(*_parts(trainer, pl_module))

    def _finish(self, model: Any, data: Any) -> None:
        assert self.folder is not None
        style = OverlayStyle(list(model.channels), self._threshold, self._offset) if self.overlays else None
        self.unread = write_results(self.folder, data.unlabelled, data.predict, model.channels, self.formats, style)
        for path in self.folder.glob(PART_PATTERN):
            path.unlink()
        (self.folder / SETTINGS_FILE).unlink(missing_ok=True)


def _describe_images(data: Any) -> dict[str, Any]:
    """Name the images, which must be the same when an interrupted prediction is resumed."""
    names = "\n".join(file.name for file in data.unlabelled)
    digest = hashlib.blake2b(names.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).hexdigest()
    return {"images": str(Path(data.predict).absolute()), "files": digest}


def _describe_detector(trainer: Trainer, model: Any, data: Any) -> dict[str, Any]:
    """List the settings that determine the points found, as plain values by the names of their options."""
    names = list(model.channels)
    mirrored = model.network.mirrored_channels or []
    return {
        "weights": _digest(model),
        "model.channels": names,
        "model.flip_test": is_flip_averaged(model),
        "data.flip_pairs": [[names[one], names[other]] for one, other in enumerate(mirrored) if one < other],
        "model.max_keypoints": model.codec.max_keypoints,
        "model.group": model.vote_codec is not None,
        "model.min_distance_px": model.codec.min_distance_px,
        "model.heatmap_sigma": model.codec.sigma_px,
        "data.image_size": data.image_size and list(data.image_size),
        "data.resize": data.resize,
        "trainer.precision": str(trainer.precision),
    }


def _digest(model: LightningModule) -> str:
    """Identify the weights themselves: another run may overwrite the file that they come from."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _parts(trainer: Trainer, pl_module: LightningModule) -> tuple[Any, Any]:
    return pl_module, trainer.datamodule  # type: ignore[attr-defined]


def _identify(files: list[UnlabelledFile], index: tuple[int, int], *, is_frame: bool) -> Record:
    """Name an image, a video or a frame, whose number counts from 0."""
    name = files[index[0]].name
    identity = {"index": list(index), "name": f"{name}#{index[1]}" if is_frame else name}
    return identity | ({"frame": index[1]} if is_frame else {})


def _as_points(detections: Detections, row: int, channels: list[str], threshold: float) -> Record:
    """List the `points` of one image of a batch that reach the threshold, and the `objects` if they are grouped."""
    scores = detections.scores[row]
    is_point = (scores > 0) & (scores >= threshold)
    found = []
    for c, d in is_point.nonzero().tolist():
        x, y = detections.points[row, c, d].tolist()
        point = {"channel": channels[c], "x": round(x, N_DECIMALS), "y": round(y, N_DECIMALS)}
        found.append(point | {"score": round(float(scores[c, d]), N_SCORE_DECIMALS)})
        if detections.probabilities is not None and detections.covariances is not None:
            found[-1] |= _confidence(float(detections.probabilities[row, c, d, -1]), detections.covariances[row, c, d])
    grouping = detections.grouping
    if grouping is None:
        return {"points": found}
    scores_of_objects = grouping.object_scores[row].numpy()
    numbers, kept = number_objects(grouping.objects[row].numpy(), scores_of_objects, is_point.numpy())
    shares = grouping.belonging
    for point, (c, d) in zip(found, is_point.nonzero().tolist(), strict=True):
        point["object"] = None if numbers[c, d] < 0 else int(numbers[c, d])
        if shares is not None and numbers[c, d] >= 0:
            point["belonging"] = round(float(shares[row, c, d]), N_SCORE_DECIMALS)
    objects = [
        {"score": round(score, N_SCORE_DECIMALS), "box": _find_box([one for one in found if one["object"] == number])}
        for number, score in enumerate(kept)
    ]
    return {"points": found, "objects": objects}


def _find_box(points: list[Record]) -> list[float]:
    """Return the left, top, width and height of points."""
    (left, right), (top, bottom) = (
        (min(values), max(values)) for values in ([one[axis] for one in points] for axis in ("x", "y"))
    )
    return [left, top, round(right - left, N_DECIMALS), round(bottom - top, N_DECIMALS)]


def _confidence(probability: float, covariance: Tensor) -> Record:
    return {
        "probability": round(probability, N_SCORE_DECIMALS),
        "spread": round(float(spread_of(covariance.numpy())), N_DECIMALS),
        "covariance": [[round(value, N_DECIMALS) for value in row] for row in covariance.tolist()],
    }
