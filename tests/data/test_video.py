import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from keypoint_detection.conversion.frames import VideoFrames
from keypoint_detection.data.video import check_video, count_frames, read_frames, read_rate, save_frames, write_video
from keypoint_detection.types import DataError

N_FRAMES = 24


def coarse(seed, size=(64, 64)):
    """Random blocks of 8 px, which survive compression and are different in each frame."""
    blocks = np.random.default_rng(seed).integers(0, 255, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def encode(path, codec="libx264", pixel_format="yuv420p", container="mp4", times=range(N_FRAMES), **options):
    """Write frames at the given times, in 25ths of a second, that are numbered by their content."""
    with av.open(str(path), "w", format=container, options=options.pop("muxing", {})) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = pixel_format
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(coarse(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return str(path)


def recognise(pixels):
    return min(range(N_FRAMES), key=lambda number: np.abs(coarse(number).astype(int) - pixels).mean())


def read(path):
    """Return the numbers of the frames that were read, those that their content shows, and those of the lost ones."""
    frames = list(read_frames(path))
    assert [frame.number for frame in frames] == list(range(len(frames)))
    found = [frame for frame in frames if frame.pixels is not None]
    lost = [frame.number for frame in frames if frame.pixels is None]
    return [frame.number for frame in found], [recognise(frame.pixels) for frame in found], lost


def damage(path, at=0.5, n_bytes=300):
    content = bytearray(Path(path).read_bytes())
    start = int(len(content) * at)
    content[start : start + n_bytes] = b"\xff" * n_bytes
    Path(path).write_bytes(content)


def rotate(path, matrix):
    """Write a display matrix, as a phone does, into the header of an MP4 file."""
    content = bytearray(Path(path).read_bytes())
    start = content.index(b"tkhd") + 4 + 4 + 20 + 16
    content[start : start + 36] = struct.pack(">9i", *matrix)
    Path(path).write_bytes(content)


def test_frames_are_numbered_in_the_order_of_presentation(tmp_path):
    path = encode(tmp_path / "b.mp4", bf="3", x264opts="b-pyramid=normal:no-scenecut")
    assert read(path) == (list(range(N_FRAMES)), list(range(N_FRAMES)), [])


def test_frames_that_a_camera_dropped_are_not_counted(tmp_path):
    times = [0, 1, 2, 5, 6, 20, 21, 30, 33, 34]
    for name, codec, pixel_format, container in (
        ("v.mp4", "libx264", "yuv420p", "mp4"),
        ("v.mkv", "libx264", "yuv420p", "matroska"),
        ("v.avi", "mjpeg", "yuvj420p", "avi"),
    ):
        path = encode(tmp_path / name, codec, pixel_format, container, times)
        assert read(path) == (list(range(10)), list(range(10)), [])


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "container"),
    [
        ("v.mp4", "libx264", "yuv420p", "mp4"),
        ("v.m4v", "mpeg4", "yuv420p", "mp4"),
        ("v.mov", "mjpeg", "yuvj420p", "mov"),
    ],
)
def test_frames_after_a_lost_one_keep_their_numbers(tmp_path, name, codec, pixel_format, container):
    path = encode(tmp_path / name, codec, pixel_format, container, g="6")
    damage(path)
    numbers, shown, lost = read(path)
    assert len(numbers) + len(lost) == N_FRAMES
    assert 1 <= len(lost) <= 6
    # Frames that were encoded as differences to a lost one look like others.
    damaged = set(range(lost[0] - 6, lost[0] + 12))
    assert {number for number, what in zip(numbers, shown, strict=True) if number != what} <= damaged
    assert numbers[-1] == shown[-1] == N_FRAMES - 1


@pytest.mark.parametrize(
    ("name", "codec", "container", "muxing"),
    [
        ("v.mp4", "libx264", "mp4", {"movflags": "faststart"}),
        ("v.mkv", "libx264", "matroska", {}),
        ("v.webm", "libvpx-vp9", "webm", {}),
        ("v.avi", "mpeg4", "avi", {}),
    ],
)
def test_the_frames_beyond_the_end_of_a_truncated_video_are_listed(tmp_path, name, codec, container, muxing):
    path = encode(tmp_path / name, codec, container=container, muxing=muxing, g="6")
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) * 8 // 10])
    numbers, shown, lost = read(path)
    assert len(numbers) >= 5
    assert numbers[:5] == shown[:5]
    assert lost[-1] == N_FRAMES - 1
    assert list(read_frames(path))[-1].failure == "the file is truncated"


