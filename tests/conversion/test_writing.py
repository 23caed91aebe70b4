import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import sleap_io
import yaml

from keypoint_detection.conversion.formats import find_format, read_labels
from keypoint_detection.conversion.label_set import LabelSet, Reading
from keypoint_detection.conversion.writing import find_output_format, write_labels
from keypoint_detection.data.coco_keypoints import read_coco

# What is written, and where it is read from again.
OUTPUTS = [
    ("deeplabcut", "out", "out"),
    ("sleap", "out.slp", "out.slp"),
    ("sleap", "out.pkg.slp", "out.pkg.slp"),
    ("label_studio", "out", "out/tasks.json"),
    ("cvat", "out.xml", "out.xml"),
    ("yolo", "out", "out"),
    ("coco", "out", "out/labels.json"),
]


def load(source: Path, **reading: Any) -> LabelSet:
    return read_labels(source, find_format(source), Reading(reading.get("image_root"), [], "error", "error"), None)


def list_instances(labels: LabelSet) -> list[tuple[list[list[float]], list[int]]]:
    images = sorted(labels.images, key=lambda image: len(image.instances))
    return [(one.points.round(2).tolist(), one.visibility.tolist()) for image in images for one in image.instances]


@pytest.mark.parametrize("transfer", ["copy", "link"])
@pytest.mark.parametrize(("name", "output", "source"), OUTPUTS)
def test_labels_come_back_from_every_format(mice, tmp_path, name, output, source, transfer):
    original = load(mice)
    write_labels(load(mice), tmp_path / output, name, transfer)
    back = load(tmp_path / source, image_root=mice.parent if name == "cvat" else None)
    assert [(one.name, one.keypoints) for one in back.categories] == [("mouse", ["nose", "tail"])]
    if name != "label_studio":  # whose config knows no lines between points
        assert back.categories[0].skeleton == [(0, 1)]
    expected = list_instances(original)
    if name == "deeplabcut":  # which knows no occluded points
        expected = [(points, [2 if flag else 0 for flag in flags]) for points, flags in expected]
    assert len(expected) == 3
    assert list_instances(back) == expected
    assert sorted(len(image.instances) for image in back.images) == [0, 1, 2]
    in_file = [image for image in back.images if image.path is not None]
    assert len(in_file) == (0 if output.endswith(".pkg.slp") else 3)
    assert all(image.size == (40, 80) for image in in_file)


@pytest.mark.parametrize(("name", "n_categories", "is_said"), [("label_studio", 1, 1), ("yolo", 1, 0), ("yolo", 2, 1)])
def test_skeletons_that_are_left_out_are_said(mice, tmp_path, name, n_categories, is_said):
    labels = load(mice)
    labels.categories *= n_categories
    notes = write_labels(labels, tmp_path / "out", name, "copy")
    assert sum("Skeletons are left out" in note for note in notes) == is_said


def test_a_table_of_deeplabcut_counts_from_pixel_centres(mice, tmp_path):
    write_labels(load(mice), tmp_path / "out", "deeplabcut", "copy")
    table = (tmp_path / "out" / "labeled-data" / "a" / "CollectedData_kpd.csv").read_text().splitlines()
    assert table[1] == "individuals,,," + ",".join(["individual1"] * 4 + ["individual2"] * 4)
    assert table[4] == "labeled-data,a,0.png,9.75,20.0,29.625,4.5,59.5,32.8333,,"
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["individuals"] == ["individual1", "individual2"]
    assert config["multianimalbodyparts"] == ["nose", "tail"]
    found = sleap_io.load_dlc(str(tmp_path / "out" / "labeled-data" / "a" / "CollectedData_kpd.csv"))
    assert found.labeled_frames[0].instances[1].numpy()[0].tolist() == [59.5, 32.8333]


def test_a_project_of_deeplabcut_has_what_the_program_reads(mice, tmp_path):
    notes = write_labels(load(mice), tmp_path / "out", "deeplabcut", "copy")
    assert notes == ["1 occluded point is written as visible: DeepLabCut has no flag for them."]
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert {Path(video).stem: one["crop"] for video, one in config["video_sets"].items()} == {
        "a": "0, 80, 0, 40",
        "b": "0, 80, 0, 40",
    }
    assert config["project_path"] == str(tmp_path / "out")
    assert config["TrainingFraction"] == [0.95]
    frame = pd.read_hdf(tmp_path / "out" / "labeled-data" / "a" / "CollectedData_kpd.h5", "df_with_missing")
    assert list(frame.columns.names) == ["scorer", "individuals", "bodyparts", "coords"]
    assert frame.index.tolist() == [("labeled-data", "a", "0.png")]
    assert frame["kpd"]["individual1"]["nose"].to_numpy().tolist() == [[9.75, 20.0]]
    assert frame["kpd"]["individual2"]["tail"].isna().to_numpy().all()


