"""Read the frames of a video, one at a time, and write a video, with PyAV."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keypoint_detection.documents import refuse_special_file
from keypoint_detection.extras import how_to_install
from keypoint_detection.types import DataError

VIDEO_KINDS = (
    "264 265 3g2 3gp asf avi divx dv f4v flv h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg "
    "mts mxf nut ogm ogv qt ts vob webm wmv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{kind}" for kind in VIDEO_KINDS.split())
# The formats they are read as, by their names in ffmpeg: files that contain their own frames.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,dv,ivf,h264,hevc,m4v,mjpeg,"
    "yuv4mpegpipe"
)
# H.264 with 4:2:0 chroma, which every player supports, needs even sides.
CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
USUAL_RATE = Fraction(25)
# The containers whose header gives the length of the recording, even if the file was later truncated.
STATED_DURATION = ("matroska,webm", "asf", "flv")
MICROSECONDS = 1_000_000
# In the index of an AVI file, each frame begins with this header.
AVI_HEADER_BYTES = 8
# A recording can end this many frames before its stated duration: audio and video seldom end together.
TOLERATED_FRAMES = 3


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: from 0, in the order in which a player shows them; frames that cannot be decoded count.
        pixels: (H, W, 3) uint8 RGB, upright; None if it cannot be decoded.
        failure: why it cannot be decoded; empty if it can.
    """

    number: int
    pixels: NDArray[np.uint8] | None
    failure: str


def _open(path: str, mode: Literal["r", "w"]) -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: videos need PyAV: {how_to_install('video')}.") from error
    if mode == "r":
        refuse_special_file(Path(path), "a video")
    # A playlist disguised as a video could read files and addresses of its choice.
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"} if mode == "r" else {}
    try:
        return av.open(path, mode, options=options)
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be opened as a video ({reason}). Is the file complete?") from error


def _find_stream(container: Any, path: str) -> Any:
    """Return the video among the streams, which can include an album cover."""
    from av.stream import Disposition

    stream = container.streams.best("video")
    if stream is None or Disposition.attached_pic in stream.disposition:
        raise DataError(f"{path}: contains no video, only {', '.join(sorted({s.type for s in container.streams}))}.")
    if stream.codec_context is None:
        raise DataError(f"{path}: this PyAV cannot decode its video; convert it to H.264.")
    return stream


def check_video(path: str) -> None:
    """Raise DataError if a file is not a video or PyAV is not installed."""
    with _open(path, "r") as container:
        _find_stream(container, path)


def read_frames(path: str) -> Iterator[Frame]:
    """Yield the frames of a video, one after the other, upright as players show them.

    A damaged or truncated video yields all frames that can be decoded, under their own numbers.

    Raises:
        DataError: it is not a video, it has no frames, or PyAV is not installed.
    """
    with _open(path, "r") as container:
        from av import FFmpegError

        stream = _find_stream(container, path)
        order = _Order(stream)
        packets = container.demux()
        while True:
            try:
                packet = next(packets)
                order.take(packet, packet.stream is stream)
                decoded = packet.decode() if packet.stream is stream else ()
            except StopIteration:
                break
            except FFmpegError as error:
                order.note(error.strerror or str(error))
                continue
            for frame in decoded:
                yield from order.find_lost(frame.pts)
                yield Frame(order.number, _turn_upright(frame), "")
                order.number += 1
        yield from order.find_lost_at_end(container, stream)
        if not order.number:
            raise DataError(f"{path}: the video has no frames.")


