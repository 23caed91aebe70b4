"""What users see of the log: the package's own messages, and those of Lightning that concern this run."""

import logging
import re
import warnings

from keypoint_detection.printing import make_handler
from keypoint_detection.ranks import find_rank


def show_log() -> None:
    """Show the package's log on the terminal, unless the user has configured logging; once for all processes."""
    package = logging.getLogger("keypoint_detection")
    package.setLevel(logging.INFO)
    if find_rank():
        for name in (package.name, "lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
    if not package.hasHandlers():
        package.addHandler(make_handler())


def silence_advice() -> None:
    """Hide warnings that users can do nothing about."""
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # The normalisation layers of a frozen encoder are meant to be in eval mode.
        r".*Found \d+ module\(s\) in eval mode at the start of training.*",
        # The order of the images follows from the seed and the epoch, and a resumed epoch continues in it.
        ".*your dataloader is not resumable.*",
        # `SavedRun` finds the checkpoints of a moved run.
        ".*The dirpath has changed from.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
        # The metrics already cover all processes.
        ".*It is recommended to use `self.log.*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_concerns_this_run)
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").addFilter(_explain_end_of_process)


def _concerns_this_run(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning's is about this run, rather than an advertisement or a list of absent hardware."""
    return not re.search(r"litlogger|available: False|Loading `\w+` to estimate", record.getMessage())


def _explain_end_of_process(record: logging.LogRecord) -> bool:
    """Reword Lightning's message before it ends all processes because one has ended."""
    if match := re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage()):
        record.args = ()
        record.msg = (
            f"Process {match[1]} of this command ended with code {match[2]}, so the others are stopped too. If it left "
            "no message above, it was killed, most likely by the system because memory ran out."
        )
    return True
