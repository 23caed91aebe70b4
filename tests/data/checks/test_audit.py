"""Every kind of mistake, made in a data set that is right otherwise."""

import json
import shutil

import numpy as np
import pytest
from data.checks.sets import DEMANDS, draw, edit, kinds, run_audit, write_set
from PIL import Image

from keypoint_detection.data.splitting import SplitOptions

N = 12
EXIF_ORIENTATION = 0x0112


@pytest.fixture
def path(tmp_path):
    return write_set(tmp_path / "set", {f"{number:02}.jpg": draw(number) for number in range(N)})


def only(audit, kind):
    (finding,) = [one for one in audit.findings if one.kind == kind]
    return finding


def test_a_sound_data_set_is_clean(path):
    audit = run_audit(path)
    assert kinds(audit) == {}
    assert len(audit.parts[0].table.truths.points) == 2 * N


def test_a_truncated_image_is_an_error(path):
    file = path.with_name("03.jpg")
    file.write_bytes(file.read_bytes()[:-200])
    audit = run_audit(path)
    assert kinds(audit) == {"unreadable": 1}
    assert "image file is truncated" in only(audit, "unreadable").examples[0]


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image_is_an_error(path, content):
    path.with_name("03.jpg").write_bytes(content)
    assert kinds(run_audit(path)) == {"unreadable": 1}


def test_an_image_of_another_size_is_an_error(path):
    Image.fromarray(draw(3, (30, 40))).save(path.with_name("03.jpg"))
    audit = run_audit(path)
    assert kinds(audit)["size"] == 1
    assert "the labels are wrong" in only(audit, "size").summary


