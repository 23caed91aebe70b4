from collections.abc import Callable
from pathlib import Path

import pytest

from keypoint_detection.types import DataError

# After https://docs.ultralytics.com/datasets/pose/.
CONFIG = """\
path: /somewhere/else
train: images/train
val: images/val
test:
kpt_shape: [2, 3]
flip_idx: [0, 1]
names:
  0: mouse
  1: rat
kpt_names:
  0: [nose, tail]
  1: [nose, tail]
"""


@pytest.fixture
def data_set(tmp_path: Path, draw: Callable[..., Path]) -> Callable[..., Path]:
    def write(config: str = CONFIG, labels: str = "1 0.5 0.5 0.25 0.5 0.125 0.25 2 0.5 0.75 1\n") -> Path:
        for name in ("train/0.png", "train/1.png", "val/2.png"):
            draw(f"set/images/{name}")
        path = tmp_path / "set" / "labels" / "train" / "0.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(labels)
        other = tmp_path / "set" / "labels" / "val" / "2.txt"
        other.parent.mkdir(exist_ok=True)
        other.write_text(labels)
        (tmp_path / "set" / "data.yaml").write_text(config)
        return tmp_path / "set" / "data.yaml"

    return write


def test_shares_become_pixels_and_flags_stay(data_set, read):
    labels = read(data_set())
    assert [(one.name, one.keypoints) for one in labels.categories] == [
        ("mouse", ["nose", "tail"]),
        ("rat", ["nose", "tail"]),
    ]
    (instance,) = labels.images[0].instances
    assert instance.category == 1
    assert instance.points.tolist() == [[10.0, 10.0], [40.0, 30.0]]  # of 80 x 40
    assert instance.visibility.tolist() == [2, 1]
    assert instance.box == (30.0, 10.0, 20.0, 20.0)


def test_images_without_labels_are_negatives_of_their_part(data_set, read):
    labels = read(data_set().parent)
    assert [(one.name, one.split, len(one.instances)) for one in labels.images] == [
        ("images/train/0.png", "train", 1),
        ("images/train/1.png", "train", 0),
        ("images/val/2.png", "val", 1),
    ]


def test_without_flags_a_point_at_the_corner_is_not_labelled(data_set, read):
    labels = read(data_set(CONFIG.replace("[2, 3]", "[2, 2]"), "0 0.5 0.5 0.25 0.5 0.125 0.25 0 0\n"))
    (instance,) = labels.images[0].instances
    assert instance.visibility.tolist() == [2, 0]
    assert instance.points.tolist() == [[10.0, 10.0], [0.0, 0.0]]


def test_points_without_names_are_numbered_or_named_by_the_user(data_set, read):
    source = data_set(CONFIG.split("kpt_names")[0])
    assert read(source).categories[0].keypoints == ["point0", "point1"]
    assert read(source, keypoints=["nose", "tail"]).categories[0].keypoints == ["nose", "tail"]


def test_a_list_of_images_names_a_part(data_set, read, tmp_path):
    source = data_set(CONFIG.replace("train: images/train", "train: train.txt"))
    (tmp_path / "set" / "train.txt").write_text("./images/train/0.png\n\n")
    assert [len(one.instances) for one in read(source).images] == [1, 1]


