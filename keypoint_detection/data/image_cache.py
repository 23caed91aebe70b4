"""Decoded images at input size, kept in files that all processes of a machine share."""

import errno
import hashlib
import logging
import os
import re
import shutil
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from keypoint_detection.images import ResizeMode
from keypoint_detection.resizing import read_image, resize
from keypoint_detection.types import DataError

logger = logging.getLogger(__name__)

CacheKind = Literal["none", "ram", "disk"]

# Signature of an entry, checksum, (height, width) of the original image, (height, width) of the pixels that follow.
HEADER = struct.Struct("<4sIIIII8x")
# Changed whenever pixels change: the layout of entries, decoding, resizing.
MARK = b"kpd1"
SHARED_MEMORY = Path("/dev/shm")
# Share of the free memory; the rest is for training.
LARGEST_PART_OF_MEMORY = 0.5
# A cache that is full when a run begins drops its oldest entries until it is down to this share.
PART_AFTER_TIDYING = 0.5


class CachedImage(NamedTuple):
    """An image at input size.

    Attributes:
        image: (3, H, W) uint8, as `resize` returns it.
        image_size: (height, width) of the original image.
    """

    image: Tensor
    image_size: tuple[int, int]


def read_resized(path: str, image_size: tuple[int, int] | None, resize_mode: ResizeMode) -> CachedImage:
    """Read an image from its file, in the form that the cache stores.

    Args:
        path: the file.
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how the image is resized.

    Raises:
        ImageError: the file cannot be read.
    """
    image = read_image(path)
    own_size = (int(image.shape[-2]), int(image.shape[-1]))
    return CachedImage(resize(image, image_size or own_size, resize_mode)[0], own_size)