def test_a_size_from_before_the_exif_rotation_is_called_wrong_labels(path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(draw(3)).save(path.with_name("03.jpg"), exif=exif)
    audit = run_audit(path)
    assert only(audit, "rotated").level == "error"
    assert "the labels are wrong" in only(audit, "rotated").summary
    assert "before its EXIF rotation" in only(audit, "rotated").examples[0]


def test_missing_images_are_looked_for_in_other_folders(path):
    shutil.move(path.with_name("03.jpg"), path.parent.parent / "03.jpg")
    there = path.parent / "elsewhere" / "deep"
    there.mkdir(parents=True)
    shutil.move(path.parent.parent / "03.jpg", there / "03.jpg")
    audit = run_audit(path)
    assert kinds(audit) == {"image_file": 1}
    assert f"Images of these names are in {there}. To leave them out, give" in only(audit, "image_file").summary
    for image in path.parent.glob("*.jpg"):
        shutil.move(image, there / image.name)
    assert f"With --data.image_root={there}, all would be found." in only(run_audit(path), "image_file").summary


def test_the_rest_is_checked_beside_errors_of_the_file(path):
    edit(path, lambda content: content["annotations"][0].update(keypoints=[1, 2, 2]))
    edit(path, lambda content: content["annotations"][1].update(keypoints=[500, 2, 2, 1, 1, 2]))
    assert kinds(run_audit(path)) == {"length": 1, "num_keypoints": 1, "outside": 1}


def test_wrong_num_keypoints_are_counted(path):
    edit(path, lambda content: content["annotations"][4].update(num_keypoints=1))
    audit = run_audit(path)
    assert kinds(audit) == {"num_keypoints": 1}
    assert only(audit, "num_keypoints").examples == ("annotation 4: 1 instead of 2",)


def test_coordinates_between_0_and_1_are_an_error(path):
    def scale(content):
        for entry in content["annotations"]:
            entry["keypoints"] = [0.2, 0.5, 2, 0.9, 0.7, 2]

    assert only(run_audit(edit(path, scale)), "normalised").level == "error"


def test_exchanged_axes_are_named(tmp_path):
    names = [f"{number:02}.png" for number in range(N)]
    path = write_set(
        tmp_path, {name: draw(i) for i, name in enumerate(names)}, {name: [[5, 70], [50, 78]] for name in names}
    )
    audit = run_audit(path)
    assert kinds(audit)["outside"] == 2 * N
    assert "With x and y swapped" in only(audit, "outside").summary


def test_copies_are_told_apart_by_their_labels(path):
    shutil.copy(path.with_name("00.jpg"), path.with_name("01.jpg"))
    shutil.copy(path.with_name("02.jpg"), path.with_name("03.jpg"))
    edit(path, lambda content: content["annotations"][3].update(keypoints=[11, 10, 2, 40, 30, 2]))
    assert kinds(run_audit(path)) == {"copies": 1, "copies_labelled_differently": 1}


def test_a_file_that_is_listed_twice_and_an_annotation_that_repeats_another_are_found(path):
    def repeat(content):
        content["images"].append({"id": 99, "file_name": "00.jpg", "height": 60, "width": 80})
        content["annotations"].append({**content["annotations"][5], "id": 99})

    found = kinds(run_audit(edit(path, repeat)))
    assert (found["image_listed_twice"], found["annotation_twice"], found["copies_labelled_differently"]) == (1, 1, 1)


def test_more_points_than_a_detector_gives_are_found(path):
    edit(
        path,
        lambda content: content["annotations"].extend(
            {"id": 50 + i, "image_id": 0, "category_id": 1, "keypoints": [10 * i + 5, 50, 2, 0, 0, 0]} for i in range(3)
        ),
    )
    audit = run_audit(path, DEMANDS._replace(max_keypoints=3))
    assert kinds(audit) == {"max_keypoints": 1}
    assert "--model.max_keypoints=4" in only(audit, "max_keypoints").summary


def test_points_of_a_channel_that_are_too_close_in_the_input_are_found(path):
    second = {"id": 50, "image_id": 0, "category_id": 1, "keypoints": [13, 10, 2, 0, 0, 0]}
    edit(path, lambda content: content["annotations"].append(second))
    assert kinds(run_audit(path)) == {}
    # At half the size, 3 px become 1.5.
    audit = run_audit(path, DEMANDS._replace(image_size=(30, 40)))
    assert kinds(audit) == {"min_distance": 1}
    assert only(audit, "min_distance").examples[0].startswith("1.50 px apart: nose at (10, 10) in image 0")


def test_channels_without_points_and_unused_types_are_named(path):
    def drop_tails(content):
        for entry in content["annotations"]:
            entry.update(keypoints=[10, 10, 2, 0, 0, 0], num_keypoints=1)

    edit(path, drop_tails)
    assert kinds(run_audit(path)) == {"empty_channel": 1}
    audit = run_audit(path, channels={"head": ["nose"]})
    assert kinds(audit) == {}
    assert "tail" in only(audit, "unused_type").summary


def test_channels_with_few_points_are_named(path):
    edit(path, lambda content: content["annotations"][0].update(keypoints=[10, 10, 1, 40, 30, 0], num_keypoints=1))
    requirements = DEMANDS._replace(visible_only=True)

    def occlude(content):
        for entry in content["annotations"][1:]:
            entry["keypoints"][5] = 1 if entry["id"] > 3 else 2

    audit = run_audit(edit(path, occlude), requirements)
    assert kinds(audit) == {"few_points": 1}
    assert "tail (3)" in only(audit, "few_points").summary


def test_a_channel_that_the_file_lacks_is_an_error(path):
    assert kinds(run_audit(path, channels=["nosee"])) == {"channels": 1}


def test_a_file_without_a_labelled_point_is_an_error(path):
    edit(path, lambda content: content["annotations"].clear())
    assert kinds(run_audit(path), "error") == {"no_points": 1}


def test_objects_too_small_for_the_input_are_found_with_a_size_that_shows_them(path):
    audit = run_audit(path, DEMANDS._replace(image_size=(16, 16)))
    assert kinds(audit) == {"small_objects": N}
    # The points are 36 px apart at most: at full size, in multiples of 32 px, they are seen best.
    assert "--data.image_size='[64, 96]'" in only(audit, "small_objects").summary


def test_labels_that_slipped_by_one_image_are_found_where_the_camera_stands_still(tmp_path):
    rng = np.random.default_rng(0)
    spots = rng.uniform(8, 52, (30, 2)).round()
    images = {f"{i:02}.png": draw(0, spot=tuple(spot)) for i, spot in enumerate(spots)}
    own = {name: [[x, y], [x + 1, y + 1]] for name, (x, y) in zip(images, spots.tolist(), strict=True)}
    slipped = dict(zip(images, [list(own.values())[-1], *list(own.values())[:-1]], strict=True))
    assert "shifted" not in kinds(run_audit(write_set(tmp_path / "right", images, own)))
    audit = run_audit(write_set(tmp_path / "slipped", images, slipped))
    assert "fit the previous image" in only(audit, "shifted").summary


def test_points_on_what_is_ordinary_do_not_seem_to_fit_the_next_image(tmp_path):
    # Every image differs from the others, except at its points, which lie in a patch of the grey between them.
    rng = np.random.default_rng(0)
    images, own = {}, {}
    for number, (x, y) in enumerate(rng.integers(8, 52, (30, 2)).tolist()):
        pixels = rng.integers(0, 256, (20, 20, 1), dtype=np.uint8).repeat(3, axis=0).repeat(3, axis=1).repeat(3, axis=2)
        pixels[y - 6 : y + 7, x - 6 : x + 7] = 127
        images[f"{number:02}.png"] = pixels
        own[f"{number:02}.png"] = [[x, y], [x + 1, y + 1]]
    assert "shifted" not in kinds(run_audit(write_set(tmp_path, images, own)))


def test_labels_that_slipped_by_one_image_are_found_where_sizes_differ(tmp_path):
    sizes = [(60, 80) if number % 2 else (80, 60) for number in range(30)]
    images = {f"{i:02}.png": draw(i, size) for i, size in enumerate(sizes)}
    corners = {name: [[1, 1], [sizes[i - 1][1] - 2, sizes[i - 1][0] - 2]] for i, name in enumerate(images)}
    audit = run_audit(write_set(tmp_path, images, corners))
    assert "points are outside their own image" in only(audit, "shifted").summary


def test_a_file_that_is_no_coco_file_is_one_error_and_the_others_are_checked(path, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps([1]))
    audit = run_audit({"train": path, "val": tmp_path / "bad.json"})
    assert kinds(audit) == {"not_coco": 1}
    assert len(audit.parts) == 1


def test_points_that_are_all_outside_are_an_error_as_in_a_training(path):
    def negate(content):
        for annotation in content["annotations"]:
            annotation["keypoints"] = [
                -value if i % 3 < 2 else value for i, value in enumerate(annotation["keypoints"])
            ]

    found = run_audit(edit(path, negate))
    assert kinds(found, "error") == {"outside": 2 * N, "no_points": 1}
    assert "left to train on" in only(found, "no_points").summary


def test_groups_that_cannot_be_split_are_an_error_as_in_a_training(path):
    split = SplitOptions(group_by=r"\.jpg", val_fraction=0.2, seed=0, n_folds=None, fold=None)
    found = only(run_audit({"train": path}, split=split), "split")
    assert (found.level, "cannot be split" in found.summary) == ("error", True)
    assert "split" not in kinds(run_audit({"train": path}, split=split._replace(group_by=None)))


@pytest.mark.parametrize("side", ["60", 0, None, -3, True])
def test_a_size_that_is_none_is_said(path, side):
    def change(content):
        content["images"][0]["height"] = side

    assert kinds(run_audit(edit(path, change))) == {"size_unknown": 1}


def test_keypoints_without_names_are_noted(path):
    def change(content):
        del content["categories"][0]["keypoints"]

    found = only(run_audit(edit(path, change)), "unnamed")
    assert (found.level, found.examples) == ("note", ("mouse_0", "mouse_1"))


def test_images_that_are_nearly_black_are_found(tmp_path):
    images = {f"{number:02}.png": draw(number) for number in range(N)}
    dark = {name: pixels // 16 if name < "03" else pixels for name, pixels in images.items()}
    assert only(run_audit(write_set(tmp_path, dark)), "nearly_black").count == 3
