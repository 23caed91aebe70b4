import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.image_bounds import allow_outside
from keypoint_detection.data.unlabelled import find_unlabelled


@pytest.fixture
def write(tmp_path: Path):
    def make(file: str, *names: str, **more: Any) -> Path:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "keypoints": [1 + n, 2, 2]} for n in range(len(names))
            ],
            "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose"]}],
        }
        path.write_text(json.dumps(content | more))
        return path

    for name in ("images/a.png", "private/a.png", "set/b.png", "set/sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return make


@pytest.mark.parametrize(
    "name", ["../private/a.png", "{root}/private/a.png", "sub/../../private/a.png", "..\\private\\a.png"]
)
def test_an_image_outside_the_folder_of_its_file_is_refused(write, tmp_path, name):
    path = write("set/train.json", "b.png", name.format(root=tmp_path))
    for read in (
        lambda: read_coco(path, coordinates="continuous"),
        lambda: find_unlabelled(str(path), None, "data.predict", "error", takes_videos=True),
    ):
        with pytest.raises(ValueError, match=r"is outside .*/set\. If you trust the file, --data.outside_images=allow"):
            read()
    assert len(read_coco(path, coordinates="continuous", outside_images="allow").image_ids) == 2
    assert len(find_unlabelled(str(path), None, "data.predict", "allow", takes_videos=True)) == 2


def test_images_beside_a_folder_of_annotations_are_inside(write):
    assert len(read_coco(write("annotations/train.json", "../images/a.png"), coordinates="continuous").image_ids) == 1


def test_an_image_root_is_the_bound(write, tmp_path):
    path = write("set/train.json", f"{tmp_path}/private/a.png")
    assert len(read_coco(path, tmp_path / "private", coordinates="continuous").image_ids) == 1
    with pytest.raises(ValueError, match=r"is outside .*/images"):
        read_coco(path, tmp_path / "images", coordinates="continuous")


def test_linked_folders_count_as_below(write, tmp_path):
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "private")
    (tmp_path / "same").symlink_to(tmp_path / "set")
    path = write("set/train.json", "linked/a.png", f"{tmp_path}/set/b.png")
    for file in (path, tmp_path / "same" / "train.json"):
        assert len(read_coco(file, coordinates="continuous").image_ids) == 2


def test_files_of_kpd_are_trusted_where_they_were_written(write, tmp_path):
    info = allow_outside(tmp_path / "set" / "train.json")
    path = write("set/train.json", "../private/a.png", info=info)
    assert len(read_coco(path, coordinates="continuous").image_ids) == 1
    (tmp_path / "unpacked").mkdir()
    shutil.copy(path, tmp_path / "unpacked" / "train.json")
    with pytest.raises(ValueError, match=r"is outside .*/unpacked"):
        read_coco(tmp_path / "unpacked" / "train.json", coordinates="continuous")


def test_missing_images_are_left_out_with_their_labels_on_request(write, caplog):
    path = write("set/train.json", "gone.png", "b.png", "also.png")
    with pytest.raises(
        ValueError, match=r"2 of 3 image files are missing .* 'gone.png', 'also.png'.*missing_images=skip"
    ):
        read_coco(path, coordinates="continuous")
    with caplog.at_level(logging.INFO):
        table = read_coco(path, coordinates="continuous", missing_images="skip")
    assert (table.image_ids.tolist(), table.truths.points.tolist()) == ([1], [[2, 2]])
    assert f"{path}: left out missing images: 2 of 3, e.g. 'gone.png', 'also.png'." in caplog.text


def test_a_file_without_a_single_image_is_refused(write):
    path = write("set/train.json", "gone.png", "also.png")
    with pytest.raises(ValueError, match="2 of 2 image files are missing"):
        read_coco(path, coordinates="continuous", missing_images="skip")


def test_names_of_windows_are_read(write, tmp_path):
    path = write("train.json", "images\\a.png")
    assert read_coco(path, coordinates="continuous").image_paths.tolist() == [f"{tmp_path}/images/a.png".encode()]
    assert (
        find_unlabelled(str(path), None, "data.predict", "error", takes_videos=True)[0].path
        == f"{tmp_path}/images/a.png"
    )


def test_the_advice_for_names_of_another_machine_can_be_taken(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write("abs.json", "/media/disk/images/a.png")
    with pytest.raises(ValueError, match=r"convert .*abs.json --image_root=\S+ --output=NEW.json`") as caught:
        read_coco(path, "images", coordinates="continuous", outside_images="allow")
    assert "Images of these names are in" in str(caught.value)
