"""Images that are there twice, within a file and on both sides of a split."""

import shutil

import numpy as np
import pytest
from data.checks.sets import draw, kinds, run_audit, write_set
from data.checks.test_audit import only
from PIL import Image

from keypoint_detection.data.checks.duplicates import find_copies, find_neighbours
from keypoint_detection.data.checks.groups import find_groups, propose_split
from keypoint_detection.data.splitting import SplitOptions


def video(seed, n_frames, step):
    """Frames of a fixed camera in which a spot moves by some pixels a frame."""
    return [draw(seed, (120, 160), spot=(20 + step * i, 60)) for i in range(n_frames)]


def write_parts(folder, train, val):
    return {"train": write_set(folder / "train", train), "val": write_set(folder / "val", val)}


def test_unlike_images_raise_no_alarm(tmp_path):
    files = write_parts(tmp_path, {f"{i}.jpg": draw(i) for i in range(8)}, {f"{i}.jpg": draw(i + 50) for i in range(4)})
    audit = run_audit(files)
    assert len(audit.parts) == 2
    assert kinds(audit) == {}


def test_a_copy_on_the_other_side_of_the_split_is_found(tmp_path):
    files = write_parts(tmp_path, {f"{i}.jpg": draw(i) for i in range(8)}, {f"{i}.jpg": draw(i + 50) for i in range(4)})
    shutil.copy(tmp_path / "train/3.jpg", tmp_path / "val/2.jpg")
    audit = run_audit(files)
    assert kinds(audit) == {"split_copies": 1}
    assert "val/2.jpg" in only(audit, "split_copies").examples[0]
    assert "train/3.jpg" in only(audit, "split_copies").examples[0]


@pytest.mark.parametrize("save", [{"quality": 40}, {"quality": 90, "size": (80, 60)}])
def test_an_image_saved_again_is_found_on_the_other_side(tmp_path, save):
    images = {f"{i}.jpg": draw(i, (120, 160)) for i in range(8)}
    files = write_parts(tmp_path, images, {f"{i}.jpg": draw(i + 50, (120, 160)) for i in range(4)})
    again = Image.fromarray(images["5.jpg"]).resize(save.pop("size", (160, 120)))
    again.save(tmp_path / "val/1.jpg", **save)
    assert kinds(run_audit(files))["split_alike"] == 1


def test_frames_of_one_video_on_both_sides_are_found_with_a_split_by_video(tmp_path):
    frames = {f"{clip}_{i:03}.jpg": frame for clip in "abcde" for i, frame in enumerate(video(ord(clip), 6, 1))}
    # At random within every video, as a careless split does it.
    val = {name: frame for number, (name, frame) in enumerate(frames.items()) if number % 4 == 1}
    audit = run_audit(write_parts(tmp_path, {name: one for name, one in frames.items() if name not in val}, val))
    found = only(audit, "split_alike")
    assert found.count == len(val) == 8
    assert "The names suggest 5 groups (a*, b*, c*, d*, e*): validate on a*, 20% of the images" in found.summary


def test_the_folders_of_the_parts_themselves_are_no_groups(tmp_path):
    frames = {f"{i:03}.jpg": frame for i, frame in enumerate(video(0, 12, 1))}
    val = {name: frames.pop(name) for name in ("002.jpg", "005.jpg", "008.jpg")}
    found = only(run_audit(write_parts(tmp_path, frames, val)), "split_alike")
    assert found.count == 3
    assert "The names suggest no groups" in found.summary


def test_frames_far_apart_show_the_same_scene(tmp_path):
    frames = {f"{i}.jpg": frame for i, frame in enumerate(video(0, 8, 15))}
    val = {"3.jpg": frames.pop("3.jpg")}
    audit = run_audit(write_parts(tmp_path, frames, val))
    assert only(audit, "split_alike").summary.startswith("of 1 val image shows the scene of a train image")


def test_a_random_split_of_a_video_is_warned_of(tmp_path):
    path = write_set(tmp_path, {f"{i}.jpg": frame for i, frame in enumerate(video(0, 12, 1))})
    assert only(run_audit({"train": path}, split=SplitOptions(None, 0.2, 0, None, None)), "alike").level == "warning"
    assert only(run_audit({"train": path}, split=None), "alike").level == "note"


def test_images_of_one_colour_are_like_no_other():
    flat = np.full((3, 32, 32), 90, dtype=np.uint8)
    assert not find_neighbours(flat, None).is_same_scene.any()


def test_one_image_has_no_neighbour():
    found = find_neighbours(np.zeros((1, 32, 32), dtype=np.uint8), None)
    assert found.nearest.tolist() == [-1]


def test_the_nearest_is_found_across_blocks(monkeypatch):
    monkeypatch.setattr("keypoint_detection.data.checks.duplicates.N_BLOCK", 4)
    images = np.random.default_rng(0).integers(0, 255, (11, 32, 32), dtype=np.uint8)
    images[9] = images[2]
    found = find_neighbours(images, None)
    assert found.is_nearly_same.nonzero()[0].tolist() == [2, 9]
    assert found.nearest[[2, 9]].tolist() == [9, 2]


def test_unread_files_are_no_copies_of_each_other():
    assert find_copies([b"", b"a", b"", b"b", b"a"]) == [[1, 4]]


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        ([f"IMG2023{i}.jpg" for i in range(9)], None),
        ([f"{hex(i * 7919)}.jpg" for i in range(9)], None),
        ([f"{clip}/{i}.jpg" for clip in "ab" for i in range(4)], ["a/*"] * 4 + ["b/*"] * 4),
        ([f"x/{clip}_frame{i}.jpg" for clip in "ab" for i in range(4)], ["x/a*"] * 4 + ["x/b*"] * 4),
    ],
)
def test_groups_are_folders_or_what_stands_before_the_number(paths, groups):
    assert find_groups(paths) == groups


def test_the_proposed_split_takes_about_a_fifth():
    groups = ["a"] * 50 + ["b"] * 15 + ["c"] * 20 + ["d"] * 5
    assert "validate on b, 17% of the images" in propose_split(groups)
    assert "validate on b, 25% of the images" in propose_split(["a"] * 6 + ["b"] * 2)
