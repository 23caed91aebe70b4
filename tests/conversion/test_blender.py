import json
from typing import Any

import pytest

ENTRY: dict[str, Any] = {
    "image_path": "images/0.png",
    "corner_keypoints": [[0.25, 0.75, 3.1], [0.5, 0.25, 3.0]],
    "corner_keypoints_visible": [[0.5, 0.25, 3.0]],
    "flap_corner_keypoints": [[0.125, 1.0], [1.5, 0.5]],
    "flap_corner_keypoints_visible": [],
}


@pytest.fixture
def write(tmp_path, draw):
    def write_file(*entries: dict[str, Any]):
        for index in range(2):
            draw(f"images/{index}.png")
        path = tmp_path / "dataset.json"
        path.write_text(json.dumps({"dataset": entries}))
        return path

    return write_file


def test_shares_from_the_bottom_left_become_pixels_from_the_top_left(write, read):
    labels = read(write(ENTRY))
    (category,) = labels.categories
    assert (category.name, category.keypoints) == ("box", ["corner0", "corner1", "flap_corner0", "flap_corner1"])
    (instance,) = labels.images[0].instances
    # In an image of 80 x 40 pixels: three quarters from the bottom is a quarter from the top.
    assert instance.points.tolist() == [[20.0, 10.0], [40.0, 30.0], [10.0, 0.0], [0.0, 0.0]]


def test_points_of_the_visible_list_are_visible_and_others_occluded(write, read):
    labels = read(write(ENTRY))
    assert labels.images[0].instances[0].visibility.tolist() == [1, 2, 1, 0]
    assert labels.notes == ["Left out: 1 point outside the image."]


def test_a_list_of_visible_points_alone_is_enough(write, read):
    labels = read(write({"image_path": "images/1.png", "flap_center_keypoints_visible": [[0.5, 0.5]]}))
    assert labels.categories[0].keypoints == ["flap_center0"]
    assert labels.images[0].instances[0].visibility.tolist() == [2]


def test_there_are_as_many_types_as_one_image_has_points(write, read):
    second = {"image_path": "images/1.png", "corner_keypoints": [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]}
    labels = read(write(ENTRY, second))
    assert labels.categories[0].keypoints == ["corner0", "corner1", "corner2", "flap_corner0", "flap_corner1"]
    assert [image.instances[0].visibility.tolist() for image in labels.images] == [[1, 2, 0, 1, 0], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"corner_keypoints": []}, "entry 0 of 'dataset' has no 'image_path'"),
        ({"image_path": "images/9.png"}, "the only image is missing in .*: 'images/9.png'"),
        ({"image_path": "images/0.png"}, "no entry has points"),
        ({"image_path": "images/0.png", "corner_keypoints": [[1]]}, r"corner_keypoints has \[1\]; \[x, y\]"),
        ({"image_path": "images/0.png", "corner_keypoints": [["a", 1]]}, r"has \['a', 1\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(write, read, entry, message):
    source = write(entry)
    with pytest.raises(ValueError, match=message):
        read(source)
