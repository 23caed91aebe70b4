import gzip
import json
import re

import numpy as np
import pytest

from keypoint_detection.data.coco_keypoints import examine_coco, read_coco
from keypoint_detection.types import DataError


def annotation(keypoints, **more):
    return {"id": 5, "image_id": 1, "category_id": 1, "keypoints": keypoints} | more


def test_labelled_points_are_read_and_unlabelled_ones_left_out(write_coco):
    path = write_coco(annotations=[annotation([1.25, 2, 2, 0, 0, 0], bbox=[0, 0, 4, 9], area=20)])
    table = read_coco(path, coordinates="continuous")
    assert table.truths.points.tolist() == [[1.25, 2]]
    assert table.truths.visibility.tolist() == [2]
    assert table.types.tolist() == [0]
    assert table.truths.box_sizes.tolist() == [9]
    assert table.truths.areas.tolist() == [20]


def test_missing_boxes_and_areas_are_nan(write_coco):
    table = read_coco(write_coco(), coordinates="continuous")
    assert len(table.truths.points) == 2
    assert np.isnan(table.truths.box_sizes).all()
    assert np.isnan(table.truths.areas).all()


def test_pixel_indices_move_to_the_centres_of_their_pixels(write_coco):
    path = write_coco()
    assert read_coco(path, coordinates="continuous").truths.points.tolist() == [[1, 2], [3, 4]]
    assert read_coco(path, coordinates="pixel_index").truths.points.tolist() == [[1.5, 2.5], [3.5, 4.5]]


def test_equal_names_of_several_categories_are_told_apart(write_coco):
    path = write_coco(
        categories=[
            {"id": 1, "name": "cat", "keypoints": ["nose", "tail"]},
            {"id": 2, "name": "dog", "keypoints": ["tail", "nose", "ear"]},
            {"id": 3, "name": "ball"},
        ],
        annotations=[
            annotation([1, 1, 2, 2, 2, 2]),
            annotation([3, 3, 2, 4, 4, 2, 5, 5, 2], category_id=2),
            {"id": 9, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]},
        ],
    )
    table = read_coco(path, coordinates="continuous")
    assert tuple(map(str, table.keypoint_types)) == ("cat/nose", "cat/tail", "dog/tail", "dog/nose", "ear")
    assert table.types.tolist() == [0, 1, 2, 3, 4]
    assert table.truths.instances.tolist() == [0, 0, 1, 1, 1]


def test_unnamed_keypoints_get_names_from_their_category(write_coco):
    path = write_coco(categories=[{"id": 1, "name": "face", "keypoints": []}])
    assert tuple(map(str, read_coco(path, coordinates="continuous").keypoint_types)) == ("face_0", "face_1")


def test_images_without_annotations_are_kept(write_coco):
    table = read_coco(write_coco(annotations=[]), coordinates="continuous")
    assert table.image_ids.tolist() == [1]
    assert table.offsets.tolist() == [0, 0]


def test_rows_follow_the_order_of_the_images(write_coco):
    images = [{"id": 7, "file_name": "one.png"}, {"id": 3, "file_name": "one.png"}]
    path = write_coco(
        images=images,
        annotations=[annotation([1, 1, 2, 2, 2, 2], image_id=3), annotation([5, 5, 2, 6, 6, 2], image_id=7)],
    )
    table = read_coco(path, coordinates="continuous")
    assert table.image_ids.tolist() == [7, 3]
    assert table.offsets.tolist() == [0, 2, 4]
    assert table.truths.points[:, 0].tolist() == [5, 6, 1, 2]


def test_all_problems_are_listed_together(write_coco):
    path = write_coco(
        images=[
            {"id": 1, "file_name": "one.png"},
            {"id": 1, "file_name": "one.png"},
            {"id": 2, "file_name": "gone.png"},
            {"id": "x", "file_name": "one.png"},
        ],
        annotations=[
            annotation([1, 2, 2]),
            annotation([1, 2, 3, 0, 0, 0]),
            annotation([1, 2, 2, float("nan"), 0, 2]),
            annotation(["a", 2, 2, 0, 0, 2]),
            annotation([1, 2, 2, 0, 0, 0], image_id=99),
            annotation([1, 2, 2, 0, 0, 0], category_id=99),
        ],
    )
    with pytest.raises(DataError) as caught:
        read_coco(path, coordinates="continuous")
    message = str(caught.value)
    assert "9 problems" in message
    for part in (
        "the image id 1 is used more than once",
        "1 of 4 image files is missing below",
        "e.g. 'gone.png'",
        "has the id 'x'",
        "has 3 keypoint values; category 'mouse' has 2 keypoints, so 6 are expected",
        "has the visibility 3; 0, 1 or 2 is expected",
        "labelled point (nan, 0)",
        "not a flat list of numbers",
        "has image 99, which is not in 'images'",
        "has category 99, which is not in 'categories'",
    ):
        assert part in message


def test_many_problems_of_a_kind_are_counted_not_listed(write_coco):
    path = write_coco(annotations=[annotation([1, 2, 2], id=number) for number in range(50)])
    with pytest.raises(DataError, match="50 problems") as caught:
        read_coco(path, coordinates="continuous")
    assert "47 more like these" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[1, 2]", "contains a list; .* give the ground-truth file"),
        ("{", "not valid JSON"),
        ('{"images": [], "annotations": []}', "'categories' is missing"),
        ('{"images": [], "annotations": [], "categories": []}', "'images' is empty"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": [{"id": 1, "name": "b"}]}',
            "no category has 'keypoints'",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, text):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(DataError, match=text):
        read_coco(path, coordinates="continuous")


