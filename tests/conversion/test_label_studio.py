import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keypoint_detection.conversion.writing import write_labels
from keypoint_detection.types import DataError

FRAME = {"to_name": "image", "original_width": 80, "original_height": 40, "image_rotation": 0}


def point(key: str, label: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    """Make a region as an export has it; coordinates are percent."""
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {"id": key, "from_name": "kp", "type": "keypointlabels", "origin": "manual", "value": value, **FRAME, **more}


def box(key: str, label: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {"id": key, "from_name": "box", "type": "rectanglelabels", "value": value, **FRAME}


def task(number: int, image: str, *result: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"id": 10 + number, "result": list(result), "was_cancelled": False, "ground_truth": False, **more}
    return {"id": number, "annotations": [annotation], "data": {"image": image}, "project": 1}


@pytest.fixture
def export(tmp_path: Path, draw: Callable[..., Path]) -> Callable[..., Path]:
    def write(*tasks: dict[str, Any]) -> Path:
        draw("images/my frame.png")
        draw("images/1.png")
        path = tmp_path / "project-1.json"
        path.write_text(json.dumps(tasks))
        return path

    return write


MICE = [
    box("A", "mouse", 10, 10, 30, 50),
    box("B", "mouse", 50, 10, 30, 50),
    point("a1", "nose", 12.5, 25, parentID="A"),
    point("b1", "nose", 60, 50, parentID="B"),
    point("a2", "tail", 75, 50, parentID="A"),
]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/0a1b2c3d-my%20frame.png",
        "/data/local-files/?d=images/my%20frame.png",
        "https://example.org/bucket/images/my%20frame.png?token=x",
        "s3://bucket/images/my%20frame.png",
        "images/my frame.png",
    ],
)
def test_images_are_found_by_every_kind_of_address(export, read, address, tmp_path):
    labels = read(export(task(1, address, *MICE)), image_root=tmp_path / "images")
    assert [image.path for image in labels.images] == [tmp_path / "images" / "my frame.png"]


@pytest.mark.parametrize("name", ["a#1.png", "50% a.png", "a%20b.png", "a+b.png", "a&b=c.png", "a?b.png"])
@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=images/{}",
        "/data/local-files/?d=images/{quoted}",
        "s3://bucket/images/{}",
        "s3://bucket/images/{quoted}",
        "images/{}",
        "/data/upload/1/0a1b2c3d-{quoted}",
    ],
)
def test_names_with_marks_of_addresses_are_found(export, read, draw, name, address, tmp_path):
    path = draw(f"images/{name}")
    labels = read(export(task(1, address.format(name, quoted=quote(name)), *MICE)), image_root=tmp_path / "images")
    assert [image.path for image in labels.images] == [path]


def test_names_with_marks_of_addresses_survive_a_round_trip(mice, read, tmp_path):
    content = mice.read_text()
    for number, name in enumerate(["a#1.png", "50% a.png", "a%20b.png"]):
        old = ["images/a/0.png", "images/b/0.png", "images/b/1.png"][number]
        (mice.parent / old).rename(mice.parent / "images" / name)
        content = content.replace(old, f"images/{name}")
    mice.write_text(content)
    before = read(mice)
    write_labels(read(mice), tmp_path / "out", "label_studio", "copy")
    after = read(tmp_path / "out" / "tasks.json")
    assert [image.path.name for image in after.images] == ["a#1.png", "50% a.png", "a%20b.png"]
    assert [len(image.instances) for image in after.images] == [len(image.instances) for image in before.images]


def test_percents_become_pixels_and_rectangles_instances(export, read):
    labels = read(export(task(1, "images/1.png", *MICE)))
    assert [(one.name, one.keypoints) for one in labels.categories] == [("mouse", ["nose", "tail"])]
    one, other = labels.images[0].instances
    assert one.points.tolist() == [[10.0, 10.0], [60.0, 20.0]]  # of 80 x 40
    assert one.box == (8.0, 4.0, 24.0, 20.0)
    assert other.points.tolist() == [[48.0, 20.0], [0.0, 0.0]]
    assert other.visibility.tolist() == [2, 0]


