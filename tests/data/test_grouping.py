import pytest

from keypoint_detection.data.grouping import guess_group, name_groups, number_in_time
from keypoint_detection.types import DataError


def test_groups_are_folders_or_what_a_pattern_finds() -> None:
    files = ["day1/cam0/a_01.png", "day1/cam1/a_02.png", "day2/cam0/b_01.png"]
    assert name_groups(files, 1) == ["day1/cam0", "day1/cam1", "day2/cam0"]
    assert name_groups(files, 2) == ["day1", "day1", "day2"]
    assert name_groups(files, r"([ab])_\d") == ["a", "a", "b"]
    assert name_groups(files, "cam0|cam1") == ["cam0", "cam1", "cam0"]
    assert name_groups(files, r"(day\d).*(cam\d)") == ["day1/cam0", "day1/cam1", "day2/cam0"]
    assert name_groups(files, "image") == name_groups(files, None) == files
    assert name_groups(files, "names") == name_groups(files, "time") == ["day1/a*", "day1/a*", "day2/b*"]


@pytest.mark.parametrize(
    ("group_by", "text"),
    [
        (2, "2 of 3 file names have fewer than 2 folders, e.g. 'a.png'"),
        (r"x(\d)", r"1 of 3 file names do not match it, e.g. 'a.png'"),
        ("(", "is not a regular expression"),
    ],
)
def test_files_without_a_group_are_named(group_by: int | str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        name_groups(["a.png", "x1/b.png", "x2/y/c.png"], group_by)


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["images/img0002.jpg", "images/img0113.jpg", "images/IMG20231010083844.jpg"], "images/*"),
        (["clip1_001.png", "clip1_frame002.png", "clip1-frame-3.jpg"], "clip1*"),
        (["video_103_crop1_f2353.png", "video_103_crop22_f17.png", "Video_103_0004.png"], "video_103*"),
        (["2023-10-10_08-38-44.jpg", "2023-10-10 23:00:01.jpg"], "2023-10-10*"),
        (["IMG_20231010_083844.jpg", "IMG_20231010_233001.jpg"], "IMG_20231010*"),
        (["cam1_0001.png", "cam2_0001.png", "0007_left.png", "0007-right.png"], "*"),
        (["s1/cam0/0001.png", "s1/cam1/0001.png", "s1/top/0002.png"], "s1/*"),
        (["left_hand_01.png", "right_hand_02.png"], "hand*"),
        (["clip0001.png", "clip0200.png"], "clip*"),
        (["mouse1_002_png.rf.0a9bFF.png", "0a1b2c3d-mouse1_003.png", "mouse1_004.jpg"], "mouse1*"),
        (["1709253610.249.png", "1709253611.png"], "*"),
    ],
)
def test_frames_of_one_recording_have_one_group(names: list[str], group: str) -> None:
    assert [guess_group(name).casefold().lstrip("_-") for name in names] == [group.casefold()] * len(names)


@pytest.mark.parametrize(
    "names",
    [
        ["a/clip_001.png", "b/clip_001.png"],
        ["clip1_001.png", "clip11_001.png"],
        ["video_10_f3.png", "video_103_f3.png"],
        ["mouse1_1.png", "mouse2_1.png"],
        ["2023-10-10_08-38-44.jpg", "2023-10-11_08-38-44.jpg"],
        ["tom.png", "tim.png"],
        ["topple.png", "pple.png"],
    ],
)
def test_different_recordings_have_different_groups(names: list[str]) -> None:
    assert len({guess_group(name) for name in names}) == len(names)


def test_time_is_the_order_of_the_numbers_and_not_of_the_letters() -> None:
    assert number_in_time(["img10.png", "img9.png", "img1.png"]).tolist() == [2, 1, 0]


def test_views_of_one_moment_have_one_rank() -> None:
    names = ["cam1_9.png", "cam1_10.png", "cam2_9.png", "0010_left.png", "a/top/0009.png"]
    ranks = dict(zip(names, number_in_time(names).tolist(), strict=True))
    assert ranks["cam1_9.png"] == ranks["cam2_9.png"] < ranks["cam1_10.png"]
    exported = ["mouse1_002_png.rf.0a9b.png", "1a2b3c4d-mouse1_010.png", "mouse1_003_jpg.rf.77ffe.jpg"]
    assert number_in_time(exported).tolist() == [0, 2, 1]


@pytest.mark.parametrize("group_by", ["folder", 1])
def test_folder_is_a_word_for_the_first_level(group_by: int | str) -> None:
    assert name_groups(["a/1.png", "b/1.png"], group_by) == ["a", "b"]


def test_an_empty_expression_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.group_by is empty"):
        name_groups(["a.png"], "")
