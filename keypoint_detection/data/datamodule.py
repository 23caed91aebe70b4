"""The LightningDataModule: files, splits, loaders."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set, is_drawn
from keypoint_detection.channels import resolve_channels
from keypoint_detection.checkpoints.content import DataSettings, check_settings
from keypoint_detection.checkpoints.files import LoadsCheckedCheckpoints
from keypoint_detection.checkpoints.settings import DEFAULT_CACHE_FOLDER
from keypoint_detection.checkpoints.specifications import as_plain
from keypoint_detection.checkpoints.trust import import_named
from keypoint_detection.data.augmentation import default_augmentation, try_augmentation
from keypoint_detection.data.checks.labels import check_coordinates
from keypoint_detection.data.checks.parts import make_part
from keypoint_detection.data.coco_keypoints import CocoKeypoints, Coordinates
from keypoint_detection.data.dataset import KeypointsDataset, Sample, collate
from keypoint_detection.data.grouping import BY_IMAGE, BY_NAMES, BY_TIME, number_groups
from keypoint_detection.data.image_bounds import MissingImages, OutsideImages
from keypoint_detection.data.image_cache import CacheKind, ImageCache, open_cache
from keypoint_detection.data.image_files import check_images, leave_out_unreadable
from keypoint_detection.data.label_files import find_files, read_table
from keypoint_detection.data.sampling import EpochSampler
from keypoint_detection.data.splitting import (
    Split,
    SplitOptions,
    check_folds,
    describe_split,
    split_images,
    take_fraction,
)
from keypoint_detection.data.unlabelled import (
    UnlabelledFile,
    UnlabelledFrames,
    UnlabelledImages,
    collate_images,
    find_unlabelled,
)
from keypoint_detection.data.video import check_video
from keypoint_detection.data.workers import ToSharedMemory, default_workers, start_worker
from keypoint_detection.images import ResizeMode
from keypoint_detection.lightning_internals import find_position, has_settings_of_config
from keypoint_detection.parsing.internals import import_through
from keypoint_detection.types import Batch, DataError, DataFiles, ImageBatch

# Lightning parses the settings stored in a checkpoint as it does a command line.
import_through(import_named)

logger = logging.getLogger(__name__)


# With fewer pixels, there is nothing that a network could find.
SMALLEST_SIDE_PX = 8
# Of fewer groups that are guessed, images are resampled for intervals: groups would say too little.
MIN_GROUPS = 5
# Where Lightning stores the seed of `seed_everything`.
SEED_VARIABLE = "PL_GLOBAL_SEED"


class KeypointsDataModule(LoadsCheckedCheckpoints, LightningDataModule):  # type: ignore[misc]
    """Load images and keypoints from COCO keypoint files.

    Args:
        train: COCO keypoint file (JSON) to train on.
        val: COCO keypoint file to validate on. By default, a part of `train` is held out.
        test: COCO keypoint file for `kpd test`.
        predict: where `kpd predict` finds points: an image, a video, a folder and everything below it, a pattern such
            as `frames/**/*.jpg`, or a COCO file.
        image_root: folder that the images' file names are relative to; by default, the folder of each JSON file.
        missing_images: what to do about images that a file names but that do not exist: `error`, or `skip` to leave
            them out.
        outside_images: what to do about images outside `image_root` or, by default, outside the folder of their JSON
            file (the folder above it, if that is called annotations or labels): `error`, or `allow` for files that you
            trust. Files that kpd itself wrote are read in any case.
        categories: names of the categories whose annotations are used, e.g. [person]; images without them count as
            empty. By default, all that have keypoints.
        synthetic: draw a data set of cardboard boxes once and use it instead of the files.
        channels: set by `model.channels`, also when used from Python: channel name to the keypoint types it collects.
        val_fraction: share of the training images to hold out for validation if `val` is left out.
        split_seed: seed of that split. The same seed and file give the same split.
        n_folds: divide the training images into this many parts of about equal size, hold one of them out for
            validation and train on the others, instead of using `val` or `val_fraction`.
        fold: which of the parts is held out, from 0 to n_folds - 1. `kpd summarize` pools the results of all.
        group_by: images that belong together, such as the frames of one video, are not on both sides of a split:
            `names` for those in one folder whose names differ only in a running number, or in the camera (`cam1`,
            `left`); `folder` or 1 for the folder that an image is in, 2 for the one above it; a regular expression
            searched for in the file name, e.g. 'mouse([0-9]+)'; `image` to split at random; `time` to divide each of
            the groups of `names` in time, leaving out neighbours, as `names` does if there are too few groups.
        train_fraction: share of the training images to use, drawn by `split_seed` and `seed_everything`, in whole
            groups if `group_by` is a folder level or an expression; a larger part always contains the smaller ones. The
            validation images stay the same.
        image_size: height and width in pixels that every image is resized to. By default, images keep their size, which
            must then be the same for all. Smaller is faster; larger finds smaller objects.
        resize: how images are resized: `letterbox` keeps the aspect ratio and adds bars, `stretch` does not.
        coordinates: in `continuous`, (0, 0) is the outer corner of the top-left pixel (CVAT, Label Studio, Roboflow);
            in `pixel_index`, integers name pixels (the official COCO person keypoints).
        visible_only: leave out occluded points (v=1), in training and in measuring.
        augment: change the training images at random. Validation and test images are never changed.
        augmentation: torchvision v2 transforms instead of the default ones (shift, scale, rotate, colour, blur, and
            flip if `flip_pairs` is given). Points that leave the image are dropped.
        flip_pairs: keypoint types that swap in a mirrored image, e.g. [[left_ear, right_ear]]; [] if none do. By
            default, images are not mirrored, neither in training nor for `model.flip_test`.
        batch_size: images per batch and device. In a short training run, many small steps achieve more than a few large
            ones.
        num_workers: processes that read images; 0 reads in the training process. By default, one fewer than there are
            cores.
        on_bad_image: what to do about an image that cannot be read during a run, after retrying for some seconds:
            `error` stops and names it. `skip` continues: training uses the next image of the file in its place;
            measuring leaves it out of all numbers, and the table and metrics.json report how many images were left out.
            Images that cannot be read at the start are left out and listed.
        cache: keep decoded images at input size, so that every epoch after the first reads them much faster: `ram` in
            memory shared by all processes of the machine until the last of them ends; `disk` in files that later runs
            reuse. An image whose file changes is read again. Augmentation then starts from the resized images, so the
            result differs in detail from training without a cache.
        cache_folder: folder of a cache on disk.
        cache_gb: maximum size of the cache in gigabytes. Images that do not fit are read from their files in every
            epoch; a cache that is full when a run begins drops its oldest images.

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
        missing_images: MissingImages = "error",
        outside_images: OutsideImages = "error",
        categories: list[str] | None = None,
        synthetic: SyntheticBoxes | None = None,
        channels: dict[str, list[str]] | list[str] | None = None,
        val_fraction: OpenUnitInterval = 0.2,
        split_seed: NonNegativeInt = 0,
        n_folds: PositiveInt | None = None,
        fold: NonNegativeInt | None = None,
        group_by: PositiveInt | str | None = BY_NAMES,
        train_fraction: ClosedUnitInterval = 1.0,
        image_size: tuple[PositiveInt, PositiveInt] | None = None,
        resize: ResizeMode = "letterbox",
        coordinates: Coordinates = "continuous",
        visible_only: bool = False,
        augment: bool = True,
        augmentation: list[v2.Transform] | None = None,
        flip_pairs: list[tuple[str, str]] | None = None,
        batch_size: PositiveInt = 8,
        num_workers: NonNegativeInt | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        cache: CacheKind = "none",
        cache_folder: str = DEFAULT_CACHE_FOLDER,
        cache_gb: PositiveFloat = 16.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if not has_settings_of_config(self):
            # Then these are objects, which a checkpoint cannot hold.
            self.remove_ignored_hparams(["augmentation", "synthetic"])
            self.hparams.update({name: as_plain(value) for name, value in self.hparams.items()})
        check_settings(self.hparams, DataSettings, "data")
        if image_size is not None and min(image_size) < SMALLEST_SIDE_PX:
            raise DataError(
                f"data.image_size is {tuple(image_size)} (height, width); the minimum is {SMALLEST_SIDE_PX} px each."
            )
        check_folds(n_folds, fold)
        if not train_fraction:
            raise DataError("data.train_fraction is 0: nothing would be left to train on; 1 uses all training images.")
        self.train, self.val, self.test, self.synthetic = train, val, test, synthetic
        self._is_drawn = False
        self.predict = predict
        self.image_root = image_root
        self.missing_images: MissingImages = missing_images
        self.outside_images: OutsideImages = outside_images
        self.categories = categories
        self.channels = channels
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.n_folds, self.fold, self.group_by = n_folds, fold, group_by
        self.train_fraction = train_fraction
        self.image_size = image_size
        self.resize: ResizeMode = resize
        self.coordinates: Coordinates = coordinates
        self.visible_only = visible_only
        self.flip_pairs = flip_pairs
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        transforms = default_augmentation(flip_pairs is not None) if augmentation is None else augmentation
        self.transform = v2.Compose(transforms) if augment and transforms else None
        self.on_bad_image: Literal["error", "skip"] = on_bad_image
        # The images that could not be read, by use (`train` or `measure`) and id, with the reasons.
        self.failures: dict[str, dict[int, str]] = {}
        self.cache: CacheKind = cache
        self.cache_folder, self.cache_gb = cache_folder, float(cache_gb)
        self._image_cache: ImageCache | None = None
        # Where a resumed run continues: its epoch, and the number of batches already processed in it.
        self._epoch, self._n_batches = 0, 0
        self._datasets: dict[str, KeypointsDataset] = {}
        # The images and videos to find points in.
        self.unlabelled: list[UnlabelledFile] = []
        # What an interrupted prediction has already finished: positions of files, and frame numbers in them.
        self.predicted: set[tuple[int, int]] = set()

    def prepare_data(self) -> None:
        """Draw the procedural data set if it is missing, and tidy the cache; Lightning calls this once per machine.

        Raises:
            DataError: files are given too, or its folder cannot be written.
            FileExistsError: its folder contains something else.
        """
        if self.synthetic is not None and not self._is_drawn:
            self._find_files()  # refuses files given as well, before anything is drawn
            folder = Path(self.synthetic.folder).expanduser()
            # Only the first process reports that there is nothing to draw.
            if getattr(rank_zero_only, "rank", 0) == 0 or not is_drawn(folder, self.synthetic):
                draw_data_set(self.synthetic)
            self._is_drawn = True
        if (cache := self._open_cache()) is not None:
            cache.tidy()

    def _find_files(self) -> DataFiles:
        return find_files(self.train, self.val, self.test, self.synthetic)

    def _open_cache(self) -> ImageCache | None:
        if self._image_cache is None:
            self._image_cache = open_cache(self.cache, self.cache_folder, self.cache_gb, self.image_size, self.resize)
        return self._image_cache

    def setup(self, stage: str) -> None:
        """Read the files that a stage needs; reading them a second time is free.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            DataError: a file is missing or wrong, or a channel names a type that it does not have.
        """
        self._take_channels_of_model()
        files = self._find_files()
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
            self.unlabelled = find_unlabelled(
                self.predict, self.image_root, "data.predict", self.outside_images, takes_videos=True
            )
            if len(self.unlabelled) == 1 and self.unlabelled[0].is_video:
                check_video(self.unlabelled[0].path)

    def _take_channels_of_model(self) -> None:
        """Take the channels from the model, when both are used from Python and only the model was given channels."""
        model = self.trainer.lightning_module if self.trainer is not None else None
        if self.channels is None and (channels := getattr(model, "channels", None)):
            self.channels = channels
            self._datasets.clear()  # one channel for each type

    def _set_up_training(self, files: DataFiles) -> None:
        if files.train is None:
            raise DataError(
                "no training file: give --data.train=FILE.json (a COCO keypoint file), or set data.synthetic."
            )
        indices = self._training_images(files.train, files.val)
        dataset = self._dataset(files.train, indices, self.transform, self.flip_pairs, is_for_training=True)
        if not dataset.used_points().any():
            raise DataError(
                f"{files.train}: not a single labelled keypoint (v=1 or v=2) is left to train on. The file has "
                f"{len(dataset.table.types)}; they are excluded by the channels, visible_only, the borders of the "
                f"images, or the split ({len(dataset)} of {len(dataset.table.image_ids)} images)."
            )
        if self.transform is not None:
            try_augmentation(self.transform, self.image_size or dataset.first_size(), self.flip_pairs)
        self._datasets["train"] = dataset

    def _set_up_validation(self, files: DataFiles) -> None:
        if files.val is not None:
            self._datasets["val"] = self._dataset(files.val)
        elif files.train is not None:
            self._datasets["val"] = self._dataset(files.train, self._split(files.train).val)
        else:
            raise DataError("no validation file: give --data.val=FILE.json, or --data.train to use a part of it.")

    def _table(self, path: Path) -> CocoKeypoints:
        return read_table(
            path, self.image_root, self.coordinates, self.categories, self.missing_images, self.outside_images
        )

    def _training_images(self, path: Path, val: Path | None) -> NDArray[np.int64]:
        """Return the indices of the images to train on, in the order of the file."""
        if val is not None and self.n_folds is not None:
            whose = "data.synthetic draws validation images" if self.synthetic else f"data.val is {val}"
            raise DataError(
                f"{whose}, but data.n_folds validates on folds of the training images; leave one of them out."
            )
        # Guessed groups can be so few and large that no small part can be drawn.
        group_by = BY_IMAGE if self.group_by in (BY_NAMES, BY_TIME) else self.group_by
        groups = number_groups(self._table(path), self.image_root, group_by)
        indices = np.arange(len(groups)) if val else self._split(path).train
        seeds = (self.split_seed, int(os.environ.get(SEED_VARIABLE, 0)))
        return indices[take_fraction(groups[indices], self.train_fraction, seeds)]

    @property
    def split_options(self) -> SplitOptions:
        """How training images are held out for validation."""
        return SplitOptions(self.group_by, self.val_fraction, self.split_seed, self.n_folds, self.fold)

    def _split(self, path: Path) -> Split:
        return split_images(self._table(path), self.image_root, self.split_options)

    def describe_split(self) -> str | None:
        """Say which images of the training file are held out; None if there is a validation file."""
        train, val, _ = self._find_files()
        if train is None or val is not None:
            return None
        held_out = describe_split(self._table(train), self.image_root, self.split_options)
        return f"{held_out.n_images} {held_out.text}"

    def _dataset(
        self,
        path: Path,
        indices: NDArray[np.int64] | None = None,
        transform: Callable[..., Any] | None = None,
        flip_pairs: Sequence[tuple[str, str]] | None = None,
        is_for_training: bool = False,
    ) -> KeypointsDataset:
        table = self._table(path)
        channels = resolve_channels(self.channels, table.keypoint_types, path)
        indices = np.arange(len(table.image_ids)) if indices is None else indices
        if self.on_bad_image == "skip":
            indices = leave_out_unreadable(table, indices)
        sizes = check_images(table, indices, needs_equal_sizes=self.image_size is None)
        _warn_of_coordinates(table, indices, sizes)
        return KeypointsDataset(
            table,
            channels,
            indices,
            image_size=self.image_size,
            resize_mode=self.resize,
            transform=transform,
            flip_pairs=flip_pairs,
            visible_only=self.visible_only,
            image_sizes=sizes,
            cache=self._open_cache(),
            unreadable="raise" if self.on_bad_image == "error" else "replace" if is_for_training else "leave out",
        )

    @property
    def parts(self) -> Mapping[str, KeypointsDataset]:
        """The parts that are set up: `train`, `val`, `test`."""
        return self._datasets

    def describe(self) -> dict[str, dict[str, Any]]:
        """Describe the parts that are set up: file, SHA-256, number of images, labelled points per channel."""
        return {part: _describe(dataset, self.channels) for part, dataset in self._datasets.items()}

    def held_out_groups(self, part: str) -> NDArray[np.int64]:
        """Return the ids of the images of `val` or `test` and their groups, (I, 2); no rows if they are not grouped."""
        dataset = self._datasets[part]
        table = dataset.table
        groups = number_groups(table, self.image_root, self.group_by)
        is_guessed, n_groups = self.group_by in (BY_NAMES, BY_TIME), len(np.unique(groups))
        if n_groups == len(groups) or (is_guessed and n_groups < MIN_GROUPS):
            return np.empty((0, 2), dtype=np.int64)
        return np.stack([table.image_ids[dataset.indices], groups[dataset.indices]], axis=1)

    def image_files(self, part: str, image_ids: Sequence[int]) -> dict[int, str]:
        """Return the paths of some images of a part that is set up."""
        table = self._datasets[part].table
        rows = {image_id: row for row, image_id in enumerate(table.image_ids.tolist())}
        return {image_id: table.image_paths[rows[image_id]].decode() for image_id in image_ids}

    def image_names(self, part: str, image_ids: Sequence[int]) -> dict[int, str]:
        """Return the files of some images of a part that is set up, relative to its JSON file if they are below it."""
        folder = self._datasets[part].table.path.parent
        paths = {image_id: Path(path) for image_id, path in self.image_files(part, image_ids).items()}
        return {
            image_id: str(path.relative_to(folder) if path.is_relative_to(folder) else path)
            for image_id, path in paths.items()
        }

    def first_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels of the first image that the network sees."""
        return self.image_size or next(iter(self._datasets.values())).first_size()

    def train_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the training part: shuffled, augmented, and starting where a resumed run stopped."""
        return self._loader("train", self._epoch_sampler())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the validation part, in the order of the file."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Make the loader of the test file, in its order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Make the loader of the images to find points in; images that keep their own size come one at a time."""
        fitting = (self.image_size, self.resize, self.predicted)
        if any(file.is_video for file in self.unlabelled):
            n_processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
            frames = UnlabelledFrames(
                self.unlabelled, *fitting, batch_size=self.batch_size, n_processes=n_processes, rank=rank
            )
            # One worker reads a video; several would each decode all of it.
            n_workers = min(len(self.unlabelled), self.num_workers)
            return DataLoader(
                frames,
                batch_size=None,
                num_workers=n_workers,
                collate_fn=ToSharedMemory(),
                worker_init_fn=start_worker,
            )
        return DataLoader(
            UnlabelledImages(self.unlabelled, *fitting),
            batch_size=1 if self.image_size is None else self.batch_size,
            num_workers=self.num_workers,
            collate_fn=ToSharedMemory(collate_images),
            worker_init_fn=start_worker,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores: the epoch, the batches already processed in it, and unreadable images."""
        if self.trainer is None:
            return {}
        position = find_position(self.trainer)
        skipped = {"failures": self.failures} if self.failures else {}
        return {"epoch": position.epoch, "n_batches": position.n_batches, **skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make the loader of the training part start where the checkpoint was saved."""
        self._epoch, self._n_batches = state_dict["epoch"], state_dict["n_batches"]
        self.failures = state_dict.get("failures", {})

    def _epoch_sampler(self) -> EpochSampler:
        trainer = self.trainer
        return EpochSampler(
            self._datasets["train"],
            trainer.world_size if trainer else 1,
            trainer.global_rank if trainer else 0,
            int(os.environ.get(SEED_VARIABLE, 0)),
            epoch=self._epoch,
            n_skipped=self._n_batches * self.batch_size,
            # Overfitting reuses the same few batches.
            shuffle=not (trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
        )

    def _loader(self, part: str, sampler: EpochSampler | None = None) -> DataLoader[Sample]:
        return DataLoader(
            self._datasets[part],
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=ToSharedMemory(collate),
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=start_worker,
            # Otherwise every pass would draw from the generator that the network uses too.
            generator=torch.Generator().manual_seed(int(os.environ.get(SEED_VARIABLE, 0))),
        )

    def transfer_batch_to_device(
        self, batch: Batch | ImageBatch, device: Any, dataloader_idx: int
    ) -> Batch | ImageBatch:
        """Move every tensor of a batch while the previous one is being processed; report the images it lacks."""
        if isinstance(batch, Batch):
            self._note_failures(batch.failures)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)  # type: ignore[no-any-return]

    def _note_failures(self, failures: Sequence[tuple[int, str]]) -> None:
        """Report each unreadable image once."""
        is_training = self.trainer is not None and self.trainer.training
        for image_id, reason in failures:
            noted = self.failures.setdefault("train" if is_training else "measure", {})
            if image_id not in noted:
                consequence = "Another image takes its place." if is_training else "The results leave it out."
                logger.warning("%s %s (data.on_bad_image)", reason, consequence)
            noted[image_id] = reason


def _warn_of_coordinates(table: CocoKeypoints, indices: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    """Warn of coordinates that are not pixels of the images at `indices`, which have (N, 2) `sizes` in pixels."""
    known_sizes = np.zeros((len(table.image_ids), 2), dtype=np.int64)
    known_sizes[indices] = sizes
    for finding in check_coordinates(make_part("", table, known_sizes, channels={}, visible_only=False)):
        logger.warning("%s", finding.sentence)


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
