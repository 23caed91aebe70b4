import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.data.coco_keypoints import CocoKeypoints, read_coco
from keypoint_detection.data.splitting import (
    SplitOptions,
    check_folds,
    describe_split,
    divide_in_time,
    hold_out_fold,
    keep_aside,
    split_images,
    take_fraction,
)
from keypoint_detection.types import DataError

SINGLE = np.arange(23)
# Seven groups of 1 to 7 images, mixed.
GROUPS = np.random.default_rng(5).permutation(np.repeat(np.arange(7), np.arange(1, 8)))


def folds_of(groups: np.ndarray, n_folds: int, seed: int = 0) -> list[list[int]]:
    return [hold_out_fold(groups, n_folds, fold, seed).val.tolist() for fold in range(n_folds)]


def test_every_image_is_held_out_by_exactly_one_fold() -> None:
    for groups in (SINGLE, GROUPS):
        folds = folds_of(groups, 5)
        assert len(folds) == 5
        assert sorted(index for fold in folds for index in fold) == list(range(len(groups)))
        for fold, held_out in enumerate(folds):
            train = hold_out_fold(groups, 5, fold, 0).train.tolist()
            assert sorted(train + held_out) == list(range(len(groups)))


def test_folds_of_single_images_differ_in_size_by_one_at_most() -> None:
    assert sorted(map(len, folds_of(SINGLE, 5))) == [4, 4, 5, 5, 5]


def test_folds_of_groups_are_about_equal() -> None:
    # 28 images: the groups of 7, 6 + 1, 5 + 2, 4 + 3.
    assert sorted(map(len, folds_of(GROUPS, 4))) == [7, 7, 7, 7]


@pytest.mark.parametrize("seed", range(5))
def test_a_group_never_stands_on_both_sides(seed: int) -> None:
    splits = [hold_out_fold(GROUPS, 3, fold, seed) for fold in range(3)] + [keep_aside(GROUPS, 0.2, seed)]
    assert len(splits) == 4
    for split in splits:
        assert len(split.train) + len(split.val) == len(GROUPS)
        assert not set(GROUPS[split.train]) & set(GROUPS[split.val])


def test_folds_follow_from_the_seed() -> None:
    assert folds_of(SINGLE, 5) == folds_of(SINGLE, 5) != folds_of(SINGLE, 5, seed=1)


@pytest.mark.parametrize("n_images", [2, 5, 10, 37])
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.45])
def test_without_groups_the_first_of_a_permutation_are_kept_aside(n_images: int, fraction: float) -> None:
    order = np.random.default_rng(3).permutation(n_images)
    n_val = max(1, round(n_images * fraction))
    assert keep_aside(np.arange(n_images), fraction, 3).val.tolist() == sorted(order[:n_val].tolist())


def test_about_a_fifth_is_kept_aside_of_unequal_groups() -> None:
    sizes = [len(keep_aside(GROUPS, 0.2, seed).val) for seed in range(20)]
    # A fifth of 28 is 6.
    assert min(sizes) >= 4
    assert max(sizes) <= 8
    assert len(set(sizes)) > 1


def test_one_of_two_large_groups_is_kept_aside_though_it_is_more_than_a_fifth() -> None:
    split = keep_aside(np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]), 0.2, 0)
    assert split.val.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("groups", "text"), [([0], r"1 image\(s\) cannot be split"), ([0, 0, 0], r"1 group\(s\) of images cannot be split")]
)
def test_what_cannot_be_split_is_refused(groups: list[int], text: str) -> None:
    with pytest.raises(DataError, match=text):
        keep_aside(np.array(groups), 0.2, 0)


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"n_folds is 8, but there are only 7 group\(s\) of 28 images"):
        hold_out_fold(GROUPS, 8, 0, 0)
    with pytest.raises(DataError, match=r"n_folds is 24, but there are only 23 image\(s\)"):
        hold_out_fold(SINGLE, 24, 0, 0)


@pytest.mark.parametrize(
    ("n_folds", "fold", "text"),
    [
        (5, 5, "the folds are 0 to 4"),
        (5, None, "data.fold is missing: give the fold to hold out, 0 to 4"),
        (None, 0, "give --data.n_folds"),
        (1, 0, "at least 2 are expected"),
    ],
)
def test_folds_that_cannot_be_are_refused(n_folds: int | None, fold: int | None, text: str) -> None:
    with pytest.raises(DataError, match=text):
        check_folds(n_folds, fold)
    check_folds(None, None)
    check_folds(5, 4)


@pytest.mark.parametrize("groups", [SINGLE, GROUPS], ids=["images", "groups"])
def test_a_smaller_fraction_is_part_of_a_larger_one(groups: np.ndarray) -> None:
    parts = [set(take_fraction(groups, fraction, (0, 0)).tolist()) for fraction in (0.01, 0.25, 0.5, 0.75, 1.0)]
    assert len(parts[0]) >= 1
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert parts[-1] == set(range(len(groups)))
    for part in parts:
        assert set(np.flatnonzero(np.isin(groups, groups[list(part)]))) == part


