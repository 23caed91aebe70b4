"""Images to find points in: images, folders, patterns, COCO files and videos, all without labels."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.image_bounds import ImageBounds, OutsideImages
from keypoint_detection.data.video import VIDEO_SUFFIXES, read_frames
from keypoint_detection.documents import read_json
from keypoint_detection.images import IMAGE_SUFFIXES, ImageError, ResizeMode, read_patiently
from keypoint_detection.resizing import read_image, resize
from keypoint_detection.types import DataError, Failure, ImageBatch

logger = logging.getLogger(__name__)

PATTERN_CHARACTERS = "*?["
HIDDEN = "hidden"


class UnlabelledFile(NamedTuple):
    """An image or a video to find points in.

    Attributes:
        name: its name in results: its path below the given folder, or its file name in the COCO file.
        path: its file.
        image_id: its id in the COCO file; None without one.
    """

    name: str
    path: str
    image_id: int | None

    @property
    def is_video(self) -> bool:
        """Whether it is a video, judging by its suffix."""
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES


def find_unlabelled(
    source: str, image_root: str | None, option: str, outside_images: OutsideImages, *, takes_videos: bool
) -> list[UnlabelledFile]:
    """List the images and videos that a path refers to, in the order of their names or of the COCO file.

    Files of other kinds, and hidden ones, are left out, and their number is logged.

    Args:
        source: an image, a video, a folder (with everything below it), a pattern such as `frames/**/*.jpg`, or a COCO
            file, of which only the images are read.
        image_root: folder that the file names in a COCO file are relative to; None: the folder of the file.
        option: the option that gave the source, for the messages, e.g. `data.predict`.
        outside_images: whether images of a COCO file outside that folder are an error, or allowed.
        takes_videos: whether the option accepts videos; if not, they are left out too.

    Raises:
        DataError: nothing is found there.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".json" and path.is_file():
        return _read_coco_images(path, image_root, option, outside_images)
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES if takes_videos else IMAGE_SUFFIXES
    if path.is_dir():
        found = [(file, file.relative_to(path).as_posix()) for file in _walk(path)]
        kinds = [HIDDEN if _is_hidden(name) else file.suffix.lower() for file, name in found]
    elif path.is_file() or any(character in source for character in PATTERN_CHARACTERS):
        matches = [path] if path.is_file() else map(Path, glob.glob(str(path), recursive=True))
        found = [(file, path.name if path.is_file() else file.as_posix()) for file in matches if file.is_file()]
        kinds = [file.suffix.lower() for file, _ in found]
        # A pattern that names its suffix asks for images, unless the suffix is that of a video.
        suffixes = suffixes | ({path.suffix.lower()} - VIDEO_SUFFIXES)
        if not found:
            raise DataError(
                f"{option}: no file matches the pattern {source!r}. To use several files, give a folder or a pattern "
                "such as 'frames/*.png'."
            )
    else:
        expected = ["an image", *(["a video"] * takes_videos), "a folder", "a pattern", "a COCO file (.json)"]
        raise DataError(
            f"{option}: {source!r} does not exist; {', '.join(expected[:-1])} or {expected[-1]} is expected."
        )
    kept = sorted(pair for pair, kind in zip(found, kinds, strict=True) if kind in suffixes)
    left_out = Counter(kind for kind in kinds if kind not in suffixes)
    wanted = "images or videos" if takes_videos else "images"
    if not kept:
        contents = f", only these files: {_list_kinds(left_out)}" if left_out else ""
        raise DataError(f"{option}: {source} has no {wanted}{contents}.")
    if left_out:
        _log_left_out(source, wanted, left_out)
    return [UnlabelledFile(name, str(file), None) for file, name in kept]


def _is_hidden(name: str) -> bool:
    """Whether a file below a folder is hidden, like the files that macOS, notebooks and version control leave there."""
    return any(part.startswith(".") for part in Path(name).parts)


def _list_kinds(kinds: Counter[str]) -> str:
    """List kinds of files with their numbers, the most frequent first.

    >>> _list_kinds(Counter([".csv", "hidden", "hidden", ""]))
    '2 hidden, 1 .csv, 1 without a suffix'
    """
    return ", ".join(f"{number} {kind or 'without a suffix'}" for kind, number in kinds.most_common())


@rank_zero_only
def _log_left_out(source: str, wanted: str, left_out: Counter[str]) -> None:
    files = count_in_words(left_out.total(), "file")
    logger.warning("%s: left out %s that are not %s: %s.", source, files, wanted, _list_kinds(left_out))


