import copy
import json
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keypoint_detection.data import coco_annotations, coco_keypoints
from keypoint_detection.data.coco_file import NotPlainJson
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.types import DataError

ODD = [None, True, False, 0, 1, 2, 3, -1, 1.5, 2.0, "x", "", "a.png", "./a.png", [], {}, [1], 2**63, 10**400]
ODD += [float("nan"), float("inf"), 1e300, -1e9]


def read_one_by_one(path):
    """With Python's own parser, and a close look at every annotation."""
    with (
        mock.patch.object(coco_keypoints, "load_quickly", side_effect=NotPlainJson),
        mock.patch.object(coco_annotations, "_read_together", return_value=None),
    ):
        return read_coco(path, coordinates="continuous")


def outcome(read, path):
    """All columns as bytes, or all problems."""
    try:
        table = read(path)
    except DataError as error:
        return str(error)
    columns = (*table._replace(truths=None), *table.truths)
    return [(one.dtype, one.shape, one.tobytes()) if isinstance(one, np.ndarray) else one for one in columns]


def slots(node):
    """Every place of a nested value that can hold another value."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield node, key
        yield from slots(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "a.png").touch()
    return folder


@st.composite
def files(draw):
    """COCO files of two categories, some of whose values are odd, missing or repeated."""
    numbers = st.one_of(st.integers(0, 99), st.floats(0, 99))
    triples = st.tuples(numbers, numbers, st.sampled_from([0, 1, 2, 2.0]))
    annotations = [
        {
            "id": index,
            "image_id": draw(st.integers(0, 2)),
            "category_id": draw(st.sampled_from([1, 1, 1, 2])),
            "keypoints": [value for _ in range(2) for value in draw(triples)],
            "bbox": [1, 2, draw(numbers), 4.5],
            "area": draw(numbers),
            "segmentation": [[1, 2, 3.5, 4]],
        }
        for index in range(draw(st.integers(0, 4)))
    ]
    images = [{"id": index, "file_name": "a.png", "height": 8, "width": 9} for index in range(3)]
    categories = [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"]}, {"id": 2, "name": "wheel"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for _ in range(draw(st.integers(0, 3))):
        places = list(slots(content))
        node, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.booleans()):
            node[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif draw(st.booleans()):
            del node[key]
        elif isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
    return content


@settings(max_examples=100, deadline=None)
@given(content=files())
def test_reading_together_and_one_by_one_gives_the_same_arrays_and_the_same_words(folder, content):
    path = Path(folder / "data.json")
    path.write_text(json.dumps(content))
    together = outcome(partial(read_coco, coordinates="continuous"), path)
    assert together == outcome(read_one_by_one, path)


def test_annotations_of_several_parts_are_joined_by_image(write_coco, monkeypatch):
    monkeypatch.setattr(coco_annotations, "N_TOGETHER", 3)
    images = [{"id": identifier, "file_name": "one.png"} for identifier in (5, 2, 9)]
    owners = [9, 5, 5, 9, 5, 9, 9]
    annotations = [
        {"image_id": owner, "category_id": 1, "keypoints": [number, 1, 2, number, 2, number % 2], "area": number + 1}
        for number, owner in enumerate(owners)
    ]
    table = read_coco(write_coco(images=images, annotations=annotations), coordinates="continuous")
    assert table.offsets.tolist() == [0, 4, 4, 10]
    assert table.truths.points[:, 0].tolist() == [1, 1, 2, 4, 0, 3, 3, 5, 5, 6]
    assert table.types.tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 1, 0]
    assert table.truths.visibility.tolist() == [2, 1, 2, 2, 2, 2, 1, 2, 1, 2]
    assert table.truths.instances.tolist() == [0, 0, 1, 2, 0, 1, 1, 2, 2, 3]
    assert table.truths.areas.tolist() == [2, 2, 3, 5, 1, 4, 4, 6, 6, 7]


def test_problems_are_listed_in_the_order_of_the_file(write_coco):
    annotations = [
        {"image_id": 1, "category_id": 1, "keypoints": [1]},
        {"image_id": 1, "category_id": 7, "keypoints": [1]},
        {"image_id": 7, "category_id": 1, "keypoints": [1]},
        {"image_id": 1, "category_id": 1, "keypoints": "?"},
    ]
    with pytest.raises(DataError, match="4 problems") as caught:
        read_coco(write_coco(annotations=annotations), coordinates="continuous")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0][: len("  - annotation number 0")] for line in lines] == [
        f"  - annotation number {number}" for number in range(4)
    ]


def test_a_plain_file_is_read_once_and_not_again_with_the_slow_parser(discs):
    with mock.patch.object(coco_keypoints, "load_leniently") as lenient:
        assert len(read_coco(discs, coordinates="continuous").truths.points) == 33
    assert not lenient.called
