"""Read the frames of a video, one at a time, and write a video, with PyAV."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.documents import refuse_special_file
from keypoint_detection.types import DataError

__all__ = ["VIDEO_SUFFIXES", "read_frames", "read_rate", "write_video"]

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm"})
# H.264 with 4:2:0 chroma, which every player supports, needs even sides.
# What videos are read as, by the names of ffmpeg: files that contain their own frames.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,flv,asf,ogg"
CODEC, PIXEL_FORMAT = "libx264", "yuv420p"


def _open(path: str, mode: Literal["r", "w"]) -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: videos need PyAV: pip install 'keypoint-detection[video]'.") from error
    if mode == "r":
        refuse_special_file(Path(path), "a video")
    # A playlist under the name of a video would read files and addresses of its choice.
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"} if mode == "r" else {}
    try:
        return av.open(path, mode, options=options)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path}: cannot be opened as a video ({error}).") from error


def read_frames(path: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video, (H, W, 3) uint8 RGB, one after the other.

    Raises:
        DataError: it is not a video, it is truncated, or PyAV is not installed.
    """
    with _open(path, "r") as container:
        from av import FFmpegError

        if not container.streams.video:
            raise DataError(f"{path}: contains no video.")
        try:
            for frame in container.decode(video=0):
                pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                yield pixels
        except FFmpegError as error:
            raise DataError(f"{path}: cannot be read to its end ({error}).") from error


def read_rate(path: str) -> Fraction:
    """Read the frames per second of a video."""
    with _open(path, "r") as container:
        rate: Fraction | None = container.streams.video[0].average_rate
        return rate or Fraction(25)


def write_video(path: str, frames: Iterable[NDArray[np.uint8]], rate: Fraction) -> None:
    """Write frames, (H, W, 3) uint8 RGB of one size, as H.264; odd sides lose their last row or column."""
    with _open(path, "w") as container:
        import av

        stream: Any = None
        for pixels in frames:
            even = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
            if stream is None:
                stream = container.add_stream(CODEC, rate=rate)
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = PIXEL_FORMAT
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