class _Order:
    """Numbers frames, and finds lost ones: packets from which no frame was decoded.

    Frames are matched with packets by their time, since packets come in a different order. Where that is impossible,
    each error counts as a lost frame. Packets that vanish leave a gap in time, which counts only where the file is
    known to be damaged, since cameras drop frames too; in AVI files, the index lists them.

    Args:
        stream: the video stream.
    """

    def __init__(self, stream: Any) -> None:
        self.number = 0
        self._period = 1 / float(stream.time_base * (stream.average_rate or USUAL_RATE))
        self._is_regular = bool(stream.average_rate)
        self._n_packets = self._n_uncounted = 0
        self._end_s = 0.0
        self._reason = ""
        self._pending: list[int] = []
        self._latest: int | None = None
        # Where each packet begins in an AVI file, whose times are only guessed; PyAV gives this from version 17.
        is_avi = stream.container.format.name == "avi"
        entries = (entry for entry in getattr(stream, "index_entries", ()) if entry.size) if is_avi else ()
        self._index = {entry.pos + AVI_HEADER_BYTES: number for number, entry in enumerate(entries)}
        self._has_times = not is_avi

    def take(self, packet: Any, is_video: bool) -> None:
        """Expect a frame from a packet."""
        if packet.pts is not None:
            self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if not is_video or packet.dts is None:  # the packet that ends a stream has no time
            return
        n_vanished = self._index.get(packet.pos, self._n_packets) - self._n_packets
        if n_vanished > 0 or packet.is_corrupt:
            self._reason = self._reason or "the file is damaged"
            self._n_uncounted += max(0, n_vanished)
        self._n_packets += 1 + max(0, n_vanished)
        if packet.pts is None:
            self._has_times = False
        elif packet.size and not packet.is_discard:  # cut away by an edit list
            heapq.heappush(self._pending, packet.pts)

    def note(self, reason: str) -> None:
        """Note that a packet cannot be decoded."""
        self._reason = reason
        self._n_uncounted += 1

    def find_lost(self, pts: int | None) -> Iterator[Frame]:
        """Yield the frames that should have come before the one at a given time."""
        if pts is None or (self._latest is not None and pts <= self._latest):
            self._has_times = False
        n_skipped = 0
        while self._has_times and self._pending and self._pending[0] <= (pts or 0):
            n_skipped += heapq.heappop(self._pending) < (pts or 0)
        n_periods = 1 if pts is None or self._latest is None else round((pts - self._latest) / self._period)
        self._latest = pts
        if self._reason and self._is_regular:
            n_skipped = max(n_skipped, n_periods - 1)
        self._is_regular &= bool(self._reason) or n_periods == 1
        if n_skipped and not self._reason:
            # Before the first frame, players show nothing; after it, some packets of this file do not hold a separate
            # frame.
            self._has_times, n_skipped = not self.number, 0
        yield from self._lose(n_skipped if self._has_times else self._n_uncounted)

    def find_lost_at_end(self, container: Any, stream: Any) -> Iterator[Frame]:
        """Yield the frames that are missing at the end."""
        n_lost = (len(self._pending) if self._has_times else self._n_uncounted) if self._reason else 0
        n_cut = self._count_cut(container, stream)
        if n_cut:
            self._reason = "the file is truncated"
        yield from self._lose(n_lost + n_cut)

    def _count_cut(self, container: Any, stream: Any) -> int:
        """Return how many frames the header promises beyond the last packet; approximate if it gives a time."""
        rate = stream.average_rate or USUAL_RATE
        container_format = container.format.name
        if container_format.startswith("mov"):
            return max(0, int(stream.frames) - self._n_packets)
        if container_format == "avi":
            # The header's figure is limited to what the size of the file allows: dropped frames are not damage.
            is_cut = stream.duration is not None and stream.frames > stream.duration * stream.time_base * rate + 1
            return max(0, int(stream.frames) - self._n_packets) if is_cut else 0
        if container_format in STATED_DURATION and container.duration:
            start_s = (container.start_time or 0) / MICROSECONDS
            n_missing: int = round((container.duration / MICROSECONDS + start_s - self._end_s) * float(rate))
            return n_missing if n_missing > TOLERATED_FRAMES else 0
        return 0

    def _lose(self, n_frames: int) -> Iterator[Frame]:
        self._n_uncounted = 0
        for _ in range(n_frames):
            yield Frame(self.number, None, self._reason)
            self.number += 1


def _turn_upright(frame: Any) -> NDArray[np.uint8]:
    """Return the pixels of a frame rotated by its display matrix: phones store videos on their side."""
    from av.sidedata.sidedata import Type

    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2]
    if abs(b) > abs(a):  # a row as stored becomes a column as shown
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def save_frames(path: str, folder: Path, numbers: Collection[int]) -> None:
    """Write frames of a video as `NUMBER.png`, with six digits; those that cannot be decoded are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in read_frames(path):
        if frame.number in numbers and frame.pixels is not None:
            Image.fromarray(frame.pixels).save(folder / name_frame(frame.number))
        if frame.number >= max(numbers):
            break


def name_frame(number: int) -> str:
    """Name the image of a frame; six digits are enough to sort hours of frames."""
    return f"{number:06d}.png"


def count_frames(path: str) -> int | None:
    """Return the approximate number of frames in a video, from its header; None if unknown."""
    with _open(path, "r") as container:
        stream = _find_stream(container, path)
        by_time = (container.duration or 0) / MICROSECONDS * float(stream.average_rate or USUAL_RATE)
        n_frames: int = stream.frames or round(by_time)
    return n_frames or None


def read_rate(path: str) -> Fraction:
    """Read the frames per second of a video."""
    with _open(path, "r") as container:
        rate: Fraction | None = _find_stream(container, path).average_rate
        return rate or USUAL_RATE


def write_video(path: str, frames: Iterable[NDArray[np.uint8]], rate: Fraction) -> None:
    """Write frames, (H, W, 3) uint8 RGB, as H.264 of the first one's size; odd sides lose their last row or column."""
    with _open(path, "w") as container:
        import av

        stream: Any = None
        for pixels in frames:
            if stream is None:
                stream = container.add_stream(CODEC, rate=rate)
                size = pixels.shape[:2]
                stream.height, stream.width = (side // 2 * 2 for side in size)
                stream.pix_fmt = PIXEL_FORMAT
            fitted = pixels if pixels.shape[:2] == size else np.asarray(Image.fromarray(pixels).resize(size[::-1]))
            even = np.ascontiguousarray(fitted[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
