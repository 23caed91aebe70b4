import pytest

from keypoint_detection.data.unlabelled import find_unlabelled
from keypoint_detection.types import DataError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(source, takes_videos=True):
    return [
        file.name for file in find_unlabelled(str(source), None, "data.predict", "error", takes_videos=takes_videos)
    ]


def test_what_is_no_image_is_left_out_and_counted(tmp_path, caplog):
    touch(
        tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "t.h5", "u.csv", "v.csv", "README", "p.pdf"
    )
    assert names(tmp_path) == ["a.png"]
    (said,) = (record.getMessage() for record in caplog.records)
    assert "left out 7 files that are not images or videos: " in said
    assert "2 hidden" in said
    assert "2 .csv" in said
    assert "1 .h5" in said
    assert "1 .pdf" in said
    assert "1 without a suffix" in said


def test_images_of_every_kind_are_found(tmp_path):
    kinds = ["a.AVIF", "b.JP2", "c.mpo", "d.webp", "e.HEIC", "f.JPG", "g.tif", "h.jfif", "i.gif", "j.ppm"]
    touch(tmp_path, *kinds)
    assert names(tmp_path) == kinds


def test_videos_of_every_kind_are_found_among_images(tmp_path):
    kinds = [
        "a.MP4",
        "b.png",
        "c.mpg",
        "d/e.TS",
        "f.wmv",
        "g.m4v",
        "h.webm",
        "i.MTS",
        "j.avi",
        "k.MOV",
        "l.mpeg",
        "m.3gp",
    ]
    touch(tmp_path, *kinds)
    assert names(tmp_path) == kinds
    assert sum(file.is_video for file in find_unlabelled(str(tmp_path), None, "x", "error", takes_videos=True)) == 11
    assert names(tmp_path, takes_videos=False) == ["b.png"]


def test_a_pattern_takes_images_and_videos_and_what_it_names(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.mp4", "b.MP4", "c.csv", "d.xyz", ".hidden/e.png", "f/g.png")
    assert names("*.mp4") == ["a.mp4"]
    assert names("*.[mM][pP]4") == ["a.mp4", "b.MP4"]
    assert names("*.xyz") == ["d.xyz"]
    assert names(".hidden/*") == [".hidden/e.png"]
    assert not caplog.records
    assert names("*") == ["a.mp4", "b.MP4"]
    assert "left out 2 files" in caplog.text


def test_a_source_with_nothing_to_find_points_in_is_refused(tmp_path):
    touch(tmp_path, "a.csv", "b.csv")
    with pytest.raises(DataError, match=r"has no images or videos, only these files: 2 \.csv\."):
        names(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no images or videos\.$"):
        names(tmp_path / "empty")
    with pytest.raises(DataError, match="no file matches the pattern"):
        names(tmp_path / "*.png")
    with pytest.raises(DataError, match="does not exist; an image, a video, a folder, a pattern or a COCO file"):
        names(tmp_path / "nowhere.png")
