from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metrics.processes import fill, make_metric
from metrics.runs import write_folds, write_run

from keypoint_detection.metrics.held_out import HELD_OUT_FILE, read_held_out
from keypoint_detection.metrics.pooling import find_runs, groups_of, missing_folds, pool
from keypoint_detection.types import DataError


def found(*folders: Path):
    return find_runs([str(folder) for folder in folders]).runs


def test_pooled_folds_equal_one_evaluation_of_all_images(tmp_path: Path) -> None:
    write_folds(tmp_path)
    runs = found(tmp_path)
    assert [run.folder.name for run in runs] == ["fold0", "fold1", "fold2"]
    report = pool(runs)
    alone = fill(make_metric(), [[image_id] for image_id in range(11)]).compute()
    assert report.n_images == 11
    assert report.overall.n_truths > 5
    assert report.as_dict() == alone.as_dict()
    assert report.with_intervals(20, seed=1).as_dict() == alone.with_intervals(20, seed=1).as_dict()


def test_images_that_a_distributed_sampler_repeated_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0, 1, 4, 1, 0])
    alone = fill(make_metric(), [[0, 1, 4]]).compute()
    assert pool(found(run)).as_dict() == alone.as_dict()


def test_whole_groups_are_resampled(tmp_path: Path) -> None:
    # Of two groups the resamples are one twice, the other twice, or both.
    groups = {image_id: int(image_id > 4) for image_id in range(11)}
    folders = [
        write_run(tmp_path / "a", [0, 1, 2, 3, 4], groups),
        write_run(tmp_path / "b", [5, 6, 7, 8, 9, 10], groups),
    ]
    runs = found(*folders)
    report = pool(runs)
    numbers = groups_of(runs, report.measurements.image_ids)
    assert numbers.tolist() == [0] * 5 + [1] * 6
    low, high = report.with_intervals(300, seed=0, groups=numbers).intervals["error_px/mean"]
    of_each = [pool(found(folder)).overall.error_px_mean for folder in folders]
    assert (low, high) == pytest.approx((min(of_each), max(of_each)))
    assert min(of_each) < max(of_each)


def test_missing_folds_are_listed(tmp_path: Path) -> None:
    folders = write_folds(tmp_path)
    assert missing_folds(found(*folders)) == []
    assert missing_folds(found(folders[1])) == [0, 2]
    assert missing_folds(found(write_run(tmp_path / "no fold", [0]))) == []


def test_groups_are_none_where_images_stand_for_themselves(tmp_path: Path) -> None:
    runs = found(*write_folds(tmp_path))
    assert groups_of(runs, torch.arange(11)) is None


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"thresholds_px": [1.0, 2.0, 3.0]}, r"a has the thresholds_px .*, .*b has \[1\.0, 2\.0, 3\.0\]"),
        ({"channels": ["x", "y", "z"]}, "has the channels"),
        ({"sha256": "1" * 64}, "has the held-out images train.json, as it was, .*as it was then"),
        ({"sha256": "1" * 64, "file": "other.json"}, "has the held-out images train.json, .*b has other.json"),
        ({"n_folds": 4}, "has the n_folds 3, .*b has 4"),
        ({"group_by": 1}, "has the group_by None, .*b has 1"),
    ],
)
def test_runs_that_measured_something_else_are_refused(tmp_path: Path, about: dict[str, Any], text: str) -> None:
    one = write_run(tmp_path / "a", [0, 1], n_folds=3, fold=0)
    other = write_run(tmp_path / "b", [2, 3], **{"n_folds": 3, "fold": 1, **about})
    with pytest.raises(DataError, match=text):
        pool(found(one, other))


def test_the_same_images_twice_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", [0, 1, 2], n_folds=3, fold=0)
    other = write_run(tmp_path / "b", [1, 2, 3, 4], n_folds=3, fold=1, split_seed=8)
    with pytest.raises(DataError, match=r"2 of 4 \(image 1\).*they differ in fold 0 and 1, split_seed 0 and 8"):
        pool(found(one, other))
    again = write_run(tmp_path / "c", [0, 1, 2], n_folds=3, fold=0)
    with pytest.raises(DataError, match="both have the same split"):
        pool(found(one, again))


def test_runs_are_found_by_folder_parent_pattern_and_file_and_each_once(tmp_path: Path, monkeypatch) -> None:
    folders = write_folds(tmp_path / "runs")
    (tmp_path / "runs" / "unfinished").mkdir()
    (tmp_path / "runs" / "unfinished" / "config.yaml").touch()
    (tmp_path / "runs" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    for patterns in (["runs"], ["runs/*"], [str(tmp_path / "runs" / "*")], ["runs/fold*", "runs", "runs/fold0/"]):
        result = find_runs(patterns)
        assert [run.folder.name for run in result.runs] == ["fold0", "fold1", "fold2"]
    assert [folder.name for folder in find_runs(["runs"]).unfinished] == ["unfinished"]
    assert [run.folder for run in found(folders[1] / HELD_OUT_FILE)] == [folders[1]]
    with pytest.raises(DataError, match="'nowhere': no run found"):
        find_runs(["runs", "nowhere"])
    with pytest.raises(DataError, match="'runs/notes': no run found"):
        find_runs(["runs/notes"])
    with pytest.raises(DataError, match=r"of 1 run, none has a predictions\.npz"):
        find_runs(["runs/unfinished"])


@pytest.mark.parametrize("kind", ["text", "cut", "other"])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, kind: str) -> None:
    path = write_run(tmp_path / "a", [0, 1]) / HELD_OUT_FILE
    if kind == "other":
        np.savez(path, points=np.zeros(3))
    else:
        path.write_bytes(b"hello" if kind == "text" else path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"predictions\.npz cannot be read"):
        read_held_out(path)


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [0], format=2)
    with pytest.raises(DataError, match="has the format 2, this version reads 1"):
        found(folder)
