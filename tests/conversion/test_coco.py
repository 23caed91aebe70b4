import json
from pathlib import Path

import pytest


def write(path: Path, name: str, x: float) -> None:
    content = {
        "images": [{"id": 1, "file_name": name, "height": 40, "width": 80}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [x, 9, 2]}],
        "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose"]}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


LAYOUTS = {
    "roboflow": ("train/_annotations.coco.json", "train/0.png", "valid/_annotations.coco.json", "valid/0.png"),
    "cvat": (
        "annotations/person_keypoints_Train.json",
        "images/Train/0.png",
        "annotations/person_keypoints_Validation.json",
        "images/Validation/0.png",
    ),
    "coco": (
        "annotations/person_keypoints_train2017.json",
        "train2017/0.png",
        "annotations/person_keypoints_val2017.json",
        "val2017/0.png",
    ),
}


@pytest.fixture
def data_set(draw, tmp_path):
    def make(layout: str) -> list[Path]:
        train, train_image, val, val_image = LAYOUTS[layout]
        write(tmp_path / train, "0.png", 10)
        write(tmp_path / val, "0.png", 50)
        return [draw(train_image), draw(val_image)]

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folders_of_other_programs_are_read_as_parts(data_set, read, tmp_path, layout):
    paths = data_set(layout)
    labels = read(tmp_path)
    found = [(image.path, image.split, image.instances[0].points.tolist()) for image in labels.images]
    assert found == [(paths[0], "train", [[10.0, 9.0]]), (paths[1], "val", [[50.0, 9.0]])]
    assert len({image.name for image in labels.images}) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_one_name_in_two_parts_never_share_a_file(data_set, read, tmp_path, layout):
    paths = data_set(layout)
    with pytest.raises(ValueError, match=r"/0.png' are two images in the labels, but both lead to"):
        read(tmp_path, image_root=paths[0].parent)


def test_the_folder_above_those_of_the_parts_can_be_given(data_set, read, tmp_path):
    paths = data_set("roboflow")
    assert [image.path for image in read(tmp_path, image_root=tmp_path).images] == paths


def test_an_object_without_a_placed_point_is_left_out(draw, read, tmp_path):
    draw("0.png")
    write(tmp_path / "a.json", "0.png", 10)
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"].append({"id": 2, "image_id": 1, "category_id": 1, "keypoints": [], "num_keypoints": 0})
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = read(tmp_path / "a.json")
    assert [len(image.instances) for image in labels.images] == [1]
    assert labels.notes == ["Left out: 1 annotation without keypoints."]


def test_two_drives_are_two_sources(tmp_path, draw, read):
    draw("img/0.png")
    images = [
        {"id": n, "file_name": f"{drive}:\\img\\0.png", "height": 40, "width": 80} for n, drive in enumerate("CD")
    ]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "keypoints": [9, 9, 2]} for n in (0, 1)]
    categories = [{"id": 1, "name": "mouse", "keypoints": ["nose"]}]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    with pytest.raises(ValueError, match=r"'D:/img/0\.png' and 'C:/img/0\.png' are two images in the labels"):
        read(path)
