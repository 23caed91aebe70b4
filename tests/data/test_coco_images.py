import unicodedata
from pathlib import Path

import pytest

from keypoint_detection.data import coco_images
from keypoint_detection.data.coco_file import ImageEntry
from keypoint_detection.data.coco_images import read_images
from keypoint_detection.data.image_bounds import ImageBounds
from keypoint_detection.data.problems import Problems


@pytest.mark.parametrize("n_before_listing", [1, 2, 99])
def test_missing_files_are_found_whether_folders_are_listed_or_not(tmp_path, monkeypatch, n_before_listing):
    monkeypatch.setattr(coco_images, "N_BEFORE_LISTING", n_before_listing)
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    names = ["a.png", "gone.png", "sub/b.png", "sub/gone.png", "sub", "none/c.png", "link.png", "broken.png"]
    problems = Problems()
    bounds = ImageBounds(tmp_path, "error")
    entries = [ImageEntry(index, name) for index, name in enumerate(names)]
    images = read_images(entries, tmp_path, bounds, "error", problems)
    assert len(images.ids) == 8
    missing = ["gone.png", "sub/gone.png", "sub", "none/c.png", "broken.png"]
    assert images.missing == missing
    assert [message.split(" does")[0] for message in problems.by_kind["image file"]] == [
        f"image {names.index(name)}: {tmp_path / name}" for name in missing
    ]


@pytest.mark.parametrize("name", ["a/b.png", "./a.png", "a//b.png", "a/./b.png", "../a.png", "/a.png", ".a.png", "a/"])
@pytest.mark.parametrize("root", [".", "folder", "/folder/of/images"])
def test_paths_are_written_as_pathlib_writes_them(root, name):
    images = read_images([ImageEntry(1, name)], Path(root), ImageBounds(Path(root), "allow"), "error", Problems())
    assert images.paths == [str(Path(root) / name).encode()]


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("n_before_listing", [1, 99])
def test_names_with_accents_in_the_other_spelling_of_unicode_are_found(
    tmp_path, monkeypatch, on_disk, in_file, n_before_listing
):
    monkeypatch.setattr(coco_images, "N_BEFORE_LISTING", n_before_listing)
    file = tmp_path / unicodedata.normalize(on_disk, "Mäuse/ü.png")
    file.parent.mkdir()
    file.touch()
    entries = [ImageEntry(1, unicodedata.normalize(in_file, "Mäuse/ü.png")), ImageEntry(2, "Mäuse/gone.png")]
    images = read_images(entries, tmp_path, ImageBounds(tmp_path, "error"), "skip", Problems())
    assert images.missing == ["Mäuse/gone.png"]
    assert images.paths == [str(file).encode()]
