"""Files that are not what their names say, never end, or are made to exhaust their reader."""

import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.conversion.formats import find_labels, read_labels
from keypoint_detection.conversion.label_set import Reading
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.unlabelled import find_unlabelled
from keypoint_detection.data.video import read_frames, write_video
from keypoint_detection.documents import parse_yaml, read_text
from keypoint_detection.images import ImageError, read_pixels, read_sizes, scan_image
from keypoint_detection.types import DataError

ALIAS_BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


def _convert(name: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        return read_labels(*find_labels(path, name), Reading(None, [], "error", "error"), None)  # type: ignore[arg-type]

    return read


JSON_READERS: dict[str, Callable[[Path], object]] = {
    "training": lambda path: read_coco(path, coordinates="continuous"),
    "prediction": lambda path: find_unlabelled(str(path), None, "--data.predict", "error", takes_videos=True),
    "coco": _convert("coco"),
    "blender": _convert("blender"),
    "label_studio": _convert("label_studio"),
}
YAML_READERS: dict[str, Callable[[Path], object]] = {
    "yolo": _convert("yolo"),
    # The config beside a table of DeepLabCut.
    "deeplabcut": lambda path: _convert("deeplabcut")(_beside_table(path)),
}


def _beside_table(path: Path) -> Path:
    table = path.parent / "CollectedData_me.csv"
    table.write_text("scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\na.png,1,2\n")
    if path.name != "config.yaml":
        os.rename(path, path.parent / "config.yaml")
    return table


NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "deep": b"[" * 1_000_000,
    "deep_objects": b'{"images":' * 100_000,
    "deep_inside": b'{"images":[{"id":1,"file_name":"a.png","x":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    "utf_16": '{"images": []}'.encode("utf-16"),
    "latin_1": '{"images": "é"}'.encode("latin-1"),
    "gzip": gzip.compress(b"{}", mtime=0),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "zeros": bytes(10_000),
    "thousands_of_digits": b'{"images": [{"id": ' + b"9" * 5000 + b', "file_name": "a.png"}]}',
    "half_a_character": b'[{"images": "\\ud800.png"}]',
    "half_a_character_in_coco": b'{"annotations": [], "categories": [], "images": [{"id": 1, "file_name": "\\ud800"}]}',
}
NOT_YAML: dict[str, bytes] = {
    "deep": b"[" * 5000,
    "deep_blocks": b"- " * 5000,
    "aliases": ALIAS_BOMB.encode(),
    "merged_aliases": MERGE_BOMB.encode(),
    "contains_itself": b"a: &a [*a]",
    "utf_16": "a: 1".encode("utf-16"),
    "latin_1": "a: é".encode("latin-1"),
    "no_date": b"a: 2024-99-99",
    "no_integer": b"a: !!int ''",
    "no_boolean": b"a: !!bool x",
    "code": b"a: !!python/object/apply:os.system [exit]",
    "control_characters": b"a: \x01",
    "half_a_character": b'Task: "\\ud800"',
}


@pytest.mark.parametrize("reader", JSON_READERS)
@pytest.mark.parametrize("content", NOT_JSON)
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, reader: str, content: str) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(NOT_JSON[content])
    with pytest.raises(DataError, match=r"labels\.json") as caught:
        JSON_READERS[reader](path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("reader", YAML_READERS)
@pytest.mark.parametrize("content", NOT_YAML)
def test_what_is_not_yaml_is_refused_by_name(tmp_path: Path, reader: str, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(NOT_YAML[content])
    with pytest.raises(DataError, match=r"config\.yaml") as caught:
        YAML_READERS[reader](path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("reader", [*JSON_READERS, "sleap", "cvat", "deeplabcut"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, reader: str, kind: str) -> None:
    suffix = {"sleap": "slp", "cvat": "xml", "deeplabcut": "csv"}.get(reader, "json")
    path = tmp_path / f"labels.{suffix}"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    read = JSON_READERS.get(reader) or _convert(reader)
    with pytest.raises(DataError, match=rf"labels\.{suffix}"):
        read(path)


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfname")
    assert read_text(tmp_path / "a.txt", "a name") == "name"


def test_aliases_of_reasonable_size_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: *a}}") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e400", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("reader", ["coco", "blender", "label_studio", "training"])
def test_no_point_is_infinitely_far(tmp_path: Path, reader: str, value: str) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    region = {"type": "keypointlabels", "id": "r", "value": {"x": 0, "y": 5, "keypointlabels": ["nose"]}}
    contents = {
        "coco": {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [0, 5, 2]}],
            "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose"]}],
        },
        "blender": {"dataset": [{"image_path": "a.png", "corner_keypoints": [[0, 0.5], [0.5, 0.5]]}]},
        "label_studio": [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [region]}]}],
    }
    text = json.dumps(contents.get(reader, contents["coco"]))
    assert text.count('"x": 0') + text.count("[0, ") == 1
    path = tmp_path / "labels.json"
    path.write_text(text.replace('"x": 0', f'"x": {value}').replace("[0, ", f"[{value}, "))
    with pytest.raises(DataError, match=r"labels\.json"):
        JSON_READERS[reader](path)


@pytest.mark.parametrize("read", [read_sizes, read_pixels, lambda path: scan_image(path, 8)])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "postscript", "bomb", "empty"])
def test_what_is_no_image_is_refused_without_waiting(tmp_path: Path, kind: str, read: Callable[[str], object]) -> None:
    path = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path)
    else:
        header = struct.pack(">4sIIBBBBB", b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
        # 60 000 x 60 000 pixels, of which there are none.
        bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))
        eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        path.write_bytes({"postscript": eps, "bomb": bomb, "empty": b""}[kind])
    with pytest.raises(ImageError, match=r"a\.png"):
        read(str(path))


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.mp4\n"])
def test_a_playlist_under_the_name_of_a_video_reads_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_video(str(tmp_path / "other.mp4"), [np.zeros((32, 32, 3), np.uint8)] * 3, Fraction(5))
    assert len(list(read_frames(str(tmp_path / "other.mp4")))) == 3
    (tmp_path / "list.mp4").write_text(playlist)
    with pytest.raises(DataError, match=r"list\.mp4: cannot be opened as a video"):
        list(read_frames(str(tmp_path / "list.mp4")))


def test_a_pipe_under_the_name_of_a_video_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4 is a device, pipe or socket"):
        list(read_frames(str(tmp_path / "a.mp4")))


def test_modules_in_the_working_folder_take_the_place_of_none(tmp_path):
    golden = Path(__file__).parent / "assets" / "golden"
    installed = {name for names in packages_distributions().values() for name in names} | set(packages_distributions())
    for name in {*sys.stdlib_module_names, *installed, "sitecustomize", "usercustomize"}:
        if name.isidentifier():
            (tmp_path / f"{name}.py").write_text("open('PWNED', 'w').write(__name__)\n")
    words = ["predict", f"--ckpt_path={golden / 'run/checkpoints/best.ckpt'}", f"--data.predict={golden / 'images'}"]
    script = Path(sys.executable).with_name("kpd")
    subprocess.run([script, *words, "--output.folder=found"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "found" / "predictions.csv").is_file()
    assert not (tmp_path / "PWNED").exists()
