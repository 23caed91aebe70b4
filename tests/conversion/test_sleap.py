import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import sleap_io
from PIL import Image

from keypoint_detection.data.video import write_video

NAN = float("nan")
# x, y, visible: the first instance has a point marked "not visible", the second lacks one.
POINTS = [(10.0, 20.0, True), (30.5, 5.0, False), (NAN, NAN, False), (7.0, 8.0, True)]
POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
INSTANCE = [("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4")]
INSTANCE += [("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8")]
FRAME = [
    ("frame_id", "u8"),
    ("video", "u4"),
    ("frame_idx", "u8"),
    ("instance_id_start", "u8"),
    ("instance_id_end", "u8"),
]


def write_slp(
    path: Path, video: dict[str, Any], frame_indices: tuple[int, int, int] = (0, 1, 2), format_id: float = 1.1
) -> Path:
    """Write a file as SLEAP lays it out: two frames with a mouse each, and one with a prediction alone."""
    skeleton = {
        "directed": True,
        "graph": {"name": "mouse", "num_edges_inserted": 1},
        "links": [
            {
                "edge_insert_idx": 0,
                "key": 0,
                "source": 1,
                "target": 0,
                "type": {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]},
            }
        ],
        "multigraph": True,
        "nodes": [{"id": 1}, {"id": 0}],  # nose, tail
    }
    metadata = {"version": "2.0.0", "skeletons": [skeleton], "nodes": [{"name": "tail"}, {"name": "nose"}]}
    metadata |= {"videos": [], "tracks": [], "suggestions": [], "negative_anchors": {}, "provenance": {}}
    instances = [(0, 0, 0, 0, -1, -1, 0.0, 0, 2), (1, 0, 1, 0, -1, -1, 0.0, 2, 4), (2, 1, 2, 0, -1, -1, 0.9, 0, 2)]
    frames = [(index, 0, number, index, index + 1) for index, number in enumerate(frame_indices)]
    with h5py.File(path, "a") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"] = format_id
        group.attrs["json"] = np.bytes_(json.dumps(metadata))
        file["videos_json"] = np.array([np.bytes_(json.dumps(video))])
        file["tracks_json"] = np.array([], dtype="S1")
        file["suggestions_json"] = np.array([], dtype="S1")
        file["frames"] = np.array(frames, dtype=FRAME)
        file["instances"] = np.array(instances, dtype=INSTANCE)
        file["points"] = np.array([(*point, True) for point in POINTS], dtype=POINT)
        file["pred_points"] = np.array([(1, 1, True, True, 0.9)] * 2, dtype=[*POINT, ("score", "f8")])
    return path


@pytest.fixture
def images(tmp_path: Path, draw: Callable[..., Path]) -> dict[str, Any]:
    """A video of SLEAP that is a list of images, with the paths of another machine."""
    names = [draw(f"frames/{index}.png").name for index in range(3)]
    paths = [f"C:\\lab\\frames\\{name}" for name in names]
    backend = {"type": "ImageVideo", "filename": paths[0], "filenames": paths, "height_": 40, "width_": 80}
    return {"filename": paths, "backend": {**backend, "channels_": 3, "grayscale": False}}


def test_coordinates_name_pixels_and_invisible_points_are_not_labelled(tmp_path, images, read):
    labels = read(write_slp(tmp_path / "mice.slp", images))
    (category,) = labels.categories
    assert (category.name, category.keypoints, category.skeleton) == ("mouse", ["nose", "tail"], [(0, 1)])
    assert [image.name for image in labels.images] == ["lab/frames/0.png", "lab/frames/1.png"]
    (one,), (other,) = (image.instances for image in labels.images)
    assert one.points.tolist() == [[10.5, 20.5], [0, 0]]
    assert one.visibility.tolist() == [2, 0]
    assert other.points.tolist() == [[0, 0], [7.5, 8.5]]
    assert other.visibility.tolist() == [0, 2]


def test_what_is_left_out_is_told(tmp_path, images, read):
    notes = read(write_slp(tmp_path / "mice.slp", images)).notes
    assert notes == [
        "Left out: 1 frame with predictions only.",
        "Read as not labelled, as SLEAP does: 1 point that is marked as not visible.",
    ]


def test_early_files_count_from_the_corner(tmp_path, images, read):
    labels = read(write_slp(tmp_path / "mice.slp", images, format_id=1.0))
    assert labels.images[0].instances[0].points.tolist() == [[10.0, 20.0], [0, 0]]


