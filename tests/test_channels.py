import pytest

from keypoint_detection.channels import KeypointType, mirror_channels, resolve_channels
from keypoint_detection.types import DataError


def types(*names):
    return [KeypointType("mouse", name, is_unique=True) for name in names]


def test_channels_that_are_left_out_become_one_a_type():
    assert resolve_channels(None, types("a", "b"), "f.json") == {"a": ["a"], "b": ["b"]}


def test_a_type_may_stand_in_several_channels():
    mapping = {"ears": ["left", "right"], "left": ["left"]}
    assert resolve_channels(mapping, types("left", "right"), "f.json") == mapping


def test_an_unknown_type_is_answered_with_those_of_the_file():
    with pytest.raises(DataError, match=r"channel 'ear' names 'lefft'.*keypoint types are: left, right"):
        resolve_channels({"ear": ["lefft", "right"]}, types("left", "right"), "f.json")


def test_equal_names_of_several_categories_share_a_channel_or_are_told_apart():
    both = [KeypointType("person", "nose"), KeypointType("dog", "nose"), KeypointType("dog", "tail", is_unique=True)]
    assert resolve_channels(None, both, "f.json") == {"nose": ["nose"], "tail": ["tail"]}
    mapping = {"human": ["person/nose"], "animal": ["dog/nose", "tail"]}
    assert resolve_channels(mapping, both, "f.json") == mapping
    with pytest.raises(DataError, match=r"'cat/nose'.*types are: person/nose, dog/nose, tail"):
        resolve_channels(["cat/nose"], both, "f.json")


def test_a_type_answers_to_its_category_even_where_its_name_is_enough():
    (left,) = types("left")
    assert str(left) == "left"
    assert resolve_channels(["mouse/left"], [left], "f.json") == {"mouse/left": ["mouse/left"]}
    with pytest.raises(DataError, match="'dog/left'"):
        resolve_channels(["dog/left"], [left], "f.json")


@pytest.mark.parametrize(
    ("channels", "pairs", "expected"),
    [
        ({"l": ["left"], "n": ["nose"], "r": ["right"]}, [("left", "right")], [2, 1, 0]),
        ({"ear": ["left", "right"], "n": ["nose"]}, [("left", "right")], [0, 1]),
        ({"l": ["left"], "r": ["right"]}, [], [0, 1]),
        ({"a": ["left"], "b": ["left"], "c": ["right"], "d": ["right"]}, [("right", "left")], [2, 3, 0, 1]),
        ({"l": ["cat/left"], "r": ["cat/right"]}, [("left", "right")], [1, 0]),
        ({"l": ["left"], "r": ["right"]}, [("cat/left", "cat/right")], [1, 0]),
        ({"l": ["l1", "l2"], "r": ["r2", "r1"]}, [["l1", "r1"], ["l2", "r2"]], [1, 0]),
    ],
)
def test_channels_change_places_in_a_mirror_with_the_types_they_collect(channels, pairs, expected):
    assert mirror_channels(channels, pairs) == expected


@pytest.mark.parametrize(
    ("channels", "pairs", "message"),
    [
        ({"l": ["left"], "n": ["nose"]}, [("left", "right")], "channel 'l' becomes right when mirrored"),
        ({"l": ["left"], "n": ["nose"]}, None, "train with data.flip_pairs"),
    ],
)
def test_a_mirror_that_cannot_be_followed_is_refused(channels, pairs, message):
    with pytest.raises(DataError, match=message):
        mirror_channels(channels, pairs)
