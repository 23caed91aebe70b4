import itertools

import numpy as np
import pytest

from keypoint_detection.data.splitting import (
    check_folds,
    hold_out_fold,
    keep_aside,
    name_groups,
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


def test_groups_are_folders_or_what_a_pattern_finds() -> None:
    files = ["day1/cam0/a_01.png", "day1/cam1/a_02.png", "day2/cam0/b_01.png"]
    assert name_groups(files, 1) == ["day1/cam0", "day1/cam1", "day2/cam0"]
    assert name_groups(files, 2) == ["day1", "day1", "day2"]
    assert name_groups(files, r"([ab])_\d") == ["a", "a", "b"]
    assert name_groups(files, "cam0|cam1") == ["cam0", "cam1", "cam0"]
    assert name_groups(files, r"(day\d).*(cam\d)") == ["day1/cam0", "day1/cam1", "day2/cam0"]


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