@pytest.mark.parametrize("folder", ["../train/images", "train/images"])
def test_an_export_of_roboflow_is_found(draw, read, tmp_path, folder):
    draw("robo/train/images/0.png")
    labels = tmp_path / "robo" / "train" / "labels"
    labels.mkdir()
    (labels / "0.txt").write_text("0 0.5 0.5 0.25 0.5 0.125 0.25 2\n")
    (tmp_path / "robo" / "data.yaml").write_text(f"train: {folder}\nkpt_shape: [1, 3]\nnames: ['mouse']\nnc: 1\n")
    (image,) = read(tmp_path / "robo").images
    assert image.instances[0].points.tolist() == [[10.0, 10.0]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG.replace("kpt_shape: [2, 3]", ""), "kpt_shape is None"),
        (CONFIG.replace("[2, 3]", "[2, 4]"), r"kpt_shape is \[2, 4\]"),
        (CONFIG.replace("names:\n  0: mouse\n  1: rat", "nc: 2"), "names is None"),
        (CONFIG.replace("[nose, tail]", "[a, b, c]"), "3 keypoint names"),
        (CONFIG.split("kpt_names")[0] + "kpt_names: 7", "kpt_names is 7"),
        (CONFIG.replace("images/val", "images/validation"), "is neither a folder nor a list"),
        ("kpt_shape: [2", "this is not YAML"),
    ],
)
def test_what_is_wrong_with_the_config_is_named(data_set, read, config, message):
    source = data_set(config)
    with pytest.raises(ValueError, match=message):
        read(source)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("0 0.5 0.5 0.2 0.2\n", r"line 1 has 5 numbers; 11 are expected"),
        ("\n2 0.5 0.5 0.25 0.5 0.1 0.2 2 0.5 0.7 1\n", "line 2 has class 2; names has 2"),
        ("0 0.5 0.5 0.25 0.5 0.1 0.2 0.9 0.5 0.7 1\n", "a visibility that is not 0, 1 or 2"),
        ("0 0.5 0.5 0.25 0.5 a 0.2 2 0.5 0.7 1\n", "is not a row of numbers"),
        ("0 0.5 0.5 0.25 0.5 nan 0.2 2 0.5 0.7 1\n", "11 are expected"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(data_set, read, labels, message):
    source = data_set(labels=labels)
    with pytest.raises(ValueError, match=message):
        read(source)


def test_a_part_whose_labels_are_elsewhere_is_refused(data_set, read, tmp_path):
    source = data_set()
    label = tmp_path / "set" / "labels" / "val" / "2.txt"
    label.rename(tmp_path / "set" / "images" / "val" / "2.txt")
    with pytest.raises(ValueError, match=r"val: its only image does not have a label file, .*val/2.txt; there is"):
        read(source)


def test_a_part_whose_label_files_are_all_empty_is_refused(data_set, read, tmp_path):
    source = data_set()
    (tmp_path / "set" / "labels" / "val" / "2.txt").write_text("")
    with pytest.raises(ValueError, match="no keypoint is labelled in the 1 image of the part 'val'"):
        read(source)


def test_parts_that_are_lists_are_found_below_the_path(data_set, read):
    source = data_set(CONFIG.replace("/somewhere/else", "set").replace(": images/train", ": [images/train]"))
    config = source.parent.parent / "data.yaml"
    source.rename(config)
    config.write_text(config.read_text().replace(": images/val", ": [images/val]"))
    assert len(read(config).images) == 3


def test_images_that_share_a_label_file_are_refused(data_set, read, draw):
    source = data_set()
    draw("set/images/train/0.jpg")
    with pytest.raises(ValueError, match=r"train/0.jpg and .*train/0.png have the same label file, .*train/0.txt"):
        read(source)


def test_a_part_may_be_named_through_the_folder_above(data_set, read):
    labels = read(
        data_set(CONFIG.replace("path: /somewhere/else", "path: .").replace("images/val", "../set/images/val"))
    )
    assert [image.name for image in labels.images] == ["images/train/0.png", "images/train/1.png", "images/val/2.png"]


def test_pixels_in_place_of_shares_are_refused(data_set, read):
    with pytest.raises(ValueError, match="line 1 has 20; fractions of the image's width and height"):
        read(data_set(labels="1 0.5 0.5 0.25 0.5 10 20 2 0.5 0.75 1\n"))


def test_a_label_file_whose_suffix_is_in_capitals_is_said_to_be_left_out(data_set, read, tmp_path):
    source = data_set()
    (tmp_path / "set" / "labels" / "train" / "1.TXT").write_text("")
    (note,) = read(source).notes
    assert note.startswith("Left out: 1 label file without an image, e.g.")
    assert note.endswith("1.TXT.")


def test_a_config_of_a_training_is_not_taken_for_a_data_set(tmp_path, read):
    (tmp_path / "base.yaml").write_text("data: {train: train.json}\n")
    with pytest.raises(DataError, match=r"base.yaml: is a config of `kpd fit`; give the labels"):
        read(tmp_path / "base.yaml")