def test_a_transport_stream_with_missing_packets_keeps_its_numbers(tmp_path):
    path = encode(tmp_path / "v.ts", container="mpegts", g="6")
    damage(path, n_bytes=2000)
    numbers, shown, lost = read(path)
    assert len(numbers) + len(lost) == N_FRAMES
    assert numbers[-1] == shown[-1] == N_FRAMES - 1


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30), lambda image: np.rot90(image, -1)),
        ((0, -65536, 0, 65536, 0, 0, 0, 96 << 16, 1 << 30), np.rot90),
        ((-65536, 0, 0, 0, -65536, 0, 96 << 16, 64 << 16, 1 << 30), lambda image: np.rot90(image, 2)),
        ((-65536, 0, 0, 0, 65536, 0, 96 << 16, 0, 1 << 30), np.fliplr),
        ((65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), lambda image: image),
    ],
)
def test_a_video_is_read_upright(tmp_path, matrix, turn):
    stored = coarse(0, (64, 96))
    path = str(tmp_path / "phone.mp4")
    write_video(path, [stored] * 3, Fraction(25))
    rotate(path, matrix)
    frames = [frame.pixels for frame in read_frames(path)]
    assert len(frames) == 3
    assert frames[0].shape == turn(stored).shape
    assert np.abs(frames[0].astype(int) - turn(stored)).mean() < 12
    assert VideoFrames(Path(path))[1].shape == turn(stored).shape


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("ffv1", "yuv420p10le", (64, 64)),
        ("ffv1", "gray", (64, 64)),
        ("ffv1", "gray16le", (63, 61)),
        ("ffv1", "yuv444p", (47, 35)),
        ("rawvideo", "yuv420p", (34, 46)),
        ("mjpeg", "yuvj420p", (46, 64)),
    ],
)
def test_colours_and_odd_sizes_are_right(tmp_path, codec, pixel_format, size):
    pixels = np.repeat(np.linspace(20, 230, size[0] * size[1]).reshape(*size, 1), 3, axis=2).astype(np.uint8)
    path = str(tmp_path / "v.mkv")
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    frames = list(read_frames(path))
    assert len(frames) == 3
    assert frames[-1].pixels.shape == (*size, 3)
    assert np.abs(frames[-1].pixels.astype(int) - pixels).max() <= 4