def test_points_without_a_parent_are_of_their_relation_or_the_only_rectangle_around(export, read):
    result = [*MICE[:2], point("p", "nose", 60, 20), point("q", "tail", 70, 20)]
    relation = {"from_id": "q", "to_id": "A", "type": "relation", "direction": "right"}
    labels = read(export(task(1, "images/1.png", *result, relation)))
    assert labels.categories[0].keypoints == ["tail", "nose"]
    one, other = labels.images[0].instances
    assert one.points.tolist() == [[56.0, 8.0], [0.0, 0.0]]
    assert other.points.tolist() == [[0.0, 0.0], [48.0, 8.0]]


def test_without_rectangles_the_nth_point_of_a_label_is_of_the_nth_object(export, read):
    result = [point("1", "nose", 10, 10), point("2", "nose", 20, 20), point("3", "tail", 30, 30)]
    labels = read(export(task(1, "images/1.png", *result)))
    assert labels.categories[0].name == "object"
    assert [one.visibility.tolist() for one in labels.images[0].instances] == [[2, 2], [2, 0]]


@pytest.mark.parametrize(
    "mark",
    [
        {"id": "b1", "from_name": "state", "type": "choices", "value": {"choices": ["Occluded"]}, **FRAME},
        {"id": "b1", "from_name": "state", "type": "choices", "value": {"choices": ["partly", "not visible"]}},
    ],
)
def test_a_choice_of_a_region_says_that_a_point_is_occluded(export, read, mark):
    labels = read(export(task(1, "images/1.png", *MICE, mark)))
    assert [one.visibility.tolist() for one in labels.images[0].instances] == [[2, 2], [1, 0]]


def test_a_text_of_a_region_says_that_a_point_is_occluded(export, read):
    result = [*MICE[:4], point("a2", "tail", 75, 50, parentID="A", meta={"text": ["hidden by the lamp"]})]
    assert read(export(task(1, "images/1.png", *result))).images[0].instances[0].visibility.tolist() == [2, 1]


def test_the_labelling_config_gives_order_and_types_that_nobody_drew(export, read, tmp_path):
    source = export(task(1, "images/1.png", *MICE))
    labels = "".join(f'<Label value="{name}"/>' for name in ("ear", "tail", "nose"))
    (tmp_path / "label_config.xml").write_text(f"<View><KeyPointLabels name='kp'>{labels}</KeyPointLabels></View>")
    assert read(source).categories[0].keypoints == ["ear", "tail", "nose"]
    assert read(source, keypoints=["nose", "tail"]).categories[0].keypoints == ["nose", "tail"]


def test_skipped_and_unlabelled_tasks_are_left_out_and_empty_ones_kept(export, read):
    skipped = task(2, "images/1.png", *MICE, was_cancelled=True)
    unlabelled = {"id": 3, "annotations": [], "data": {"image": "images/1.png"}, "predictions": [{"result": MICE}]}
    labels = read(export(task(1, "images/my frame.png", *MICE), skipped, unlabelled, task(4, "images/1.png")))
    assert [(one.name, len(one.instances)) for one in labels.images] == [
        ("images/my frame.png", 2),
        ("images/1.png", 0),
    ]
    assert labels.notes == ["Left out: 2 tasks not labelled or skipped."]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"id": 1, "image": "images/1.png", "kp": []}], "Is this JSON-MIN"),
        ([task(1, "images/7.png", *MICE)], "the only image is missing in .*: 'images/7.png'"),
        ([task(1, "images/1.png", point("a", "nose", 1, 1) | {"value": {"x": None, "y": 3}})], "x is None and y is 3"),
        ([task(1, "images/1.png", point("a", "nose", 1, 1) | {"image_rotation": 90})], "was rotated in Label Studio"),
        ([{**task(1, ""), "data": {"text": "hello"}}], "'data' names no image"),
        ([task(1, "images/1.png", was_cancelled=True)], "no task is labelled"),
        ([{**task(1, "images/1.png"), "annotations": 5}], "task 1 is not laid out as in a Label Studio export"),
        (
            [task(1, "images/1.png", {"type": "keypointlabels", "value": 5})],
            "task 1 is not laid out as in a Label Studio export",
        ),
    ],
)
def test_what_is_wrong_with_an_export_is_named(export, read, tasks, message):
    source = export(*tasks)
    with pytest.raises(ValueError, match=message):
        read(source)


