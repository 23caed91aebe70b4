"""Which images a label file may name: those below its own folder, unless the user allows others.

A file from a stranger could name private images, and anyone who converts it or shares a run would pass them on.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

MissingImages: TypeAlias = Literal["error", "skip"]
OutsideImages: TypeAlias = Literal["error", "allow"]

# Folders of label files with the images beside them: the data set is the folder above.
LABEL_FOLDERS = ("annotations", "labels")
# The entry of a file's `info` by which kpd recognises its own files.
MARK = "kpd_folder"
DIGEST_BYTES = 8


class ImageBounds:
    """Determines which images a file may name.

    Args:
        folder: the folder that must contain them.
        outside: whether images elsewhere are allowed.
    """

    def __init__(self, folder: Path, outside: OutsideImages) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._real = os.path.realpath(folder)
        self._is_open = outside == "allow"

    @classmethod
    def of_file(
        cls, file: Path, image_root: str | Path | None, outside: OutsideImages, info: Any = None
    ) -> "ImageBounds":
        """Return the bounds of a file.

        Args:
            file: the label file.
            image_root: the folder that the user gives for its images; None: none.
            outside: whether images elsewhere are allowed.
            info: the file's description of itself, in which kpd marks the files it has written.
        """
        if isinstance(info, dict) and info.get(MARK) == _mark(file):
            outside = "allow"
        folder = file.absolute().parent
        if folder.name.lower() in LABEL_FOLDERS:
            folder = folder.parent
        return cls(Path(image_root) if image_root is not None else folder, outside)

    def encloses(self, path: str | Path) -> bool:
        """Whether an image may be read; links are not followed, so that linked folders count as below."""
        if self._is_open or Path(os.path.abspath(path)).is_relative_to(self.folder):
            return True
        # The folder may have been given as a link, and the image by its real path.
        return Path(os.path.realpath(path)).is_relative_to(self._real)

    def describe_outside(self, name: str) -> str:
        """Report that an image is elsewhere, and how to allow it."""
        return (
            f"{name!r:.120} is outside {self.folder}. If you trust the file, --data.outside_images=allow reads such "
            "images too."
        )


def allow_outside(file: Path) -> dict[str, str]:
    """Return the `info` entry for a file written by kpd, whose images may be anywhere.

    It is derived from the folder, so that it is valid only where the file was written: a file from elsewhere cannot
    have it.
    """
    return {MARK: _mark(file)}


def _mark(file: Path) -> str:
    return hashlib.blake2b(os.fsencode(os.path.realpath(file.parent)), digest_size=DIGEST_BYTES).hexdigest()
