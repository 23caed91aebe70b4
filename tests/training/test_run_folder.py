import multiprocessing
from pathlib import Path

import pytest

from keypoint_detection.training.run_folder import _make_folder, as_loggable, find_run_folder


def _make(root: str, _: int) -> str:
    return str(_make_folder(Path(root), "fit"))


def test_runs_that_start_together_get_folders_of_their_own(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        folders = pool.starmap(_make, [(str(tmp_path), number) for number in range(24)])
    assert len(set(folders)) == 24
    assert {str(path) for path in tmp_path.iterdir()} == set(folders)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": (1, 2.5, None)}, {"a": [1, 2.5, None]}),
        (Path("x/y"), "x/y"),
        ([True, "a"], [True, "a"]),
    ],
)
def test_hyperparameters_become_what_every_logger_can_store(value, expected):
    assert as_loggable(value) == expected


def test_without_the_command_line_the_folder_is_lightnings():
    class TrainerStub:
        callbacks = ()
        log_dir = None
        default_root_dir = "somewhere"

    assert find_run_folder(TrainerStub()) == Path("somewhere")
