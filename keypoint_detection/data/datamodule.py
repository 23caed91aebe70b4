"""The LightningDataModule: files, splits, loaders."""

import hashlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set, is_drawn
from keypoint_detection.channels import resolve_channels
from keypoint_detection.checkpoints.specifications import as_plain
from keypoint_detection.data.augmentation import default_augmentation, try_augmentation
from keypoint_detection.data.coco import CocoKeypoints, Coordinates
from keypoint_detection.data.dataset import KeypointsDataset, MostPoints, Sample, collate
from keypoint_detection.data.files import DataFiles, find_files, read_table
from keypoint_detection.data.image_files import check_images, count_points_outside
from keypoint_detection.data.sampling import EpochSampler
from keypoint_detection.data.unlabelled import (
    UnlabelledFrames,
    UnlabelledImage,
    UnlabelledImages,
    collate_images,
    find_images,
    is_video,
)
from keypoint_detection.images import ResizeMode
from keypoint_detection.types import Batch, DataError, ImageBatch

__all__ = ["KeypointsDataModule"]

logger = logging.getLogger(__name__)

# More workers than this seldom help, and each holds a copy of the interpreter.
MAX_AUTOMATIC_WORKERS = 8

# Fewer pixels show nothing that a network could find.
SMALLEST_SIDE_PX = 8
# Where Lightning keeps the seed of `seed_everything`.
SEED_VARIABLE = "PL_GLOBAL_SEED"