def _walk(folder: Path) -> Iterator[Path]:
    """List the files below a folder: including linked folders, but none twice; a broken link counts as a file."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in visited:
            folders.clear()  # a circular link
            continue
        visited.add(os.path.realpath(place))
        folders.sort()
        yield from (Path(place, name) for name in names)


def _read_coco_images(
    path: Path, image_root: str | None, option: str, outside_images: OutsideImages
) -> list[UnlabelledFile]:
    try:
        content = read_json(path, "a COCO file (JSON)")
        images = [(str(image["file_name"]), int(image["id"])) for image in content["images"]]
    except (KeyError, TypeError, OverflowError) as error:
        raise DataError(
            f"{option}: {path} is not a COCO file: `images` with `id` and `file_name` are expected ({error})."
        ) from error
    if len({image_id for _, image_id in images}) < len(images):
        raise DataError(f"{option}: {path} has several images with the same id.")
    if not images:
        raise DataError(f"{option}: {path} has no images.")
    root = Path(image_root).expanduser() if image_root else path.parent
    bounds = ImageBounds.of_file(path, image_root and root, outside_images, content.get("info"))
    found = [UnlabelledFile(name, str(_repair(root, name)), image_id) for name, image_id in images]
    outside = next(
        (image.name for image in found if not bounds.encloses(image.path) and os.path.exists(image.path)), None
    )
    if outside is not None:
        raise DataError(f"{option}: {path}: {bounds.describe_outside(outside)}")
    return found


def _repair(root: Path, name: str) -> Path:
    """Return the file of a name, which may have been written on Windows."""
    path = root / name
    return path if "\\" not in name or path.exists() else root / name.replace("\\", "/")


class _Fitted(NamedTuple):
    """An image as the network gets it, or why it cannot be read; its file and frame number."""

    place: tuple[int, int]
    content: tuple[torch.Tensor, torch.Tensor, tuple[int, int]] | None
    failure: Failure | None

    @classmethod
    def failed(cls, place: tuple[int, int], reason: str, *, is_frame: bool) -> "_Fitted":
        return cls(place, None, Failure(place, is_frame, reason))


class UnlabelledImages(Dataset[_Fitted]):
    """Read images and resize them to the network's input; unreadable ones are reported, not raised.

    Args:
        files: the images to read.
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how they are resized.
        skipped: the images to leave out, each given by the position of its file and 0.
    """

    def __init__(
        self,
        files: Sequence[UnlabelledFile],
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        skipped: Collection[tuple[int, int]],
    ) -> None:
        self.files = files
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.positions = [position for position in range(len(files)) if (position, 0) not in skipped]

    def __len__(self) -> int:
        """Count the images that are not left out."""
        return len(self.positions)

    def __getitem__(self, number: int) -> _Fitted:
        """Read one image."""
        position = self.positions[number]
        return _read(position, self.files[position].path, self.image_size, self.resize_mode)


class UnlabelledFrames(IterableDataset[ImageBatch]):
    """Read the frames of videos, and any images among the files, in batches of images of one size.

    The training processes share the frames; the workers of a loader share the files. What cannot be read is reported,
    not raised.

    Args:
        files: the videos and images.
        image_size: (height, width) of the input; None: the frame's own.
        resize_mode: how frames are resized.
        skipped: the frames to leave out, each given by the position of its file and the number of the frame.
        batch_size: the maximum number of images in a batch.
        n_processes: number of processes that share the frames.
        rank: the index of this one.
    """

    def __init__(
        self,
        files: Sequence[UnlabelledFile],
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        skipped: Collection[tuple[int, int]],
        batch_size: int,
        n_processes: int,
        rank: int,
    ) -> None:
        self.files = files
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.skipped = set(skipped)
        self.batch_size = batch_size
        self.n_processes, self.rank = n_processes, rank

    def __iter__(self) -> Iterator[ImageBatch]:
        """Yield the batches of this process and worker."""
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        fitted = (one for position in range(first, len(self.files), step) for one in self._read_file(position))
        for _, alike in groupby(fitted, lambda one: one.content and one.content[0].shape):
            while batch := list(islice(alike, self.batch_size)):
                yield collate_images(batch)

    def _read_file(self, position: int) -> Iterator[_Fitted]:
        file = self.files[position]
        if not file.is_video:
            if position % self.n_processes == self.rank and (position, 0) not in self.skipped:
                yield _read(position, file.path, self.image_size, self.resize_mode)
            return
        try:
            for frame in read_frames(file.path):
                place = (position, frame.number)
                if frame.number % self.n_processes != self.rank or place in self.skipped:
                    continue
                if frame.pixels is None:
                    yield _Fitted.failed(place, frame.failure, is_frame=True)
                else:
                    image = torch.from_numpy(frame.pixels).permute(2, 0, 1).contiguous()
                    yield _fit(place, image, self.image_size, self.resize_mode)
        except DataError as error:
            if self.rank == 0:
                yield _Fitted.failed((position, 0), str(error), is_frame=False)


def _read(position: int, path: str, size: tuple[int, int] | None, mode: ResizeMode) -> _Fitted:
    try:
        return _fit((position, 0), read_patiently(lambda: read_image(path)), size, mode)
    except ImageError as error:
        return _Fitted.failed((position, 0), str(error), is_frame=False)


def _fit(place: tuple[int, int], image: torch.Tensor, size: tuple[int, int] | None, mode: ResizeMode) -> _Fitted:
    own_size = (int(image.shape[-2]), int(image.shape[-1]))
    fitted, input_to_image = resize(image, size or own_size, mode)
    return _Fitted(place, (fitted, input_to_image, own_size), None)


def collate_images(fitted: Sequence[_Fitted]) -> ImageBatch:
    """Stack images of one size; those that cannot be read are listed separately."""
    read = [(one.place, *one.content) for one in fitted if one.content is not None]
    failures = tuple(one.failure for one in fitted if one.failure is not None)
    if not read:
        nothing = torch.zeros(0, 2, dtype=torch.int64)
        images = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
        return ImageBatch(images, torch.zeros(0, 2, 3), nothing, nothing, failures)
    places, images_, maps, sizes = zip(*read, strict=True)
    stacked: Any = torch.stack(images_)
    return ImageBatch(stacked, torch.stack(maps), torch.tensor(sizes), torch.tensor(places), failures)