def test_regions_are_on_the_image_that_they_name(draw, read, tmp_path):
    paths = [draw("left.png"), draw("right.png")]
    regions = [point("a", "nose", 25, 50, to_name="left"), point("b", "nose", 75, 50, to_name="right")]
    content = {**task(1, "", *regions), "data": {"left": "left.png", "right": "right.png"}}
    (tmp_path / "e.json").write_text(json.dumps([content]))
    found = [(image.path, image.instances[0].points.tolist()) for image in read(tmp_path / "e.json").images]
    assert found == [(paths[0], [[20.0, 20.0]]), (paths[1], [[60.0, 20.0]])]


def test_the_labelling_config_says_which_image_a_tag_shows(draw, read, tmp_path):
    paths = [draw("left.png"), draw("right.png")]
    regions = [point("a", "nose", 25, 50, to_name="img2")]
    content = {**task(1, "", *regions), "data": {"left": "left.png", "right": "right.png"}}
    (tmp_path / "e.json").write_text(json.dumps([content]))
    with pytest.raises(ValueError, match=r"left, right, and it is unknown which of them img2 shows: save the labell"):
        read(tmp_path / "e.json")
    config = '<View><Image name="img1" value="$left"/><Image name="img2" value="$right"/></View>'
    (tmp_path / "label_config.xml").write_text(config)
    found = {image.path: len(image.instances) for image in read(tmp_path / "e.json").images}
    assert found == {paths[1]: 1, paths[0]: 0}


def test_regions_are_on_their_page(draw, read, tmp_path):
    paths = [draw("1.png"), draw("2.png"), draw("3.png")]
    regions = [
        point("a", "nose", 25, 50, item_index=0),
        point("b", "nose", 75, 50, item_index=2),
        {"id": "b", "type": "choices", "to_name": "image", "item_index": 2, "value": {"choices": ["occluded"]}},
    ]
    content = task(1, ["1.png", "2.png", "3.png"], *regions)
    (tmp_path / "e.json").write_text(json.dumps([content]))
    images = read(tmp_path / "e.json").images
    assert [image.path for image in images] == paths
    assert [[one.points.tolist() for one in image.instances] for image in images] == [
        [[[20.0, 20.0]]],
        [],
        [[[60.0, 20.0]]],
    ]
    assert images[2].instances[0].visibility.tolist() == [1]
    content["annotations"][0]["result"][1]["item_index"] = 3
    (tmp_path / "e.json").write_text(json.dumps([content]))
    with pytest.raises(ValueError, match="has 3 pages; a region is on page 3, counted from 0"):
        read(tmp_path / "e.json")


@pytest.mark.parametrize("key", ["image", "img"])
@pytest.mark.parametrize("uri", ["czM6Ly9idWNrZXQvZnJhbWVzLzA0Ni5wbmc=", "czM6Ly9idWNrZXQvZnJhbWVzLzA0Ni5wbmc"])
@pytest.mark.parametrize("prefix", ["/tasks/7/presign/", "http://localhost:8080/projects/1/resolve/"])
def test_addresses_signed_for_a_cloud_storage_are_decoded(draw, read, tmp_path, key, uri, prefix):
    path = draw("frames/046.png")
    content = {**task(1, "", *MICE), "data": {key: f"{prefix}?fileuri={uri}"}}
    (tmp_path / "e.json").write_text(json.dumps([content]))
    for root in (None, tmp_path / "frames"):
        assert [image.path for image in read(tmp_path / "e.json", image_root=root).images] == [path]


def test_a_region_without_a_place_is_left_out_and_counted(export, read):
    ghost = point("g", "nose", 0, 0) | {"value": {"keypointlabels": ["nose"]}}
    labels = read(export(task(1, "images/1.png", point("a", "nose", 25, 50), ghost)))
    assert len(labels.images[0].instances) == 1
    assert "Left out: 1 region without a place in the image." in labels.notes


def without_key(region: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in region.items() if name != "id"}


