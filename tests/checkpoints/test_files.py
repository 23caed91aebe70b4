import zipfile
from pathlib import Path

import pytest
import torch
import wandb
from wandb_stand_in import StandIn

from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint, resolve_checkpoint

GOLDEN = Path(__file__).parents[1] / "assets" / "golden" / "run" / "checkpoints" / "best.ckpt"


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


def test_a_flipped_bit_in_any_record_is_noticed(tmp_path: Path) -> None:
    whole, path = GOLDEN.read_bytes(), tmp_path / "a.ckpt"
    with zipfile.ZipFile(GOLDEN) as archive:
        records = [archive.read(name) for name in archive.namelist()]
    positions = [whole.index(record) + len(record) // 2 for record in records if len(record) > 64]
    assert len(positions) > 30
    for position in positions:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match=r"a\.ckpt cannot be read .*damaged: the checksum of its record"):
            read_checkpoint(str(path))


@pytest.mark.parametrize(
    ("share", "reason"),
    [(0, "it is empty"), (0.5, "it is incomplete or damaged"), (0.999, "it is incomplete or damaged")],
)
def test_a_cut_off_file_is_refused_and_whole_ones_are_offered(tmp_path: Path, share: float, reason: str) -> None:
    whole = GOLDEN.read_bytes()
    for name in ("last", "worse"):
        (tmp_path / f"{name}.ckpt").write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "best.ckpt").write_bytes(whole)
    with pytest.raises(CheckpointError, match=rf"\({reason}.*\)\. Undamaged in the same folder: best\.ckpt\.$"):
        read_checkpoint(str(tmp_path / "last.ckpt"))


def test_a_damaged_download_may_be_deleted() -> None:
    folder = Path("cache/kpd-checkpoints/a/b/c/v3")
    folder.mkdir(parents=True)
    (folder / "model.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"Delete it to have it downloaded again"):
        read_checkpoint("wandb://a/b/c:v3")


def test_compressed_records_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1_000_000))
    with pytest.raises(CheckpointError, match="it is incomplete or damaged"):
        read_checkpoint(str(path))


@pytest.mark.parametrize("reference", ["x" * 5000, "a\0b", "", "."])
def test_a_path_that_no_file_can_have_is_refused(reference):
    with pytest.raises(CheckpointError, match="is not a file"):
        resolve_checkpoint(reference)


@pytest.mark.parametrize(
    ("fault", "fault_after"),
    [("refuse", None), ("page", None), ("version", "Viewer"), ("version", "ArtifactMembershipByName"),
     ("hang", "ArtifactMembershipByName"), ("hang", "FetchArtifactManifest")],
)  # fmt: skip
def test_a_bad_server_is_given_up_with_the_reference(fault, fault_after, tmp_path, monkeypatch):
    monkeypatch.setattr("keypoint_detection.checkpoints.files.API_TIMEOUT_S", 1)
    with StandIn(fault=fault, fault_after=fault_after) as server:
        server.artifacts["detector"] = {
            "artifactTypeName": "model", "metadata": "{}", "digest": "d", "aliases": [{"alias": "best"}],
        }  # fmt: skip
        for name, value in {**server.environment(), "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
        wandb.teardown()
        with pytest.raises(
            CheckpointError, match=r"^wandb://someone/discs/detector:best cannot be (fetched|downloaded)"
        ):
            resolve_checkpoint("wandb://someone/discs/detector:best")
        wandb.teardown()
    assert list(tmp_path.rglob("*.ckpt")) == []