def test_a_fraction_of_single_images_is_exact_and_follows_from_the_seeds() -> None:
    parts = [take_fraction(SINGLE, 0.5, seeds).tolist() for seeds in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert [len(part) for part in parts] == [11, 11, 11, 11]
    assert parts[0] == parts[1]
    assert len({tuple(part) for part in parts}) == 3


def test_a_fraction_is_taken_of_groups_that_are_not_numbered_in_a_row() -> None:
    assert take_fraction(np.array([4, 9, 4, 9]), 0.5, (0,)).tolist() in ([0, 2], [1, 3])


def options(group_by: int | str | None = "names", n_folds: int | None = None, fold: int | None = None) -> SplitOptions:
    return SplitOptions(group_by, 0.2, 0, n_folds, fold)


def table_of(names: list[str], tmp_path: Path) -> CocoKeypoints:
    labels = {
        "images": [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "keypoints": [4, 4, 2]} for i in range(len(names))],
        "categories": [{"id": 1, "name": "thing", "keypoints": ["tip"]}],
    }
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "train.json").write_text(json.dumps(labels))
    return read_coco(tmp_path / "train.json", coordinates="continuous")


def test_whole_guessed_groups_are_held_out(tmp_path: Path) -> None:
    table = table_of([f"{video}_{frame:03d}.png" for video in "abcde" for frame in range(4)], tmp_path)
    split = split_images(table, None, options())
    assert len(split.val) == 4
    assert len(split.train) == 16
    assert len(set(split.val // 4)) == 1
    held_out = "abcde"[split.val[0] // 4]
    text = f"of 20 images are held out: 1 of 5 groups, {held_out}* (data.group_by)."
    assert describe_split(table, None, options()) == (4, text, False)


def test_whole_groups_that_are_more_than_the_share_are_said(tmp_path: Path) -> None:
    table = table_of([f"{video}_{frame:03d}.png" for video in "ab" for frame in range(4)], tmp_path)
    held_out = describe_split(table, None, options())
    assert held_out.n_images == 4
    assert held_out.text.endswith("That is 50% instead of 20%: groups stay whole.")


@pytest.mark.parametrize("names", ["cam{}_{:04d}.png", "cam{}/{:04d}.png"])
@pytest.mark.parametrize("fold", [None, 0, 2, 4])
def test_views_of_one_moment_are_on_one_side(names: str, fold: int | None, tmp_path: Path) -> None:
    files = [names.format(camera, moment) for camera in range(4) for moment in range(15)]
    split = split_images(table_of(files, tmp_path), None, options(n_folds=None if fold is None else 5, fold=fold))
    assert len(split.val) == 12
    held_out, trained = set(split.val % 15), set(split.train % 15)
    assert len(held_out) == 3
    assert min(abs(one - other) for one in held_out for other in trained) == 2


def test_folds_of_guessed_groups_hold_out_each_group_once(tmp_path: Path) -> None:
    table = table_of([f"{video}_{frame:03d}.png" for video in "abcde" for frame in range(4)], tmp_path)
    folds = [split_images(table, None, options(n_folds=5, fold=fold)).val for fold in range(5)]
    assert [len(set(fold // 4)) for fold in folds] == [1] * 5
    assert sorted(np.concatenate(folds)) == list(range(20))


@pytest.mark.parametrize(
    "names", [[f"img{i}.png" for i in range(40)], [*(f"img{i}.png" for i in range(39)), "one.png"]]
)
def test_a_single_video_is_divided_in_time_with_neighbours_left_out(names: list[str], tmp_path: Path) -> None:
    table = table_of(names, tmp_path)
    split = split_images(table, None, options())
    assert len(split.val) == 8
    assert split.val.tolist() == list(range(split.val[0], split.val[0] + 8))
    # A fortieth of 40 or 39 images, rounded up, on each side that has images.
    neighbours = {int(split.val[0]) + offset for offset in (-1, 8)} & set(range(39 if "one.png" in names else 40))
    assert set(split.train) == set(range(40)) - set(split.val) - neighbours
    count, text, is_random = describe_split(table, None, options())
    assert (count, is_random) == (8, False)
    between = "1 image" if len(neighbours) == 1 else "2 images"
    assert f"of 40 images are held out, with consecutive numbers in *, and {between} next to them left out" in text


def test_unrelated_names_are_split_at_random_as_without_groups(tmp_path: Path) -> None:
    table = table_of(
        [f"{name}.png" for name in ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]], tmp_path
    )
    split = split_images(table, None, options())
    assert split.val.tolist() == split_images(table, None, options("image")).val.tolist()
    assert split.val.tolist() == split_images(table, None, options(None)).val.tolist()
    assert len(split.val) == 2
    assert len(split.train) == 7
    text = "of 9 images are held out at random: each image is a group of its own (data.group_by)."
    assert describe_split(table, None, options()) == (2, text, True)


def test_folds_in_time_follow_each_other_and_hold_out_every_image_once() -> None:
    groups, ranks = np.repeat([0, 1], [50, 23]), np.concatenate([np.arange(50)[::-1], np.arange(23)])
    splits = [divide_in_time(groups, ranks, options("time", 5, fold)) for fold in range(5)]
    assert sorted(np.concatenate([split.val for split in splits])) == list(range(73))
    for split in splits:
        assert not set(split.train) & set(split.val)
        for group, n_gap in ((0, 2), (1, 1)):
            held_out = np.sort(ranks[split.val[groups[split.val] == group]])
            assert (np.diff(held_out) == 1).all()
            trained = ranks[split.train[groups[split.train] == group]]
            assert np.abs(trained[:, None] - held_out).min() == n_gap + 1


def test_the_seed_says_where_the_held_out_images_begin() -> None:
    starts = {
        int(divide_in_time(np.zeros(50, int), np.arange(50), options("time")._replace(seed=seed)).val[0])
        for seed in range(10)
    }
    assert len(starts) > 5


def test_groups_too_short_to_divide_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 images cannot be divided in time .* set data\.group_by=image"):
        divide_in_time(np.array([0, 0]), np.arange(2), options("time"))