@pytest.mark.parametrize("change", [without_key, lambda region: region | {"id": "same"}, lambda region: region])
def test_regions_without_a_key_or_with_the_same_are_all_kept(export, read, change):
    points = [point("1", "a", 10, 10), point("2", "a", 50, 10), point("3", "b", 20, 30)]
    labels = read(export(task(1, "images/1.png", *map(change, points))))
    found = [one.points.tolist() for one in labels.images[0].instances]
    assert found == [[[8.0, 4.0], [16.0, 12.0]], [[40.0, 4.0], [0.0, 0.0]]]


def test_rectangles_without_a_key_are_all_kept(export, read):
    regions = [without_key(region) for region in (*MICE[:2], point("1", "nose", 12.5, 25), point("2", "nose", 60, 50))]
    (image,) = read(export(task(1, "images/1.png", *regions))).images
    assert [one.box for one in image.instances] == [(8.0, 4.0, 24.0, 20.0), (40.0, 4.0, 24.0, 20.0)]
    assert [one.points.tolist() for one in image.instances] == [[[10.0, 10.0]], [[48.0, 20.0]]]


@pytest.mark.parametrize("is_apart", [True, False])
def test_a_point_with_two_labels_is_one_of_each_type(export, read, is_apart):
    region = point("1", "a", 10, 10)
    regions = [region]
    region["value"]["keypointlabels"] = [] if is_apart else ["a", "b"]
    if is_apart:
        regions.append({"id": "1", "type": "labels", "value": {"labels": ["a", "b"]}, **FRAME})
    labels = read(export(task(1, "images/1.png", *regions)))
    assert labels.categories[0].keypoints == ["a", "b"]
    assert [one.points.tolist() for one in labels.images[0].instances] == [[[8.0, 4.0], [8.0, 4.0]]]


@pytest.mark.parametrize("none", [[], [""], [None], None])
def test_a_point_without_a_label_is_left_out_and_counted(export, read, none):
    stray = point("2", "a", 50, 50)
    stray["value"]["keypointlabels"] = none
    labels = read(export(task(1, "images/1.png", point("1", "a", 10, 10), stray)))
    assert labels.categories[0].keypoints == ["a"]
    assert "Left out: 1 region without a label." in labels.notes


def test_a_rectangle_of_two_categories_is_refused(export, read):
    region = box("A", "mouse", 10, 10, 30, 50)
    region["value"]["rectanglelabels"] = ["mouse", "rat"]
    with pytest.raises(ValueError, match="region A: is a rectangle labelled mouse, rat; one label is expected"):
        read(export(task(1, "images/1.png", region, point("1", "a", 20, 20))))


@pytest.mark.parametrize("factor", [1, 4])
def test_an_image_labelled_on_its_side_is_refused(export, read, factor):
    # The image is 40 high and 80 wide.
    on_its_side = point("a", "nose", 10, 10, original_width=40 * factor, original_height=80 * factor)
    with pytest.raises(
        DataError,
        match=rf"task 1: the labels are for {80 * factor}x{40 * factor} .* is shown with 40x80\..*EXIF rotation",
    ):
        read(export(task(1, "images/1.png", on_its_side)))


@pytest.mark.parametrize(
    ("width", "height", "n_notes"),
    [(160, 80, 0), (1280, 641, 0), (60, 60, 1), (None, 40, 0), (0, 0, 0), ("80", "40", 0)],
)
def test_percents_fit_an_image_of_another_scale_but_not_of_another_shape(export, read, width, height, n_notes):
    labels = read(
        export(task(1, "images/1.png", point("a", "nose", 10, 10, original_width=width, original_height=height)))
    )
    assert labels.images[0].instances[0].points[0].tolist() == [8, 4]
    said = [note for note in labels.notes if note.startswith("1 image has another shape than when labelled")]
    assert len(said) == n_notes


def test_an_annotation_with_labels_is_preferred_to_an_empty_one(export, read):
    one = task(1, "images/1.png")
    one["annotations"] += task(2, "", point("a", "nose", 50, 50))["annotations"]
    labels = read(export(one))
    assert [len(image.instances) for image in labels.images] == [1]
    assert labels.notes == ["1 task has several annotations; the ground truth or the first with labels is read."]