class ImageCache:
    """Read images, each from its file once and from the cache after that, as long as there is room.

    The key of an entry is the path, time and size of the image's file and how it is resized. An entry is written beside
    its final place and then moved there, so that no process reads half of it; a damaged one is replaced.

    Args:
        folder: the folder of the entries.
        max_bytes: maximum size of all entries together.
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how images are resized.
    """

    def __init__(
        self, folder: Path, max_bytes: int, image_size: tuple[int, int] | None, resize_mode: ResizeMode
    ) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.image_size = image_size
        self.resize_mode: ResizeMode = resize_mode
        self._is_full = False

    def read(self, path: str) -> CachedImage:
        """Read one image.

        Raises:
            ImageError: its file cannot be read.
        """
        entry = self._entry(path)
        cached = _load(entry) if entry is not None else None
        if cached is not None:
            return cached
        read = read_resized(path, self.image_size, self.resize_mode)
        if entry is not None and not self._is_full:
            self._store(entry, read)
        return read

    def _entry(self, path: str) -> Path | None:
        """Return the path of an image's entry; None if there is no such image."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        key = f"{os.path.abspath(path)}|{status.st_mtime_ns}|{status.st_size}|{self.image_size}|{self.resize_mode}"
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / name

    def _store(self, entry: Path, read: CachedImage) -> None:
        pixels = read.image.numpy()
        header = HEADER.pack(MARK, zlib.crc32(pixels.data), *read.image_size, *pixels.shape[1:])
        try:
            if not self._reserve(HEADER.size + pixels.nbytes):
                self._is_full = True
                return
            entry.parent.mkdir(exist_ok=True)
            _write(entry, header, pixels.data)
        except OSError as error:  # the disk is full, or the folder was removed: training continues without it
            logger.warning("%s: no more images can be added to the image cache (%s).", self.folder, error.strerror)
            self._is_full = True

    def _reserve(self, n_bytes: int) -> bool:
        """Count bytes as used unless they exceed the limit; all processes of the machine share the count."""
        with _locked(self.folder / "used") as file:
            text = file.read()
            used = n_bytes + (int(text) if text.isdigit() else 0)  # not a number: damaged, and repaired by `tidy`
            if used > self.max_bytes:
                return False
            _overwrite(file, used)
            return True

    def tidy(self) -> None:
        """Count the entries, and make room if the cache is full, dropping the oldest first."""
        with _locked(self.folder / "used") as file:
            entries = sorted(
                (
                    (status.st_mtime, status.st_size, path)
                    for path in self.folder.glob("??/*")
                    if _is_entry(path) and (status := _stat(path))
                ),
            )
            used = sum(size for _, size, _ in entries)
            if used >= self.max_bytes:
                for _, size, path in entries:
                    if used <= self.max_bytes * PART_AFTER_TIDYING:
                        break
                    path.unlink(missing_ok=True)
                    used -= size
            _overwrite(file, used)


def _is_entry(path: Path) -> bool:
    """Whether a file below the folder of a cache is one of its entries, complete or not: others are never deleted."""
    name = f"{path.parent.name}/{path.name}"
    return re.fullmatch(r"([0-9a-f]{2})/(\1[0-9a-f]{30}|tmp\w+\.part)", name) is not None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process has just moved or removed it
        return None


def _write(entry: Path, header: bytes, pixels: memoryview) -> None:
    """Write an entry beside its final place, then move it there."""
    with tempfile.NamedTemporaryFile(dir=entry.parent, suffix=".part", delete=False) as file:
        try:
            file.write(header)
            file.write(pixels)
            file.flush()
            os.replace(file.name, entry)
        except OSError:
            os.unlink(file.name)
            raise


def _load(entry: Path) -> CachedImage | None:
    """Read an entry; None if it is missing or damaged."""
    try:
        content = np.fromfile(entry, dtype=np.uint8)
    except OSError:
        return None
    if len(content) < HEADER.size:
        return None
    mark, checksum, height, width, rows, columns = HEADER.unpack(content[: HEADER.size].tobytes())
    pixels = content[HEADER.size :]
    if mark != MARK or len(pixels) != 3 * rows * columns or zlib.crc32(pixels.data) != checksum:
        return None
    return CachedImage(torch.from_numpy(pixels).view(3, rows, columns), (height, width))


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    """Open a file for reading and writing, with exclusive access."""
    import fcntl  # not on Windows

    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _overwrite(file: Any, number: int) -> None:
    file.seek(0)
    file.truncate()
    file.write(str(number))


def open_cache(
    kind: CacheKind, folder: str, max_gb: float, image_size: tuple[int, int] | None, resize_mode: ResizeMode
) -> ImageCache | None:
    """Open this machine's cache, or return None if none is wanted; see `ImageCache`.

    Args:
        kind: `ram` is emptied when the last process that has it open ends; `disk` is kept for later runs.
        folder: folder of a cache on disk.
        max_gb: maximum size in gigabytes.
        image_size: (height, width) of the input; None: the image's own.
        resize_mode: how images are resized.

    Raises:
        DataError: its folder is not writable.
    """
    if kind == "none":
        return None
    max_bytes = int(max_gb * 1e9)
    home = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    place = home / f"kpd-images-{os.getuid()}" if kind == "ram" else Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place):
            pass
        if kind == "ram" and (place.is_symlink() or place.stat().st_uid != os.getuid()):
            raise PermissionError(errno.EPERM, "it belongs to somebody else")
    except OSError as error:
        raise DataError(
            f"data.cache: {place} is not writable ({error.strerror}). Give data.cache_folder, or data.cache=none."
        ) from error
    cache = ImageCache(place, max_bytes, image_size, resize_mode)
    if kind == "ram":
        _share(cache)
        cache.max_bytes = min(max_bytes, int(shutil.disk_usage(place).total * LARGEST_PART_OF_MEMORY))
    return cache


def _share(cache: ImageCache) -> None:
    """Register this process as a user of a cache in memory, which is emptied when the last user ends."""
    import fcntl

    lock = open(cache.folder / "users", "a")  # noqa: SIM115 - open as long as the cache is in use
    if _is_alone(lock):
        _empty(cache.folder)  # left behind by a process that was killed
    fcntl.flock(lock, fcntl.LOCK_SH)
    weakref.finalize(cache, _leave, lock, cache.folder, os.getpid())


def _is_alone(lock: Any) -> bool:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _leave(lock: Any, folder: Path, process: int) -> None:
    if os.getpid() != process:  # a worker process that was forked from it
        return
    if _is_alone(lock):
        _empty(folder)
    lock.close()


def _empty(folder: Path) -> None:
    for path in filter(_is_entry, folder.glob("??/*")):
        path.unlink(missing_ok=True)
    (folder / "used").unlink(missing_ok=True)
