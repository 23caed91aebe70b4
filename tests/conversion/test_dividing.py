from collections import Counter
from pathlib import Path

import pytest

from keypoint_detection.conversion.dividing import divide_images
from keypoint_detection.conversion.label_set import LabelledImage


def make_images(sizes: dict[str, int], group: str = "") -> list[LabelledImage]:
    return [
        LabelledImage(f"{folder}/{folder}_{index}.png", (1, 1), Path("x"), group=group)
        for folder, size in sizes.items()
        for index in range(size)
    ]


def count(images: list[LabelledImage]) -> Counter[str]:
    return Counter(image.split for image in images)


def test_fractions_of_single_images_are_met():
    images = make_images({"a": 60, "b": 40})
    divide_images(images, 0.2, 0.1, "image", seed=0)
    assert count(images) == {"train": 70, "val": 20, "test": 10}


@pytest.mark.parametrize("group_by", ["folder", 1, r"([a-z]+)_\d", r"^[a-z]+"])
@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_in_two_parts(group_by, seed):
    images = make_images({letter: 3 + index for index, letter in enumerate("abcdefgh")})
    divide_images(images, 0.25, 0.25, group_by, seed)
    assert set(count(images)) == {"train", "val", "test"}
    parts = {(image.name.split("/")[0], image.split) for image in images}
    assert len(parts) == 8
    assert abs(count(images)["val"] - 0.25 * len(images)) <= 5  # half the largest group


def test_what_the_source_groups_stays_together_unless_the_user_says_otherwise():
    images = make_images({"a": 5}, group="one") + make_images({"b": 5}, group="other")
    divide_images(images, 0.5, 0, None, seed=0)
    assert count(images) == {"train": 5, "val": 5}
    assert len({(image.group, image.split) for image in images}) == 2
    divide_images(images, 0.1, 0, "image", seed=0)
    assert count(images) == {"train": 9, "val": 1}


def test_the_seed_decides_and_the_order_of_the_images_does_not():
    one, other, third = make_images({"a": 50}), make_images({"a": 50})[::-1], make_images({"a": 50})
    divide_images(one, 0.2, 0, "image", seed=1)
    divide_images(other, 0.2, 0, "image", seed=1)
    divide_images(third, 0.2, 0, "image", seed=2)
    validated = [{image.name for image in images if image.split == "val"} for images in (one, other, third)]
    assert validated[0] == validated[1] != validated[2]


def test_a_part_gets_one_group_however_large_it_is():
    images = make_images({"a": 50, "b": 50})
    divide_images(images, 0.01, 0, "folder", seed=0)
    assert count(images) == {"train": 50, "val": 50}


@pytest.mark.parametrize(
    ("group_by", "val", "message"),
    [
        ("folder", 0.2, r"1 groups by 'folder' \(a\), too few for train, val"),
        ("x(", 0.2, "is not a regular expression"),
        (r"(\d)\.jpg", 0.2, "5 of 5 file names do not match it"),
        (None, 1.0, "leave no images for training"),
    ],
)
def test_impossible_parts_are_refused(group_by, val, message):
    with pytest.raises(ValueError, match=message):
        divide_images(make_images({"a": 5}), val, 0, group_by, seed=0)


def test_one_video_is_divided_in_time_with_a_gap():
    images = make_images({"a": 100}, group="film")
    notes = divide_images(images, 0.2, 0, None, seed=0)
    parts = {split: [image.name for image in images if image.split == split] for split in ("train", "val")}
    assert parts["train"] == [f"a/a_{index}.png" for index in range(75)]
    assert parts["val"] == [f"a/a_{index}.png" for index in range(80, 100)]
    assert len(images) == 95
    assert notes == [
        "1 video is divided in time, and 5 images between the parts are left out: "
        "a whole video of its own would make a better test."
    ]


def test_each_of_too_few_videos_is_divided_in_time():
    images = make_images({"a": 40}, group="one") + make_images({"b": 20}, group="other")
    divide_images(images, 0.25, 0.1, None, seed=0)
    assert count(images) == {"train": 33, "val": 15, "test": 6}
    assert {(image.group, image.split) for image in images} == {
        (group, split) for group in ("one", "other") for split in ("train", "val", "test")
    }


def test_a_video_too_short_to_be_divided_is_refused():
    with pytest.raises(ValueError, match="film: 2 images are too few to divide into train, val and test in time"):
        divide_images(make_images({"a": 2}, group="film"), 0.2, 0.2, None, seed=0)


def test_a_part_far_from_its_wish_is_told():
    images = make_images({"a": 55}, group="one") + make_images({"b": 50}, group="other")
    (note,) = divide_images(images, 0.2, 0, None, seed=0)
    assert note.startswith("val has 48% of the images instead of 20%")
    assert "--group_by=time" in note
    notes = divide_images(images, 0.2, 0, "time", seed=0)
    assert count(images) == {"train": 78, "val": 21}
    assert len(notes) == 1


def test_images_whose_names_differ_in_a_running_number_stay_together_if_the_source_has_no_groups():
    images = [
        LabelledImage(f"{mouse}_{index:03}.png", (1, 1), Path("x")) for mouse in "abcdefghij" for index in range(4)
    ]
    divide_images(images, 0.2, 0.1, None, seed=0)
    assert count(images) == {"train": 28, "val": 8, "test": 4}
    assert len({(image.name[0], image.split) for image in images}) == 10


def test_the_frames_of_a_single_video_are_divided_in_time_if_their_names_show_it():
    images = make_images({"a": 100})
    (note,) = divide_images(images, 0.2, 0, None, seed=0)
    assert [image.name for image in images if image.split == "val"] == [f"a/a_{index}.png" for index in range(80, 100)]
    assert count(images) == {"train": 75, "val": 20}
    assert "divided in time" in note


def test_an_odd_file_among_the_frames_of_a_video_is_trained_on():
    images = [*make_images({"a": 30}), LabelledImage("empty.png", (1, 1), Path("x"))]
    divide_images(images, 0.2, 0, None, seed=0)
    assert [image.split for image in images if image.name == "empty.png"] == ["train"]
    assert count(images)["val"] == 6


def test_views_of_one_moment_are_in_one_part():
    names = [f"cam{camera}_{index:04}.png" for camera in (1, 2) for index in range(15)]
    images = [LabelledImage(name, (1, 1), Path("x")) for name in names]
    divide_images(images, 0.2, 0, None, seed=0)
    assert count(images) == {"train": 22, "val": 6}
    assert {image.name[5:] for image in images if image.split == "val"} == {f"{index:04}.png" for index in (12, 13, 14)}
