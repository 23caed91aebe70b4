import pytest

from keypoint_detection.channels import resolve_channels
from keypoint_detection.types import DataError


def test_channels_that_are_left_out_become_one_a_type():
    assert resolve_channels(None, ["a", "b"], "f.json") == {"a": ["a"], "b": ["b"]}


def test_a_type_may_stand_in_several_channels():
    mapping = {"ears": ["left", "right"], "left": ["left"]}
    assert resolve_channels(mapping, ["left", "right"], "f.json") == mapping


def test_an_unknown_type_is_answered_with_those_of_the_file():
    with pytest.raises(DataError, match=r"channel 'ear' names 'lefft'.*keypoint types are: left, right"):
        resolve_channels({"ear": ["lefft", "right"]}, ["left", "right"], "f.json")
