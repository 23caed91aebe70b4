"""Images without labels: files, folders, patterns, COCO files and videos, to find points in."""

import glob
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, IterableDataset

from keypoint_detection.data.video import VIDEO_SUFFIXES, read_frames
from keypoint_detection.documents import read_json
from keypoint_detection.images import ImageError, ResizeMode, list_image_suffixes
from keypoint_detection.resizing import read_image, resize
from keypoint_detection.types import DataError, ImageBatch

__all__ = ["UnlabelledFrames", "UnlabelledImage", "UnlabelledImages", "collate_images", "find_images", "is_video"]

PATTERN_CHARACTERS = "*?["


class UnlabelledImage(NamedTuple):
    """An image to find points in.

    Attributes:
        name: its name in results: its path below the given folder, or its file name in the COCO file.
        path: its file.
        image_id: its id in the COCO file; otherwise, a number from 1.
    """

    name: str
    path: str
    image_id: int


def is_video(source: str) -> bool:
    """Whether a path is that of a video."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES


def find_images(source: str, image_root: str | None, option: str, *, takes_videos: bool) -> list[UnlabelledImage]:
    """List the images that a path refers to, in the order of their names or of the COCO file.

    Args:
        source: an image, a folder (with everything below it), a pattern such as `frames/**/*.jpg`, or a COCO file, of
            which only the images are read.
        image_root: folder that the file names in a COCO file are relative to; None: the folder of the file.
        option: that gave the source, for the messages, e.g. `data.predict`.
        takes_videos: whether the option takes videos too, which are not listed here, for the messages.

    Raises:
        DataError: nothing is found there.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".json" and path.is_file():
        return _read_coco_images(path, image_root, option)
    if path.is_dir():
        files = sorted(_walk(path))
        names = [file.relative_to(path).as_posix() for file in files]
        if not files:
            raise DataError(f"{option}: the folder {path} contains no images.")
    elif path.is_file():
        files, names = [path], [path.name]
    elif any(character in source for character in PATTERN_CHARACTERS):
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file())
        names = [file.as_posix() for file in files]
        if not files:
            raise DataError(f"{option}: no file matches the pattern {source!r}.")
    else:
        kinds = ["an image", "a folder", "a pattern", "a COCO file (.json)"]
        kinds += [f"a video ({', '.join(sorted(VIDEO_SUFFIXES))})"] if takes_videos else []
        expected = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise DataError(f"{option}: {source!r} does not exist; {expected} is expected.")
    return [UnlabelledImage(name, str(file), 1 + i) for i, (name, file) in enumerate(zip(names, files, strict=True))]


def _walk(folder: Path) -> Iterator[Path]:
    """List the images below a folder: of linked folders too, but none twice; a broken link counts as an image."""
    suffixes = list_image_suffixes()
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in visited:
            folders.clear()  # a link that leads back
            continue
        visited.add(os.path.realpath(place))
        folders.sort()
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() in suffixes)


def _read_coco_images(path: Path, image_root: str | None, option: str) -> list[UnlabelledImage]:
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
    return [UnlabelledImage(name, str(root / name), image_id) for name, image_id in images]


class _Fitted(NamedTuple):
    """An image as the network gets it, or why it cannot be read; its number among all images."""

    number: int
    content: tuple[torch.Tensor, torch.Tensor, tuple[int, int]] | None
    failure: str


class UnlabelledImages(Dataset[_Fitted]):
    """Read images and resize them to the network's input; unreadable ones are reported, not raised.

    Args:
        images: the images to read.
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how they are resized.
        skipped: the indices of `images` that are left out.
    """

    def __init__(
        self,
        images: Sequence[UnlabelledImage],
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        skipped: Collection[int],
    ) -> None:
        self.images = images
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.indices = [index for index in range(len(images)) if index not in set(skipped)]

    def __len__(self) -> int:
        """Count the images that are not left out."""
        return len(self.indices)

    def __getitem__(self, position: int) -> _Fitted:
        """Read one image."""
        index = self.indices[position]
        try:
            image = read_image(self.images[index].path)
        except ImageError as error:
            return _Fitted(index, None, str(error))
        return _fit(index, image, self.image_size, self.resize_mode)


class UnlabelledFrames(IterableDataset[_Fitted]):
    """Read the frames of a video in order; each of several processes yields its share.

    Args:
        path: path of the video.
        image_size: (height, width) of the input; None: the frame's own.
        resize_mode: how frames are resized.
        skipped: the numbers of the frames that are left out.
        n_processes: number of processes that share the frames.
        rank: the index of this one.
    """

    def __init__(
        self,
        path: str,
        image_size: tuple[int, int] | None,
        resize_mode: ResizeMode,
        skipped: Collection[int],
        n_processes: int,
        rank: int,
    ) -> None:
        self.path = path
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self.skipped = set(skipped)
        self.n_processes, self.rank = n_processes, rank

    def __iter__(self) -> Iterator[_Fitted]:
        """Yield the frames of this process."""
        for index, frame in enumerate(read_frames(self.path)):
            if index % self.n_processes == self.rank and index not in self.skipped:
                image = torch.from_numpy(frame).permute(2, 0, 1).contiguous()
                yield _fit(index, image, self.image_size, self.resize_mode)


def _fit(index: int, image: torch.Tensor, size: tuple[int, int] | None, mode: ResizeMode) -> _Fitted:
    own_size = (int(image.shape[-2]), int(image.shape[-1]))
    fitted, input_to_image = resize(image, size or own_size, mode)
    return _Fitted(index, (fitted, input_to_image, own_size), "")


def collate_images(fitted: Sequence[_Fitted]) -> ImageBatch:
    """Stack images of one size; those that cannot be read are listed separately."""
    read = [(one.number, *one.content) for one in fitted if one.content is not None]
    failures = tuple((one.number, one.failure) for one in fitted if one.content is None)
    if not read:
        nothing = torch.zeros(0, dtype=torch.int64)
        images = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
        return ImageBatch(images, torch.zeros(0, 2, 3), nothing.view(0, 2), nothing, failures)
    indices, images_, maps, sizes = zip(*read, strict=True)
    stacked: Any = torch.stack(images_)
    return ImageBatch(stacked, torch.stack(maps), torch.tensor(sizes), torch.tensor(indices), failures)
