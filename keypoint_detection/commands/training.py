"""The commands `kpd fit`, `validate`, `test` and `predict`: how they run and how they end."""

import errno
import traceback
from collections.abc import Sequence
from typing import NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from keypoint_detection.checkpoints.files import CheckpointError
from keypoint_detection.checkpoints.writing import CheckpointWriteError
from keypoint_detection.codec.heatmaps import NotFiniteError
from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.commands.training_log import show_log, silence_advice
from keypoint_detection.images import ImageError
from keypoint_detection.parsing.exit_codes import FAILURE, USAGE_ERROR
from keypoint_detection.parsing.failures import is_debugging, message_of
from keypoint_detection.printing import complain
from keypoint_detection.ranks import find_rank
from keypoint_detection.tracking.account import finish_wandb
from keypoint_detection.training.graceful_stop import GracefulStop
from keypoint_detection.training.health import TrainingDivergedError
from keypoint_detection.types import DataError

# The system's errors for a file that cannot be written: no space, over quota, read-only.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def run(words: Sequence[str], cli_class: type[DetectorCLI] = DetectorCLI) -> DetectorCLI:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        words: the command and its arguments.
        cli_class: the class of the command line to run.

    Raises:
        SystemExit: help was requested (0), the arguments, data or checkpoint are wrong (2), training diverged or its
            checkpoint cannot be written (1), or a signal ended it (128 plus its number; 0 in a sweep).
    """
    show_log()
    silence_advice()
    stop = GracefulStop()
    try:
        cli = cli_class(words, stop)
    except (DataError, ImageError) as error:
        _leave(words, message_of(error), error)
    except (MisconfigurationException, CheckpointError) as error:
        _leave(words, str(error), error)
    except (TrainingDivergedError, NotFiniteError, CheckpointWriteError) as error:
        # All processes detect the divergence together.
        if find_rank() == 0 or not isinstance(error, TrainingDivergedError):
            complain(f"kpd {words[0]}: {error}\n")
        finish_wandb(exit_code=1)
        raise SystemExit(1) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        complain(f"kpd {words[0]}: {error.filename or 'a file'} cannot be written: {error.strerror}.\n")
        finish_wandb(exit_code=1)
        raise SystemExit(1) from error
    except (SIGTERMException, RuntimeError) as error:
        # A signal to the whole group also ended the processes that read images, which is an error for their consumer.
        if stop.signal_number is None and not isinstance(error, SIGTERMException):
            finish_wandb(exit_code=FAILURE)
            raise
        finish_wandb(stop.exit_code)
        raise SystemExit(stop.exit_code) from error
    except Exception:
        finish_wandb(exit_code=FAILURE)
        raise
    finally:
        stop.say_how_to_resume()
    finish_wandb(stop.exit_code)
    if stop.exit_code:
        raise SystemExit(stop.exit_code)
    return cli


def _leave(words: Sequence[str], message: str, error: Exception) -> NoReturn:
    """Exit with what is wrong with the user's data or settings."""
    if is_debugging():
        traceback.print_exception(error)
    complain(f"kpd {words[0]}: error: {message}\n")
    finish_wandb(exit_code=USAGE_ERROR)
    raise SystemExit(USAGE_ERROR) from error
