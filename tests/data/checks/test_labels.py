"""Checks of objects: how many images have several, and what is hard to tell apart."""

import numpy as np
import pytest

from keypoint_detection.data.checks.labels import check_objects
from keypoint_detection.data.checks.parts import Requirements, make_part
from keypoint_detection.data.coco_keypoints import read_coco

CHANNELS = {"nose": ["nose"], "tail": ["tail"], "ear": ["ear"]}
CATEGORIES = [
    {"id": 1, "name": "mouse", "keypoints": ["nose", "tail", "ear"]},
    {"id": 2, "name": "ball", "keypoints": ["middle"]},
]


def find(write_coco, *annotations):
    entries = [
        {"id": n, "image_id": 1, "category_id": category, "keypoints": keypoints}
        for n, (category, keypoints) in enumerate(annotations)
    ]
    table = read_coco(write_coco(annotations=entries, categories=CATEGORIES), coordinates="continuous")
    part = make_part("train", table, np.array([[800, 1000]]), {**CHANNELS, "ball": ["middle"]}, False)
    # A tenth of the size: 8 px of the input are 80 px of the image.
    return {one.kind: one for one in check_objects(part, Requirements((80, 100), "letterbox", False, None, 2.0))}


WHOLE = (1, [100, 100, 2, 300, 300, 2, 0, 0, 0])


def test_one_object_an_image_is_nothing_to_speak_of(write_coco):
    assert find(write_coco, WHOLE) == {}


@pytest.mark.parametrize(("shift", "share"), [(70, "100%"), (90, "0%")])
def test_close_centres_are_counted_in_pixels_of_the_input(write_coco, shift, share):
    other = (1, [100 + shift, 100, 2, 300 + shift, 300, 2, 0, 0, 0])
    found = find(write_coco, WHOLE, other)
    assert list(found) == ["several_objects"]
    assert found["several_objects"].count == 1
    assert f"The centres of {share} of all objects are less than 8 px" in found["several_objects"].summary


def test_parts_of_one_object_in_two_annotations_are_named(write_coco):
    found = find(write_coco, WHOLE, (1, [0, 0, 0, 0, 0, 0, 200, 150, 2]))
    assert found["split_objects"].level == "warning"
    assert "image 1 (" in found["split_objects"].examples[0]


@pytest.mark.parametrize(
    "other",
    [
        (1, [0, 0, 0, 0, 0, 0, 400, 150, 2]),  # outside
        (1, [200, 200, 2, 0, 0, 0, 200, 150, 2]),  # a nose of its own
        (2, [200, 150, 2]),  # something else
    ],
    ids=["outside", "common type", "other category"],
)
def test_objects_of_their_own_are_not_parts(write_coco, other):
    assert "split_objects" not in find(write_coco, WHOLE, other)
