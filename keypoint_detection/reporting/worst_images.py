"""The images on which a detector does worst, as a list and as overlays."""

import csv
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from keypoint_detection.drawing import DRAWN_SCORE, Drawable
from keypoint_detection.geometry import apply_affine
from keypoint_detection.metrics.matching import pair_nearest
from keypoint_detection.metrics.report import ImageErrors, severity
from keypoint_detection.printing import make_plain_cell
from keypoint_detection.reporting.measuring import MeasuringCallback, find_image_files, find_image_names, find_report
from keypoint_detection.tracking.tables import log_table, wandb_loggers
from keypoint_detection.training.run_folder import find_run_folder
from keypoint_detection.types import NOT_LABELLED, Batch

# Larger images are shrunk to this size: two of them side by side would take seconds to write.
MAX_SIDE_PX = 2000


class _Candidate(NamedTuple):
    rank: tuple[int, float, int]
    image_id: int
    image: Drawable


class WorstDrawings:
    """Keep the worst images of a process as their batches are processed, and draw them at their own resolution.

    Args:
        n_images: how many drawings to keep.
        min_score: predictions with lower scores are not drawn.
    """

    def __init__(self, n_images: int, min_score: float) -> None:
        self.n_images, self.min_score = n_images, min_score
        self._candidates: list[_Candidate] = []

    def consider(self, outputs: Any, batch: Batch) -> None:
        """Keep each image that is worse than the least bad of those kept so far."""
        is_labelled = batch.visibility != NOT_LABELLED
        # In float64, as in the metrics, so that the errors are equal.
        found, truths = (
            apply_affine(points.double(), batch.input_to_image).flatten(0, 1)
            for points in (outputs.detections_input.points, batch.points)
        )
        scores = outputs.detections_input.scores.flatten(0, 1)
        errors = pair_nearest(found, scores, truths, is_labelled.flatten(0, 1)).view(is_labelled.shape)
        seen = {candidate.image_id for candidate in self._candidates}
        for index in range(len(batch.images)):
            image_id = int(batch.image_ids[index])
            of_image = errors[index][is_labelled[index]]
            is_found = of_image.isfinite()
            largest = float(of_image[is_found].max()) if is_found.any() else math.nan
            rank = (*severity(int((~is_found).sum()), largest), -image_id)
            is_full = len(self._candidates) >= self.n_images
            if image_id in seen or (is_full and rank <= self._candidates[-1].rank):
                continue
            self._candidates.append(_Candidate(rank, image_id, Drawable.of_batch(outputs, batch, index)))
            self._candidates.sort(key=lambda candidate: candidate.rank, reverse=True)
            del self._candidates[self.n_images :]

    def take(self, trainer: Trainer, channels: Sequence[str]) -> dict[int, Image.Image]:
        """Return the drawings by image id, and start over."""
        candidates, self._candidates = self._candidates, []
        files = find_image_files(trainer, [candidate.image_id for candidate in candidates])
        return {
            image_id: image.draw_file(files.get(image_id), MAX_SIDE_PX, channels, self.min_score)
            for _, image_id, image in candidates
        }


class WorstImages(MeasuringCallback):
    """Write the errors of every image, worst first, and draw the worst ones, after `kpd validate` and `kpd test`.

    The list is `per_image.csv` and the images are in `worst/` in the run folder; Weights & Biases gets a table of
    them. Use it with `--trainer.callbacks+=WorstImages`.

    Args:
        n_images: how many images to draw.
        min_score: predictions with lower scores are not drawn.
    """

    def __init__(self, n_images: PositiveInt = 10, min_score: ClosedUnitInterval = DRAWN_SCORE) -> None:
        self.n_images = n_images
        self.min_score = float(min_score)
        self._drawings = WorstDrawings(n_images, self.min_score)

    def on_measured_batch(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch) -> None:
        """Keep the images of the batch that are among the worst so far."""
        self._drawings.consider(outputs, batch)

    def on_measured(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the list and the images."""
        # Each process has the drawings of its own images.
        drawn = self._drawings.take(trainer, list(pl_module.channels))  # type: ignore[arg-type]
        report = find_report(pl_module)
        if report is None:
            return
        errors = report.per_image_errors()
        folder = find_run_folder(trainer)
        (folder / "worst").mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            with (folder / "per_image.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                writer = csv.writer(file)
                names = find_image_names(trainer, [row.image_id for row in errors])
                writer.writerow([*ImageErrors._fields, "file"])
                writer.writerows([*row, make_plain_cell(names.get(row.image_id, ""))] for row in errors)
        worst = [(rank, row, drawn[row.image_id]) for rank, row in enumerate(errors, 1) if row.image_id in drawn]
        worst = [entry for entry in worst if entry[0] <= self.n_images]
        for rank, row, image in worst:
            image.save(folder / "worst" / f"{rank:03d}-image-{row.image_id}.png")
        for logger in wandb_loggers(trainer) if trainer.is_global_zero else ():
            log_table(
                logger, "worst_images", [*ImageErrors._fields, "image"], [[*row, image] for _, row, image in worst]
            )
