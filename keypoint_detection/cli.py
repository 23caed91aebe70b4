"""The `kpd` command: it answers immediately where it can; everything else loads torch and Lightning first."""

import gc
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from keypoint_detection import __version__
from keypoint_detection.checkpoints.trust import TRUST_OPTION, trusting
from keypoint_detection.parsing.exit_codes import FAILURE, SIGNAL_EXIT_BASE, USAGE_ERROR
from keypoint_detection.printing import complain
from keypoint_detection.ranks import end_with_parent, find_rank

if TYPE_CHECKING:
    from keypoint_detection.commands.detector_cli import DetectorCLI


class Command(NamedTuple):
    """A command of `kpd`.

    Attributes:
        module: its name in `keypoint_detection.commands`; its `run` gets the command and the arguments after it.
        help: one line for the overview.
    """

    module: str
    help: str


COMMANDS = {
    "init": Command("init", "write a config for your own labels, or for the first example"),
    "fit": Command("training", "train a detector, validating as it goes"),
    "validate": Command("training", "measure a checkpoint on the validation images"),
    "test": Command("training", "measure a checkpoint on a test file"),
    "predict": Command("training", "find keypoints in images, folders and videos"),
    "check": Command("check", "find what is wrong with a data set before training on it"),
    "export": Command("export", "export a detector as one file that takes images and returns points"),
    "summarize": Command("summarize", "compare runs, pool the folds of a cross-validation, or draw a learning curve"),
    "suggest": Command("suggest", "choose the images to label next"),
    "view": Command("view", "look at labels and predictions side by side in FiftyOne"),
    "convert": Command("convert", "convert DeepLabCut, SLEAP, Label Studio, CVAT and YOLO labels to COCO and back"),
    "synthesize": Command("synthesize", "draw a data set of cardboard boxes with labelled corners"),
}

# The names that other programs use for these commands.
SYNONYMS = {
    **dict.fromkeys(("train", "training", "finetune", "fine-tune", "learn", "resume"), "fit"),
    **dict.fromkeys(("val", "valid", "validation", "calibrate"), "validate"),
    **dict.fromkeys(("eval", "evaluate", "evaluation", "measure", "benchmark", "score"), "test"),
    **dict.fromkeys(("inference", "infer", "detect", "detection", "run", "track", "predictions"), "predict"),
    **dict.fromkeys(("visualize", "visualise", "show", "browse"), "view"),
    **dict.fromkeys(("label", "select", "active-learning"), "suggest"),
    **dict.fromkeys(("verify", "audit", "inspect", "analyze", "analyse"), "check"),
    **dict.fromkeys(("create", "new", "start", "config", "quickstart"), "init"),
    **dict.fromkeys(("import",), "convert"),
    **dict.fromkeys(("onnx", "deploy"), "export"),
    **dict.fromkeys(("summary", "summarise", "compare"), "summarize"),
    **dict.fromkeys(("synthesise", "generate", "draw"), "synthesize"),
}

OVERVIEW = """\
kpd trains, evaluates and deploys keypoint detectors.

First steps:
  kpd init --quickstart && kpd fit --config quickstart.yaml
                                       draw a small data set, train on it, show the result
  kpd init train.json                  write base.yaml, a config for your own COCO keypoint file
  kpd check --config base.yaml         find what is wrong with the file and its images
  kpd fit --config base.yaml           train a detector
  kpd test --ckpt_path=runs/…/checkpoints/best.ckpt --data.test=test.json

Commands:
{commands}

Help:
  kpd COMMAND --help                   every option with its unit and meaning
  kpd fit --model.backbone.help Unet   the options of one backbone
  kpd fit --print_config               every option with its value, as a config file
  kpd --version

Your own code:
  kpd COMMAND --trust=my_module        let a checkpoint, or the config of the run that it resumes, use classes of this
                                       module, e.g. your own backbone; repeat it for more modules
"""

# Options in glibc's malloc.h: how many blocks may be requested from the system individually, and how much free memory
# at the end of the heap triggers its return to the system.
MALLOC_MMAP_MAX = -4
MALLOC_TRIM_THRESHOLD = -1