def test_without_the_packages_for_h5_the_way_to_it_is_told(mice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tables", None)
    notes = write_labels(load(mice), tmp_path / "out", "deeplabcut", "copy")
    assert sum("make it with deeplabcut.convertcsv2h5" in note for note in notes) == 1
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_a_sleap_file_counts_from_pixel_centres(mice, tmp_path):
    write_labels(load(mice), tmp_path / "out.slp", "sleap", "copy")
    frames = sleap_io.load_slp(str(tmp_path / "out.slp")).labeled_frames
    assert frames[0].instances[0].points["xy"].tolist() == [[9.75, 20.0], [29.625, 4.5]]
    assert frames[0].instances[0].points["visible"].tolist() == [True, False]
    assert sum(frame.is_negative for frame in frames) == 1


def test_yolo_gets_shares_a_box_and_its_layout(mice, tmp_path):
    write_labels(load(mice), tmp_path / "out", "yolo", "copy")
    assert (tmp_path / "out" / "images" / "train" / "b" / "0.png").is_file()
    (line,) = (tmp_path / "out" / "labels" / "train" / "b" / "0.txt").read_text().splitlines()
    # The box (5, 6, 20, 30) and the points (11, 12) and (13, 14.5) in an image of 80 x 40.
    assert [float(cell) for cell in line.split()] == [0, 0.1875, 0.525, 0.25, 0.75, 0.1375, 0.3, 2, 0.1625, 0.3625, 2]
    config = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert config["kpt_shape"] == [2, 3]
    assert (config["train"], config["val"]) == ("images/train", "images/train")


def test_yolo_gets_no_points_outside_the_image(mice, tmp_path):
    labels = load(mice)
    labels.images[1].instances[0].points[0] = -1, 5
    notes = write_labels(labels, tmp_path / "out", "yolo", "copy")
    assert notes == ["1 point outside its image is written as not labelled: Ultralytics skips such images."]
    cells = (tmp_path / "out" / "labels" / "train" / "b" / "0.txt").read_text().split()
    assert cells[5:8] == ["0.00000000", "0.00000000", "0"]


def test_cvat_gets_skeletons_with_all_their_points(mice, tmp_path):
    write_labels(load(mice), tmp_path / "out.xml", "cvat", "copy")
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    skeletons = root.findall("image[@name='images/a/0.png']/skeleton")
    points = [[(one.get("points"), one.get("occluded"), one.get("outside")) for one in each] for each in skeletons]
    assert points == [
        [("10.25,20.5", "0", "0"), ("30.125,5.0", "1", "0")],
        [("60.0,33.3333", "0", "0"), ("0.0,0.0", "0", "1")],
    ]


def test_a_coco_file_names_images_relative_to_itself_and_says_what_it_counts(mice, tmp_path):
    labels = load(mice)
    labels.info = {"coordinates": "continuous"}
    write_labels(labels, tmp_path / "deep" / "er" / "out.json", "coco", "copy")
    content = json.loads((tmp_path / "deep" / "er" / "out.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [
        f"../../coco/images/{name}.png" for name in ("a/0", "b/0", "b/1")
    ]
    assert content["info"]["coordinates"] == "continuous"
    assert content["annotations"][2]["bbox"] == [5, 6, 20, 30]
    table = read_coco(tmp_path / "deep" / "er" / "out.json", coordinates="continuous")
    assert np.isclose(table.truths.points[:3], [[10.25, 20.5], [30.125, 5], [60, 33.3333]]).all()
    assert all(Path(os.fsdecode(path)).is_file() for path in table.image_paths)


def test_parts_are_files_of_their_own_in_a_folder(mice, tmp_path):
    labels = load(mice)
    for image, split in zip(labels.images, ("train", "val", "train"), strict=True):
        image.split = split
    write_labels(labels, tmp_path / "out", "coco", "copy")
    back = load(tmp_path / "out")
    assert [image.split for image in back.images] == ["train", "train", "val"]
    part = tmp_path / "out" / "train.json"
    part.write_text(part.read_text().replace("nose", "snout"))
    with pytest.raises(ValueError, match=r"val\.json: its categories differ from those of"):
        load(tmp_path / "out")


@pytest.mark.parametrize("output", ["out.json", "out"])
def test_what_is_there_is_not_overwritten(mice, tmp_path, output):
    path = tmp_path / output
    if path.suffix:
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        write_labels(load(mice), path, "coco", "copy")


def test_nothing_is_left_of_a_conversion_that_fails(mice, tmp_path):
    labels = load(mice)
    labels.images[2].path = tmp_path / "gone.png"
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="gone"):
        write_labels(labels, tmp_path / "out", "yolo", "copy")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_of_a_conversion_that_is_interrupted(mice, tmp_path, monkeypatch):
    def interrupt(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_labels(load(mice), tmp_path / "out", "yolo", "copy")
    assert not (tmp_path / "out").exists()


def test_images_that_would_become_one_file_are_refused(mice, tmp_path):
    labels = load(mice)
    labels.images[1].name = labels.images[0].name
    with pytest.raises(ValueError, match="would both become"):
        write_labels(labels, tmp_path / "out", "yolo", "copy")


def test_deeplabcut_takes_one_kind_of_animal(mice, tmp_path):
    labels = load(mice)
    labels.categories.append(labels.categories[0].__class__("rat", ["nose"]))
    with pytest.raises(ValueError, match=r"one kind of animal; there are mouse, rat. Choose one with --categories"):
        write_labels(labels, tmp_path / "out", "deeplabcut", "copy")


def test_the_name_of_the_output_decides_the_format():
    names = ["a.json", "a.slp", "a.pkg.slp", "a.xml", "folder"]
    assert [find_output_format(Path(name)) for name in names] == ["coco", "sleap", "sleap", "cvat", "coco"]
    with pytest.raises(ValueError, match="expected a folder, or a file named"):
        find_output_format(Path("a.csv"))


def test_a_file_is_not_a_folder(mice, tmp_path):
    with pytest.raises(ValueError, match="YOLO-pose is written to a folder"):
        write_labels(load(mice), tmp_path / "a.json", "yolo", "copy")


@pytest.mark.parametrize("transfer", ["copy", "link"])
def test_yolo_refuses_images_that_would_share_a_label_file(mice, tmp_path, transfer):
    labels = load(mice)
    for image, name in zip(labels.images, ("1.jpg", "1.png", "2.png"), strict=True):
        image.name = f"images/{name}"
    with pytest.raises(ValueError, match=r"would both have the label file .*labels/train/1\.txt"):
        write_labels(labels, tmp_path / "out", "yolo", transfer)
    assert not (tmp_path / "out").exists()


def test_cvat_refuses_two_images_of_one_name(mice, tmp_path):
    labels = load(mice)
    labels.images[1].name = labels.images[0].name
    with pytest.raises(ValueError, match=r"would both be called 'images/a/0\.png'"):
        write_labels(labels, tmp_path / "out.xml", "cvat", "copy")


def test_frames_of_one_name_are_refused(mice, tmp_path):
    labels = load(mice)
    for image in labels.images[:2]:
        image.name, image.path, image.read = "v/1.png", None, lambda: np.zeros((40, 80, 3), np.uint8)
    with pytest.raises(ValueError, match=r"two frames would both become .*v/1\.png"):
        write_labels(labels, tmp_path / "out.json", "coco", "copy")


def test_the_way_to_read_a_file_of_cvat_is_told(mice, tmp_path):
    (note,) = write_labels(load(mice), tmp_path / "out.xml", "cvat", "copy")
    assert f"`--image_root={mice.parent}`." in note
    assert len(load(tmp_path / "out.xml", image_root=mice.parent).images) == 3


@pytest.mark.parametrize("output", ["o.xml", "o"])
def test_categories_of_one_name_are_refused_by_formats_that_go_by_names(mice, tmp_path, output):
    labels = load(mice)
    labels.categories = [labels.categories[0]] * 2
    name = "cvat" if output == "o.xml" else "label_studio"
    with pytest.raises(ValueError, match="2 categories are called 'mouse'"):
        write_labels(labels, tmp_path / output, name, "copy")
