"""Frames of videos as image files, for formats that label videos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.conversion.label_set import LabelSet
from keypoint_detection.data.video import Frame, read_frames
from keypoint_detection.types import DataError


class VideoFrames:
    """Returns frames of a video by number; cheap as long as the numbers increase.

    Decoding from the start finds exactly the frame that was labelled; in some files, seeking does not.

    Args:
        path: the video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[Frame] = iter(())
        self._next = 0

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        """Decode a frame, (H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: the video is too short, it or the frame cannot be read, or PyAV is not installed.
        """
        if number < self._next or not self._next:
            self._frames, self._next = read_frames(str(self.path)), 0
        for frame in self._frames:
            self._next = frame.number + 1
            if frame.number == number:
                if frame.pixels is None:
                    raise DataError(f"{self.path}: frame {number} (counted from 0) is lost ({frame.failure}).")
                return frame.pixels
        raise DataError(f"{self.path}: has {self._next} frames; frame {number} (counted from 0) is labelled.")


def save_frames(labels: LabelSet, folder: Path) -> int:
    """Write the images that have no file yet as PNG, and set their path and size.

    Args:
        labels: labels whose images are updated in place.
        folder: folder to write to; an image's name is its path below it.

    Returns:
        The number of images written.

    Raises:
        DataError: frames cannot be read, or two have the same name.
    """
    n_written = 0
    for image in labels.images:
        if image.path is None:
            assert image.read is not None
            pixels = image.read()
            path = folder / image.name
            if path.exists():
                raise DataError(f"two frames would both become {path}; rename one of their videos.")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            image.path, image.size = path, (pixels.shape[0], pixels.shape[1])
            n_written += 1
    return n_written