@pytest.mark.parametrize(("kr", "kb", "matrix"), [(0.299, 0.114, 5), (0.2126, 0.0722, 1)])
@pytest.mark.parametrize("is_full", [False, True])
def test_the_matrix_and_the_range_of_colours_are_those_of_the_file(tmp_path, kr, kb, matrix, is_full):
    y, u, v = 100, 90, 170
    with av.open(str(tmp_path / "v.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if is_full else 1
        frame = av.VideoFrame(64, 64, "yuv444p")
        for plane, value in zip(frame.planes, (y, u, v), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    luma, blue_y, red_y = (y / 255, (u - 128) / 255, (v - 128) / 255)
    if not is_full:
        luma, blue_y, red_y = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = luma + 2 * (1 - kr) * red_y, luma + 2 * (1 - kb) * blue_y
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    (read_frame,) = read_frames(str(tmp_path / "v.mkv"))
    assert read_frame.pixels[32, 32] == pytest.approx(255 * np.array([red, green, blue]), abs=1.5)


def test_what_an_edit_list_cuts_away_is_not_shown(tmp_path):
    """A phone's trimmed video still contains the frames from the key frame before the cut on."""
    source = encode(tmp_path / "whole.mp4", g="24", bf="0")
    with (
        av.open(source) as whole,
        av.open(str(tmp_path / "cut.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as cut,
    ):
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                shift = 10 * packet.duration
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                cut.mux(packet)
    numbers, shown, lost = read(str(tmp_path / "cut.mp4"))
    assert (numbers, shown, lost) == (list(range(14)), list(range(10, 24)), [])


def test_other_streams_of_a_file_do_not_matter(tmp_path):
    path = str(tmp_path / "v.mkv")
    with av.open(path, "w") as file:
        audio, video = file.add_stream("aac", rate=16000), file.add_stream("libx264", rate=25)
        video.width = video.height = 64
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for number in range(46):  # three seconds, and less than one of video
            sound.pts = 1024 * number
            file.mux(audio.encode(sound))
        for number in range(N_FRAMES):
            file.mux(video.encode(av.VideoFrame.from_ndarray(coarse(number), format="rgb24")))
        file.mux(video.encode())
        file.mux(audio.encode())
    assert read(path) == (list(range(N_FRAMES)), list(range(N_FRAMES)), [])


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(1, 2), Fraction(1000000, 33367), Fraction(240)])
def test_the_rate_of_a_video_is_kept(tmp_path, rate):
    path = str(tmp_path / "v.mp4")
    write_video(path, [coarse(number) for number in range(6)], rate)
    assert read_rate(path) == rate
    assert len(list(read_frames(path))) == 6


def test_what_is_no_video_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataError, match=r"text.mp4: cannot be opened as a video .*complete\?$"):
        check_video(str(tmp_path / "text.mp4"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound.mp4: contains no video, only audio\.$"):
        check_video(str(tmp_path / "sound.mp4"))


def test_a_video_without_frames_is_refused(tmp_path):
    path = encode(tmp_path / "v.avi", "mjpeg", "yuvj420p", "avi", times=range(0))
    with pytest.raises(DataError, match=r"v\.avi"):
        next(read_frames(path))


def test_what_vanished_from_an_avi_file_is_counted_where_it_was(tmp_path):
    path = encode(tmp_path / "v.avi", "mjpeg", "yuvj420p", "avi")
    with av.open(path) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux() if packet.size]
    content = bytearray(Path(path).read_bytes())
    start = packets[7][0] - 8
    content[start : start + 300] = b"\xff" * 300
    Path(path).write_bytes(content)
    numbers, shown, lost = read(path)
    assert (numbers, lost) == (shown, [7])
    assert len(numbers) == N_FRAMES - 1


def test_a_labelled_frame_is_found_beyond_a_lost_one(tmp_path):
    path = encode(tmp_path / "v.mov", "mjpeg", "yuvj420p", "mov")
    damage(path)
    (lost,) = read(path)[2]
    frames = VideoFrames(Path(path))
    assert recognise(frames[lost + 2]) == lost + 2
    with pytest.raises(DataError, match=rf"frame {lost} \(counted from 0\) is lost"):
        frames[lost]
    with pytest.raises(DataError, match=f"has {N_FRAMES} frames; frame 99"):
        frames[99]


def test_some_frames_are_saved_by_their_numbers(tmp_path):
    path = encode(tmp_path / "v.mp4")
    assert count_frames(path) == N_FRAMES
    save_frames(path, tmp_path / "frames", [2, 17])
    assert sorted(file.name for file in (tmp_path / "frames").iterdir()) == ["000002.png", "000017.png"]


def test_frames_of_other_sizes_are_fitted_into_a_written_video(tmp_path):
    path = str(tmp_path / "v.mp4")
    write_video(path, [coarse(0, (64, 96)), coarse(1, (32, 48))], Fraction(25))
    assert [frame.pixels.shape for frame in read_frames(path)] == [(64, 96, 3)] * 2