def test_images_inside_the_file_are_read(tmp_path, read):
    path = tmp_path / "mice.pkg.slp"
    encoded = []
    for level in (50, 100, 150):
        buffer = io.BytesIO()
        Image.new("RGB", (80, 40), (level, 0, 0)).save(buffer, "PNG")
        encoded.append(np.frombuffer(buffer.getvalue(), dtype=np.int8))
    width = max(map(len, encoded))
    with h5py.File(path, "w") as file:
        file["video0/video"] = np.stack([np.pad(one, (0, width - len(one))) for one in encoded])
        file["video0/video"].attrs.update({"format": "png", "frames": 3, "height": 40, "width": 80, "channels": 3})
        file["video0/video"].attrs["channel_order"] = "RGB"
        file["video0/frame_numbers"] = np.array([4, 9, 11])
        source = {"backend": {"filename": "/gone/session1.mp4", "type": "MediaVideo"}}
        file.create_group("video0/source_video").attrs["json"] = json.dumps(source)
    backend = {"filename": ".", "dataset": "video0/video", "input_format": "channels_last", "convert_range": False}
    labels = read(write_slp(path, {"backend": backend}, frame_indices=(4, 9, 11)))
    assert [(one.name, one.group) for one in labels.images] == [
        ("session1/000004.png", "session1"),
        ("session1/000009.png", "session1"),
    ]
    assert [one.read()[0, 0].tolist() for one in labels.images] == [[50, 0, 0], [100, 0, 0]]


def test_frames_of_a_video_are_read(tmp_path, read):
    levels = range(20, 220, 20)
    write_video(
        str(tmp_path / "a.mp4"), (np.full((40, 80, 3), level, dtype=np.uint8) for level in levels), Fraction(25)
    )
    video = {"backend": {"type": "MediaVideo", "filename": "/gone/a.mp4", "grayscale": False, "bgr": True}}
    labels = read(write_slp(tmp_path / "mice.slp", video, frame_indices=(2, 7, 8)))
    assert [one.name for one in labels.images] == ["a/000002.png", "a/000007.png"]
    found = [float(one.read().mean()) for one in labels.images]
    assert found == pytest.approx([60, 160], abs=4)  # what the codec loses


def test_a_missing_video_is_named(tmp_path, read):
    source = write_slp(tmp_path / "mice.slp", {"backend": {"type": "MediaVideo", "filename": "/gone/a.mp4"}})
    with pytest.raises(
        ValueError, match=r"only video is missing in .*: '/gone/a.mp4'. No video of this name was found"
    ):
        read(source)


def test_a_missing_image_is_named(tmp_path, images, read):
    source = write_slp(tmp_path / "mice.slp", images)
    (tmp_path / "frames" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"frames.+1\.png"):
        read(source)


def test_another_file_is_refused(tmp_path, read):
    (tmp_path / "mice.slp").write_text("text")
    with pytest.raises(ValueError, match="cannot be read as a SLEAP file"):
        read(tmp_path / "mice.slp")


def save_frames_of(path: Path, *videos: "sleap_io.Video") -> Path:
    """Write a file with one labelled frame of each video, the first."""
    skeleton = sleap_io.Skeleton(["nose"], name="mouse")
    frames = [
        sleap_io.LabeledFrame(
            video=video, frame_idx=0, instances=[sleap_io.Instance.from_numpy(np.array([[x, 9.0]]), skeleton=skeleton)]
        )
        for x, video in enumerate(videos)
    ]
    sleap_io.save_slp(sleap_io.Labels(frames), str(path), embed=False, verbose=False)
    return path


def test_videos_that_differ_in_their_suffix_stay_apart(tmp_path, read):
    videos = [tmp_path / "a.mp4", tmp_path / "a.mov"]
    for path, level in zip(videos, (40, 200), strict=True):
        write_video(str(path), [np.full((40, 80, 3), level, dtype=np.uint8)], Fraction(25))
    opened = [sleap_io.Video(filename=str(path), open_backend=False) for path in videos]
    labels = read(save_frames_of(tmp_path / "mice.slp", *opened))
    assert [one.name for one in labels.images] == ["a.mp4/000000.png", "a.mov/000000.png"]
    assert [float(one.instances[0].points[0, 0]) for one in labels.images] == [0.5, 1.5]
    assert [float(one.read().mean()) for one in labels.images] == pytest.approx([40, 200], abs=4)


def test_videos_of_two_drives_never_reach_one_file(tmp_path, read):
    write_video(str(tmp_path / "a.mp4"), [np.zeros((40, 80, 3), np.uint8)], Fraction(25))
    videos = [sleap_io.Video(filename=f"{drive}:\\cam\\a.mp4", open_backend=False) for drive in "CD"]
    with pytest.raises(ValueError, match="are two videos in the labels, but both lead to"):
        read(save_frames_of(tmp_path / "mice.slp", *videos))


def test_images_that_differ_in_the_folder_above_stay_apart(tmp_path, draw, read, monkeypatch):
    (tmp_path / "p").mkdir()
    draw("a/0.png"), draw("p/a/0.png")
    monkeypatch.chdir(tmp_path / "p")
    videos = [sleap_io.Video.from_filename([name]) for name in ("../a/0.png", "a/0.png")]
    labels = read(save_frames_of(tmp_path / "p" / "mice.slp", *videos), outside_images="allow")
    assert [one.path.resolve() for one in labels.images] == [tmp_path / "a/0.png", tmp_path / "p/a/0.png"]
    assert [len(one.instances) for one in labels.images] == [1, 1]
