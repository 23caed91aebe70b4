from pathlib import Path

import pytest
import torch

from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint, resolve_checkpoint


@pytest.fixture(autouse=True)
def _nothing_beyond_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def test_a_path_is_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"")
    assert resolve_checkpoint(str(path)) == path


def test_a_missing_file_is_refused_with_the_newest_one() -> None:
    folder = Path("runs/a/checkpoints")
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"'no.ckpt' is not a file.* newest here is runs/a/checkpoints/best.ckpt"):
        resolve_checkpoint("no.ckpt")


@pytest.mark.parametrize(
    "reference", ["wandb://a/b", "wandb://a/b/c", "wandb://a/b/c:d:e", "wandb://a/../c:d", "wandb://a/b c/d:e"]
)
def test_a_malformed_reference_is_refused(reference: str) -> None:
    with pytest.raises(CheckpointError, match="wandb://entity/project/name:alias is expected"):
        resolve_checkpoint(reference)


def test_a_version_that_was_fetched_before_needs_no_server() -> None:
    folder = Path("cache/kpd-checkpoints/a/b/c/v3")
    folder.mkdir(parents=True)
    (folder / "model.ckpt").write_bytes(b"")
    assert resolve_checkpoint("wandb://a/b/c:v3").samefile(folder / "model.ckpt")


def test_without_an_account_the_way_to_log_in_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"not logged in to Weights & Biases\. Run `wandb login`"):
        resolve_checkpoint("wandb://a/b/c:best")


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2]])
def test_other_files_of_torch_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a kpd checkpoint"):
        read_checkpoint(str(path))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"hyper_parameters": {"channels": []}, "code": print}, path)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(str(path))