def test_a_missing_file_says_where_paths_start(tmp_path):
    with pytest.raises(DataError, match=re.escape("no such file")):
        read_coco(tmp_path / "none.json", coordinates="continuous")


def test_image_root_replaces_the_folder_of_the_file(write_coco, tmp_path):
    path = write_coco()
    moved = tmp_path / "elsewhere" / "data.json"
    moved.parent.mkdir()
    moved.write_text(path.read_text())
    with pytest.raises(DataError, match=r"data\.image_root"):
        read_coco(moved, coordinates="continuous")
    assert read_coco(moved, image_root=tmp_path, coordinates="continuous").image_paths[0].decode() == str(
        tmp_path / "one.png"
    )


def test_pycocotools_reads_the_same_points(discs):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    table, reference = read_coco(discs, coordinates="continuous"), COCO(str(discs))
    assert len(table.image_ids) == 12
    for index, image_id in enumerate(table.image_ids):
        expected = [
            [x, y]
            for one in reference.loadAnns(reference.getAnnIds([image_id]))
            for x, y in np.reshape(one["keypoints"], (-1, 3))[:, :2]
        ]
        found = table.truths.points[table.offsets[index] : table.offsets[index + 1]]
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 2)), atol=1e-5)


def test_a_byte_order_mark_does_no_harm(write_coco):
    path = write_coco()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(path, coordinates="continuous").truths.points) == 2
    assert json.loads(path.read_text(encoding="utf-8-sig"))


@pytest.mark.parametrize(
    ("replaced", "text"),
    [
        ({"categories": [{"id": [1], "name": "mouse", "keypoints": ["nose"]}]}, r"the id \[1\]"),
        ({"annotations": [annotation([1, 2, 2, 3, 4, 2], category_id=[1])]}, r"has category \[1\]"),
        ({"annotations": [annotation([1, 2, 2, 3, 4, 2], category_id={"a": 1})]}, r"has category \{'a': 1\}"),
        ({"annotations": [annotation([1, 2, 2, 3, 4, 2], image_id=[1])]}, r"has image \[1\]"),
        ({"images": [{"id": [1], "file_name": "one.png"}]}, r"has the id \[1\]"),
        ({"images": [{"id": "1", "file_name": "one.png"}]}, r"has the id '1' \(a string\)"),
        ({"images": [{"id": 2**63, "file_name": "one.png"}], "annotations": []}, "takes more than 64 bits"),
        ({"annotations": [annotation([10**400, 2, 2, 3, 4, 2])]}, "pixel coordinates are expected"),
        ({"annotations": [annotation([1, -(10**12), 2, 3, 4, 2])]}, "pixel coordinates are expected"),
    ],
)
def test_odd_values_are_problems_of_the_file(write_coco, replaced, text):
    with pytest.raises(DataError, match=text):
        read_coco(write_coco(**replaced), coordinates="continuous")


def test_odd_boxes_and_sizes_count_as_absent(write_coco):
    path = write_coco(
        images=[{"id": 1, "file_name": "one.png", "width": 10**400, "height": "8"}],
        annotations=[annotation([1, 2, 2, 3, 4, 2], bbox=[0, 0, 10**400, 1], area=10**400)],
    )
    table = read_coco(path, coordinates="continuous")
    assert table.image_sizes.tolist() == [[0, 0]]
    assert np.isnan(table.truths.box_sizes).all()
    assert np.isnan(table.truths.areas).all()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (gzip.compress(b"{}", mtime=0), "is compressed by gzip"),
        ("{}".encode("utf-16"), "is text in UTF-16"),
        (b"PK\3\4", "ZIP"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, raw, text):
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(DataError, match=text):
        read_coco(tmp_path / "a.json", coordinates="continuous")


PETS = {
    "categories": [
        {"id": 1, "name": "cat", "keypoints": ["nose", "tail"]},
        {"id": 2, "name": "dog", "keypoints": ["nose", "ear"]},
        {"id": 3, "name": "ball"},
    ],
    "annotations": [annotation([1, 1, 2, 2, 2, 2]), annotation([3, 3, 2, 4, 4, 2], category_id=2)],
}


def test_only_picked_categories_count(write_coco):
    path = write_coco(**PETS)
    assert len(read_coco(path, coordinates="continuous").truths.points) == 4
    table = read_coco(path, picked=["dog"], coordinates="continuous")
    assert table.truths.points.tolist() == [[3, 3], [4, 4]]
    assert tuple(map(str, table.keypoint_types)) == ("dog/nose", "ear")


def test_picked_categories_that_the_file_lacks_are_named_with_those_that_it_has(write_coco):
    path = write_coco(**PETS)
    with pytest.raises(
        DataError, match=r"data\.categories names 'dogs'; the categories with keypoints are 'cat', 'dog'"
    ):
        read_coco(path, picked=["dogs"], coordinates="continuous")
    with pytest.raises(DataError, match=r"data\.categories is empty; choose from 'cat', 'dog'"):
        read_coco(path, picked=[], coordinates="continuous")


def test_what_is_wrong_with_a_file_leaves_the_rest_readable(write_coco):
    wrong = [annotation([1, 1, 2]), annotation([1, 1, 2, 2, 2, 2])]
    table, problems, *_ = examine_coco(write_coco(annotations=wrong), None, "continuous", None, "error", "error")
    assert {kind: len(messages) for kind, messages in problems.by_kind.items()} == {"length": 1}
    assert table.truths.points.tolist() == [[1, 1], [2, 2]]
