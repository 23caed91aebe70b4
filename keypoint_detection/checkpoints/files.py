"""Checkpoint files: where they are, on disk or at Weights & Biases, and what is in them."""

import logging
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from typing_extensions import Self

from keypoint_detection.checkpoints.content import check_content, check_plain, check_resumable
from keypoint_detection.checkpoints.misfits import find_not_finite
from keypoint_detection.checkpoints.trust import UntrustedError, explain_refusal, refuse_untrusted, trusting
from keypoint_detection.destinations import shorten_path
from keypoint_detection.printing import first_line

if TYPE_CHECKING:
    from wandb import Artifact

# torch's message when asked to map a file that is not in its format, or is in that of versions before 1.6.
NOT_A_TORCH_FILE = "mmap can only be used with files saved with"

logger = logging.getLogger(__name__)

# In a run folder: its resolved config, and the folder of its checkpoints.
CONFIG_FILE = "config.yaml"
CHECKPOINT_FOLDER = "checkpoints"
# Key of the latest validation when the checkpoint was saved: epoch, step and report.
VALIDATION_KEY = "validation"
# In that validation: the calibration of scores and peaks; None if too few points were right.
CALIBRATION_KEY = "calibration"
# Also in it: the mean AP averaged over the validations of the run so far.
SMOOTHED_KEY = "mAP_smoothed"
WANDB_SCHEME = "wandb://"
# A separate folder in the Weights & Biases cache, which WANDB_CACHE_DIR relocates.
CACHE_FOLDER = "kpd-checkpoints"
API_TIMEOUT_S = 20
# How often a download is retried when the server answers with an error.
N_RETRIES = 3
# Number of checkpoints to name in place of a damaged one.
N_OFFERED = 2
# The first bytes of a torch file, which is a zip archive.
ZIP_START = b"PK"


class CheckpointError(ValueError):
    """A checkpoint cannot be found, fetched or read."""


