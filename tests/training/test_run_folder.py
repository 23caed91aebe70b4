import multiprocessing
from pathlib import Path

import pytest

from keypoint_detection.training.run_folder import _make_folder, _move_checkpoints, as_loggable, find_run_folder


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


@pytest.mark.parametrize("stored", ["{mine}", "local://{mine}", "run/checkpoints/../../mine/a.ckpt", "run/linked.ckpt"])
def test_what_the_state_of_a_callback_names_elsewhere_is_forgotten(tmp_path, stored):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.ckpt").touch()
    (folder / "linked.ckpt").symlink_to(tmp_path / "mine" / "a.ckpt")
    path = str(tmp_path / stored.replace("{mine}", f"{tmp_path}/mine/a.ckpt")) if "://" not in stored else stored
    state = {
        "best_k_models": {path: 1.0},
        "best_model_path": path,
        "kth_best_model_path": path,
        "last_model_path": path,
    }
    moved = _move_checkpoints({**state, "best_model_score": 1.0}, folder, tmp_path / "run")
    assert moved["best_k_models"] == {}
    assert {moved[name] for name in ("best_model_path", "kth_best_model_path", "last_model_path")} == {""}


def test_checkpoints_in_folders_below_are_found_again(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    (folder / "more").mkdir(parents=True)
    path = folder / "more" / "a.ckpt"
    path.touch()
    state = {"best_k_models": {str(path): 1.0}, "best_model_path": str(path)}
    state |= {"kth_best_model_path": str(path), "last_model_path": "", "best_model_score": 1.0}
    assert _move_checkpoints(state, folder, folder) == {**state, "dirpath": str(folder)}