class KeypointsDataModule(LightningDataModule):
    """Load images and keypoints from COCO keypoint files.

    Args:
        train: COCO keypoint file (JSON) to train on.
        val: COCO keypoint file to validate on. Left out, a part of `train` is kept aside.
        test: COCO keypoint file for `kpd test`.
        predict: what `kpd predict` finds points in: an image, a folder and all below it, a pattern such as
            'frames/**/*.jpg', a COCO file, or a video.
        image_root: folder that the images' file names are relative to. Left out, it is the folder of each JSON file.
        categories: names of the categories whose annotations count, e.g. [person]; in images without them nothing is
            to be found. Left out, all that have keypoints.
        synthetic: draw a data set of cardboard boxes once and use it in place of the files.
        channels: set by `model.channels`; used from Python only. Channel name to the keypoint types it collects.
        val_fraction: part of the training images that is kept aside for validation where `val` is left out.
        split_seed: seed of that split. The same seed and file give the same split.
        image_size: height and width in pixels that every image is brought to. Left out, images keep their size,
            which must then be the same for all. Smaller is faster; larger finds smaller things.
        resize: how images are brought to it: `letterbox` keeps the aspect ratio and adds bars, `stretch` does not.
        coordinates: `continuous` where (0, 0) is the outer corner of the top-left pixel (CVAT, Label Studio,
            Roboflow); `pixel_index` where integers name pixels (the official COCO person keypoints).
        visible_only: leave out occluded points (v=1), in training and in measuring.
        augment: change the training images at random. Validation and test images are never changed.
        augmentation: torchvision v2 transforms in place of the default ones (crop, scale, rotate, colour, blur, and
            flip where `flip_pairs` is given). Points that leave the image are dropped.
        flip_pairs: keypoint types that change places in a mirrored image, e.g. [[left_ear, right_ear]]; [] where
            none does. Left out, images are not mirrored.
        batch_size: images per batch and device.
        num_workers: processes that read images; 0 reads in the training process. Left out, one less than the cores.

    Raises:
        ValueError: the options contradict each other.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        predict: str | None = None,
        image_root: str | None = None,
        categories: list[str] | None = None,
        synthetic: SyntheticBoxes | None = None,
        channels: dict[str, list[str]] | list[str] | None = None,
        val_fraction: OpenUnitInterval = 0.2,
        split_seed: NonNegativeInt = 0,
        image_size: tuple[PositiveInt, PositiveInt] | None = None,
        resize: ResizeMode = "letterbox",
        coordinates: Coordinates = "continuous",
        visible_only: bool = False,
        augment: bool = True,
        augmentation: list[v2.Transform] | None = None,
        flip_pairs: list[tuple[str, str]] | None = None,
        batch_size: PositiveInt = 16,
        num_workers: NonNegativeInt | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            # Made in Python: these are objects, not the specifications of a config file; no checkpoint may hold them.
            self.remove_ignored_hparams(["augmentation", "synthetic"])
            self.hparams.update({name: as_plain(value) for name, value in self.hparams.items()})
        if image_size is not None and min(image_size) < SMALLEST_SIDE_PX:
            raise DataError(
                f"data.image_size is {tuple(image_size)} (height, width); the minimum is {SMALLEST_SIDE_PX} px a side."
            )
        self.train, self.val, self.test, self.synthetic = train, val, test, synthetic
        self.predict = predict
        self.image_root = image_root
        self.categories = categories
        self.channels = channels
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.image_size = image_size
        self.resize: ResizeMode = resize
        self.coordinates: Coordinates = coordinates
        self.visible_only = visible_only
        self.flip_pairs = flip_pairs
        self.batch_size = batch_size
        self.num_workers = _default_workers() if num_workers is None else num_workers
        transforms = default_augmentation(flip_pairs is not None) if augmentation is None else augmentation
        self.transform = v2.Compose(transforms) if augment and transforms else None
        # Where a training that is resumed goes on: its epoch, and the batches that it has had of that.
        self._epoch, self._n_batches = 0, 0
        self._datasets: dict[str, KeypointsDataset] = {}
        # What points are to be found in; empty for a video, whose frames are counted only in reading them.
        self.unlabelled: list[UnlabelledImage] = []
        # The images or frames that an interrupted prediction has had already.
        self.predicted: set[int] = set()

    def prepare_data(self) -> None:
        """Draw the procedural data set if one is asked for and not there yet; Lightning calls it once a machine.

        Raises:
            FileExistsError: its folder holds something else.
        """
        if self.synthetic is not None and not is_drawn(Path(self.synthetic.folder).expanduser(), self.synthetic):
            draw_data_set(self.synthetic)

    def setup(self, stage: str) -> None:
        """Read the files that a stage needs; reading them again is free.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            DataError: a file is missing or wrong, or a channel names a type that it does not have.
        """
        files = find_files(self.train, self.val, self.test, self.synthetic)
        if stage == "fit" and "train" not in self._datasets:
            self._set_up_training(files)
        if stage in ("fit", "validate") and "val" not in self._datasets:
            self._set_up_validation(files)
        if stage == "test" and "test" not in self._datasets:
            if files.test is None:
                raise DataError("no test file: give --data.test=FILE.json (a COCO keypoint file).")
            self._datasets["test"] = self._dataset(files.test)
        if stage == "predict" and not self.unlabelled:
            if self.predict is None:
                raise DataError("no images to find points in: give --data.predict, e.g. a folder or a video.")
            if not is_video(self.predict):
                self.unlabelled = find_images(self.predict, self.image_root)
            elif not Path(self.predict).is_file():
                raise DataError(f"data.predict: there is no video {self.predict!r}.")

    def _set_up_training(self, files: DataFiles) -> None:
        if files.train is None:
            raise DataError(
                "no training file: give --data.train=FILE.json (a COCO keypoint file), or set data.synthetic."
            )
        indices = None if files.val else self._split(files.train)[0]
        dataset = self._dataset(files.train, indices, self.transform)
        if not dataset.used_points().any():
            raise DataError(
                f"{files.train}: not a single labelled keypoint (v=1 or v=2) is left to train on. The file has "
                f"{len(dataset.table.points)}; what leaves them out are the channels, visible_only, the borders of the "
                f"images, and the split ({len(dataset)} of {len(dataset.table.image_ids)} images)."
            )
        if self.transform is not None:
            try_augmentation(self.transform, self.image_size or dataset.first_size(), self.flip_pairs)
        self._datasets["train"] = dataset

    def _set_up_validation(self, files: DataFiles) -> None:
        if files.val is not None:
            self._datasets["val"] = self._dataset(files.val)
        elif files.train is not None:
            self._datasets["val"] = self._dataset(files.train, self._split(files.train)[1])
        else:
            raise DataError("no validation file: give --data.val=FILE.json, or --data.train to use a part of it.")

    def _table(self, path: Path) -> CocoKeypoints:
        return read_table(path, self.image_root, self.coordinates, self.categories)

    def _split(self, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the training and of the validation part, each in the order of the file."""
        n_images = len(self._table(path).image_ids)
        n_val = max(1, round(n_images * self.val_fraction))
        if n_val >= n_images:
            raise DataError(f"{path}: {n_images} image(s) cannot be split into training and validation; give data.val.")
        order = np.random.default_rng(self.split_seed).permutation(n_images)
        return np.sort(order[n_val:]), np.sort(order[:n_val])

    def _dataset(
        self, path: Path, indices: NDArray[np.int64] | None = None, transform: Callable[..., Any] | None = None
    ) -> KeypointsDataset:
        table = self._table(path)
        channels = resolve_channels(self.channels, table.keypoint_types, path)
        indices = np.arange(len(table.image_ids)) if indices is None else indices
        sizes = check_images(table, indices, needs_equal_sizes=self.image_size is None)
        count_points_outside(table, indices, sizes)
        return KeypointsDataset(
            table,
            channels,
            indices,
            self.image_size,
            self.resize,
            transform,
            self.flip_pairs,
            self.visible_only,
            sizes,
        )

    def describe(self) -> dict[str, dict[str, Any]]:
        """Describe the parts that are set up: file, SHA-256, number of images, labelled points per channel."""
        return {part: _describe(dataset, self.channels) for part, dataset in self._datasets.items()}

    def first_size(self) -> tuple[int, int]:
        """Give (height, width) in pixels of what the network gets to see first."""
        return self.image_size or next(iter(self._datasets.values())).first_size()

    def most_points(self) -> dict[str, MostPoints]:
        """Find in each part that is set up the image with the most points of one channel."""
        return {part: dataset.most_points() for part, dataset in self._datasets.items()}

    def train_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the training part: shuffled and augmented, from where a resumed training was."""
        return self._loader("train", self._epoch_sampler())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the validation part, in the order of the file."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the test file, in its order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Make the loader of the images to find points in; images that keep their own size come one by one."""
        assert self.predict is not None
        is_alone = self.image_size is None and not is_video(self.predict)
        dataset: UnlabelledFrames | UnlabelledImages
        if is_video(self.predict):
            n_processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
            dataset = UnlabelledFrames(
                self.predict, self.image_size, self.resize, self.predicted, n_processes=n_processes, rank=rank
            )
        else:
            dataset = UnlabelledImages(self.unlabelled, self.image_size, self.resize, self.predicted)
        return DataLoader(
            dataset,
            batch_size=1 if is_alone else self.batch_size,
            # One process reads a video; several would each decode all of it.
            num_workers=min(1, self.num_workers) if is_video(self.predict) else self.num_workers,
            collate_fn=collate_images,
            worker_init_fn=_start_worker,
        )

    def state_dict(self) -> dict[str, int]:
        """Say for a checkpoint where its training is: in which epoch, and how many of its batches it has had."""
        if self.trainer is None:
            return {}
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        is_begun = progress.ready > progress.processed
        n_batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if is_begun else 0
        is_over = n_batches >= self.trainer.num_training_batches
        return {"epoch": progress.processed + is_over, "n_batches": 0 if is_over else n_batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the loader of the training part begin where the checkpoint was saved."""
        self._epoch, self._n_batches = state_dict["epoch"], state_dict["n_batches"]

    def _epoch_sampler(self) -> EpochSampler:
        trainer = self.trainer
        return EpochSampler(
            self._datasets["train"],
            trainer.world_size if trainer else 1,
            trainer.global_rank if trainer else 0,
            int(os.environ.get(SEED_VARIABLE, 0)),
            epoch=self._epoch,
            n_skipped=self._n_batches * self.batch_size,
            # Overfitting is tried on the same few batches again and again.
            shuffle=not (trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
        )

    def _loader(self, part: str, sampler: EpochSampler | None = None) -> DataLoader[Sample]:
        return DataLoader(
            self._datasets[part],
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_start_worker,
        )

    def transfer_batch_to_device(
        self, batch: Batch | ImageBatch, device: Any, dataloader_idx: int
    ) -> Batch | ImageBatch:
        """Move every tensor of a batch, while the previous one is being worked on."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in batch._asdict().items()
            if isinstance(value, Tensor)
        }
        return batch._replace(**moved)


def _start_worker(worker_id: int) -> None:
    """Seed a reading process as Lightning would, and leave Ctrl-C, which the terminal sends to all, to the main one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pl_worker_init_function(worker_id)


def _default_workers() -> int:
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_AUTOMATIC_WORKERS, n_cores - 1)


def _describe(dataset: KeypointsDataset, channels: dict[str, list[str]] | list[str] | None) -> dict[str, Any]:
    table = dataset.table
    names = list(resolve_channels(channels, table.keypoint_types, table.path))
    per_channel = dataset.used_points().sum(axis=0)
    return {
        "file": str(table.path),
        "sha256": hashlib.sha256(table.path.read_bytes()).hexdigest(),
        "images": len(dataset),
        "points": dict(zip(names, per_channel.tolist(), strict=True)),
    }