def resolve_checkpoint(reference: str) -> Path:
    """Find the file of a checkpoint, downloading it from Weights & Biases if the reference points there.

    Downloads are kept: an artifact of a fixed version (`:v3`) is then found without a network, and an alias (`:best`)
    takes a single request to the server.

    Args:
        reference: a path, or `wandb://entity/project/name:alias`.

    Raises:
        CheckpointError: there is no such file or artifact, or the server cannot be reached.
    """
    if reference.startswith(WANDB_SCHEME):
        return _fetch(reference)
    path = Path(reference)
    if not os.path.isfile(path):  # unlike `Path.is_file`, it takes names that are too long for the system
        found = sorted(Path().glob("runs/*/checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
        newest = f" The newest here is {found[-1]}." if found else ""
        raise CheckpointError(f"{reference!r} is not a file; the path of a checkpoint is expected.{newest}")
    return path


def find_run(checkpoint: str | Path) -> Path | None:
    """Find the run folder that a checkpoint belongs to; None if the file is not in one.

    Args:
        checkpoint: the path of its file.
    """
    folder = Path(checkpoint).absolute().parent
    is_in_run = folder.name == CHECKPOINT_FOLDER and (folder.parent / CONFIG_FILE).is_file()
    return shorten_path(folder.parent) if is_in_run else None


def read_checkpoint(reference: str) -> dict[str, Any]:
    """Read a checkpoint of a detector without running any code in it.

    Args:
        reference: a path, or `wandb://entity/project/name:alias`.

    Returns:
        What Lightning saved: `state_dict`, `hyper_parameters` and more, on the CPU, as `checkpoints.content` tells.

    Raises:
        CheckpointError: it cannot be found, is damaged, is not a checkpoint that this version can read, or names a
            class that is not trusted.
    """
    path = resolve_checkpoint(reference)
    try:
        _check_sums(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # noqa: TID251
    except Exception as error:  # unpickling a forged file can raise anything
        reason = explain_unreadable(error)
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({reason}).{_offer_instead(path)}") from error
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or "channels" not in settings:
        raise CheckpointError(f"{path} is not a kpd checkpoint: it contains no hyper-parameters of a KeypointDetector.")
    try:
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            check_plain(content.get(key), key)
            refuse_untrusted(content.get(key) or {}, str(path))
        check_content(content)
    except UntrustedError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used as a checkpoint ({error}).") from error
    if not_finite := find_not_finite(content["state_dict"]):
        raise CheckpointError(
            f"{path} contains weights that are NaN or infinite, e.g. {not_finite[0]}.{_offer_instead(path)}"
        )
    return cast("dict[str, Any]", content)


def read_training(reference: str) -> dict[str, Any]:
    """Read a checkpoint to resume the training run that wrote it.

    Raises:
        CheckpointError: see `read_checkpoint`, or the training state is missing or damaged.
    """
    content = read_checkpoint(reference)
    try:
        check_resumable(content)
    except ValueError as error:
        raise CheckpointError(f"{reference} cannot be resumed ({error}).") from error
    return content


def find_intact(folder: Path) -> Iterator[Path]:
    """Yield the undamaged checkpoints of a folder, the newest first."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            _check_sums(path)
        except (OSError, zipfile.BadZipFile):
            continue
        yield path


class LoadsCheckedCheckpoints:
    """A Lightning module whose checkpoints are read as data: they are checked, and can name only trusted classes."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **options: Any) -> Self:
        """Create it from a checkpoint.

        Args:
            checkpoint_path: a path, or `wandb://entity/project/name:alias`. Import the modules of your own classes
                first: a checkpoint cannot cause them to be imported.
            options: `map_location` and `strict`, see Lightning; any others replace stored hyper-parameters.

        Raises:
            CheckpointError: see `read_checkpoint`.
        """
        path = resolve_checkpoint(str(checkpoint_path))
        read_checkpoint(str(path))
        with trusting((), is_vetting=True) as trust:
            try:
                module: Self = super().load_from_checkpoint(path, **options | {"weights_only": True})  # type: ignore[misc]
            finally:
                if trust.refused:
                    raise CheckpointError(f"{path}: {explain_refusal(trust.refused[0])}")
        return module


def explain_unreadable(error: Exception) -> str:
    """Say in a few words why torch could not read a file, without its advice on how to run the code in it."""
    if NOT_A_TORCH_FILE in str(error):
        return "it is not a torch file"
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, not a torch file, or contains objects that would run code"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _check_sums(path: Path) -> None:
    """Compare the checksum of every record of a torch file, which torch itself does not; 50 ms for 56 MB.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is damaged.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
        if start != ZIP_START:
            raise zipfile.BadZipFile("it is not a torch file" if start else "it is empty")
        try:
            with zipfile.ZipFile(file) as archive:
                # Compressed or overlapping records, which torch never writes, could take forever to read.
                if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
                    raise zipfile.BadZipFile
                broken = archive.testzip()
        except Exception as error:  # so can reading a damaged archive
            raise zipfile.BadZipFile("it is incomplete or damaged") from error
    if broken is not None:
        raise zipfile.BadZipFile(f"it is damaged: the checksum of its record {broken!r} is wrong")


def _offer_instead(path: Path) -> str:
    """Name what can be read in place of a damaged checkpoint."""
    if CACHE_FOLDER in path.parts:
        return " Delete it to have it downloaded again."
    intact = [one.name for one in find_intact(path.parent) if one != path][:N_OFFERED]
    return f" Undamaged in the same folder: {', '.join(intact)}." if intact else ""


def _fetch(reference: str) -> Path:
    match = re.fullmatch(r"wandb://([\w.-]+)/([\w.-]+)/([\w.-]+):([\w.-]+)", reference)
    if match is None or {".", ".."} & set(match.groups()):
        raise CheckpointError(f"{reference!r} cannot be read; wandb://entity/project/name:alias is expected.")
    entity, project, name, alias = match.groups()
    from wandb.env import get_cache_dir

    folder = get_cache_dir() / CACHE_FOLDER / entity / project / name
    # A version never changes; any other alias may have moved to a new one.
    if re.fullmatch(r"v\d+", alias) and (found := _checkpoint_in(folder / alias)):
        return found
    artifact = _find_artifact(reference)
    target = folder / str(artifact.version)
    return _checkpoint_in(target) or _download(artifact, target, reference)


def _checkpoint_in(folder: Path) -> Path | None:
    files = sorted(folder.glob("**/*.ckpt"))
    return files[0] if files else None


def _find_artifact(reference: str) -> "Artifact":
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False):  # type: ignore[attr-defined, unused-ignore]
            raise CheckpointError(
                f"{reference}: not logged in to Weights & Biases. Run `wandb login`, or set WANDB_API_KEY."
            )
        artifact: Artifact = wandb.Api(timeout=API_TIMEOUT_S).artifact(reference.removeprefix(WANDB_SCHEME))
        return artifact
    except CheckpointError:
        raise
    except Exception as error:
        # Errors of many classes: unexpected answers raise errors that are not the client's own.
        raise CheckpointError(
            f"{reference} cannot be fetched: {first_line(error)}. Check entity, project, name and alias (they are on "
            "the artifact's page), and that this machine can reach the server."
        ) from error


def _download(artifact: "Artifact", target: Path, reference: str) -> Path:
    """Download beside the target and rename, so that a partial checkpoint never exists."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as folder:
            with _limiting_waits():
                artifact.download(root=folder, skip_cache=True)
            if _checkpoint_in(Path(folder)) is None:
                raise CheckpointError(f"{reference} contains no .ckpt file; the artifact of a checkpoint is expected.")
            try:
                os.rename(folder, target)
            except OSError:
                if _checkpoint_in(target) is None:  # otherwise another process has just downloaded it
                    raise
            else:
                Path(folder).mkdir()  # so that TemporaryDirectory has something to remove
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{reference} cannot be downloaded to {target}: {first_line(error)}.") from error
    path = _checkpoint_in(target)
    assert path is not None
    logger.info("%s is %s", reference, path)
    return path


@contextmanager
def _limiting_waits() -> Iterator[None]:
    """Limit how long a download waits for the next bytes, and how often it is retried: the client waits for hours."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_in_time(self: HTTPAdapter, request: Any, **options: Any) -> Any:
        self.max_retries = self.max_retries.new(total=N_RETRIES, connect=1, read=1)
        return send(self, request, **{**options, "timeout": options.get("timeout") or API_TIMEOUT_S})

    HTTPAdapter.send = send_in_time  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]