def run(args: Sequence[str] | None = None) -> "DetectorCLI | None":
    """Run a command as the console script does.

    Args:
        args: the arguments after `kpd`; by default, those of the process.

    Returns:
        For training and measuring commands, their trainer, model, data module and config; None for the others.

    Raises:
        SystemExit: help was requested (0), or the arguments or the data are wrong (2).
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = (f"  {name:{width}}{command.help}" for name, command in COMMANDS.items())
        sys.stdout.write(OVERVIEW.format(commands="\n".join(lines)))
        return None
    if words[0] == "--version":
        sys.stdout.write(f"kpd {__version__}\n")
        return None
    if words[0] not in COMMANDS:
        _refuse_command(words[0])
    if find_rank():
        end_with_parent()
    _check_working_folder(words[0])
    _keep_freed_memory()
    # A few large pages are cleared faster than many small ones. Torch reads this at its first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # jsonargparse 5 will rename what Lightning calls; users can do nothing about the warning.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    words, modules = _split_trust(words)
    module = _import_command(f"keypoint_detection.commands.{COMMANDS[words[0]].module}")
    try:
        with trusting(modules):
            cli: DetectorCLI | None = module.run(words)
    except RecursionError as error:
        # Files that are nested too deeply have been refused by name; the rest are option values.
        sys.stderr.write(f"kpd {words[0]}: error: a value is nested too deeply, in an option or in a file.\n")
        raise SystemExit(USAGE_ERROR) from error
    return cli


def main() -> None:
    """Run the console script: whatever happens, the user sees a few lines, with no traceback unless KPD_DEBUG is 1.

    Raises:
        SystemExit: as `run`; or something failed unexpectedly (1), or Ctrl-C (130) or a closed pipe (141) ended it.
    """
    try:
        run()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        sys.stderr.write("\nkpd: stopped by Ctrl-C.\n")
        raise SystemExit(SIGNAL_EXIT_BASE + signal.SIGINT) from error
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_lost_stdout():
            raise SystemExit(SIGNAL_EXIT_BASE + signal.SIGPIPE) from error
        from keypoint_detection.parsing.failures import describe_failure, is_debugging, is_of_another_process

        if is_debugging():
            raise
        if find_rank() and is_of_another_process(error):
            raise SystemExit(FAILURE) from error  # the first process reports it
        complain(describe_failure(error, sys.argv[1:]))
        raise SystemExit(FAILURE) from error


def _has_lost_stdout() -> bool:
    """Whether the reader of the output is gone, as with `kpd check … | head`; the rest is then dropped."""
    descriptor = sys.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, 0)
    is_lost = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if is_lost:
        # Python would complain when it flushes the output again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return is_lost


def _import_command(name: str) -> ModuleType:
    """Import a module and all its dependencies without garbage collection, which takes a sixth of the start-up."""
    if name not in sys.modules and gc.isenabled():
        gc.disable()
        try:
            importlib.import_module(name)
            gc.freeze()
        finally:
            gc.enable()
    return importlib.import_module(name)


def _check_working_folder(command: str) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        complain(f"kpd {command}: error: the working folder has been deleted; change to another one.\n")
        raise SystemExit(USAGE_ERROR) from None


def _keep_freed_memory() -> None:
    """Make glibc, where it is the C library, reuse freed memory instead of returning it to the system.

    A training step on a CPU allocates and frees gigabytes, which the system would otherwise have to clear every time,
    taking a quarter of the step. `tests/benchmarks/test_training_step.py` measures it.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MALLOC_MMAP_MAX, 0)
        mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def _split_trust(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--trust=MODULE`, which every command accepts, out of the arguments of a command.

    >>> _split_trust(["predict", "--trust=mine", "--ckpt_path=a.ckpt"])
    (['predict', '--ckpt_path=a.ckpt'], ['mine'])
    """
    others, modules = [], []
    for word in words:
        option, _, module = word.partition("=")
        if option != TRUST_OPTION:
            others.append(word)
        elif all(part.isidentifier() for part in module.split(".")):
            modules.append(module)
        else:
            _leave(f"{word!r} does not name a module; {TRUST_OPTION}=my_module is expected, once for each module.")
    return others, modules


def _refuse_command(word: str) -> None:
    import difflib

    name = word.lower()
    nearest = [SYNONYMS[name]] if name in SYNONYMS else difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean `kpd {nearest[0]}`?" if nearest else ""
    _leave(f"{word!r} is not a command; the commands are {', '.join(COMMANDS)}.{hint}")


def _leave(message: str) -> NoReturn:
    sys.stderr.write(f"kpd: error: {message}\n")
    raise SystemExit(USAGE_ERROR)
