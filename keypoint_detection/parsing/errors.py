"""Short errors that name the fix, instead of argparse's page of usage."""

import difflib
import inspect
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from keypoint_detection.parsing.arguments import SIMILARITY
from keypoint_detection.parsing.exit_codes import USAGE_ERROR
from keypoint_detection.parsing.failures import find_own_place, is_debugging
from keypoint_detection.parsing.help import ShortHelp
from keypoint_detection.parsing.internals import SkipsEmptySections, guard_values, list_class_names, list_option_strings
from keypoint_detection.parsing.wording import reword
from keypoint_detection.printing import complain

N_OFFERED = 3
# More names than this are listed only if none of them is similar.
N_SHOWN = 12
# Advice on messages that only say what is wrong.
ADVICE = (
    (
        r"No module named '",
        "Your own modules are searched for in the folder where the command runs, and in those of PYTHONPATH. If the "
        "checkpoint names a module that has since been renamed, add a file with the old name that contains `from NEW "
        "import *`.",
    ),
    (
        r"Multiple subclasses with name ReduceLROnPlateau",
        "Write lightning.pytorch.cli.ReduceLROnPlateau, and its monitor, the metric that it watches, e.g. val/loss.",
    ),
    (
        r"invalid literal for int\(\) with base 10: '[-\d.]+'",
        "For whole numbers in a sweep, use `distribution: int_uniform`.",
    ),
    (
        r"[Uu]nrecognized arguments: --resume",
        "A run is resumed from its last checkpoint: --ckpt_path=runs/…/checkpoints/last.ckpt.",
    ),
    (
        r'key "model\.channels"',
        "Give a mapping like {corner: [corner0, corner1], flap: [flap0]}, or a list of keypoint types.",
    ),
    (
        r'key "data\.flip_pairs"',
        "Give pairs of types that swap, e.g. [[left_ear, right_ear], [left_eye, right_eye]], or [] if none do.",
    ),
    (r'key "data\.image_size"', "Give height and width, e.g. --data.image_size='[256, 256]'."),
    (
        r'key "trainer\.precision"',
        "bf16-mixed and 16-mixed halve the time on hardware that supports them; 32-true is exact.",
    ),
    (
        r"No supported gpu backend|the accelerator is not available|not available on this machine",
        "Leave --trainer.accelerator and --trainer.devices out to train on the available hardware. If this machine "
        "has a GPU, torch does not see it: install the build of torch for it, see https://pytorch.org/get-started.",
    ),
    (r"invalid strategy name", "With several GPUs or processes, ddp is the usual one; with one, leave it out."),
)


# The options that files with these suffixes are most often meant for, the first that a command has.
OPTIONS_OF_FILES = {
    ".json": ("data.train", "data.test", "data.val"),
    ".yaml": ("config",),
    ".yml": ("config",),
    ".ckpt": ("ckpt_path",),
}
# The options of the commands that do not train.
OWN_OPTIONS = {"predict": "data.predict", "test": "data.test", "validate": "data.val"}

# YAML values that people write as names, and what to do about them.
NOT_TEXT = r"-?[\d.]+|True|False|None"
QUOTES = "Names that look like numbers, or like yes and no, need quotes: ['1', '2'] in YAML."
# The beginning of jsonargparse's message about missing arguments of a class.
LACKING = "the following arguments are required: "


class ShortErrors(SkipsEmptySections):
    """Report a mistake in a few lines, without the sixty lines of usage that argparse prints first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        guard_values()
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", ShortHelp)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and how to fix it, and exit with code 2.

        Raises:
            ArgumentError: this parser parses the arguments of a class; the enclosing parser reports the error in full.
        """
        if not self.exit_on_error:
            raise ArgumentError(None, message) from ex
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        # argparse calls the module file by its name when started with `python -m`.
        command = re.sub(r"^(__main__\.py|pytest|\S*pytest\S*)\b", "kpd", command)
        own = find_own_place(ex) if ex is not None else None
        hint = _hint(message, parser) if own is None else f"  in your own code: {own}\n"
        if ex is not None and is_debugging():
            traceback.print_exception(ex)
        complain(f"{command}: error: {_shorten(message)}\n{hint}Run `{command} --help` for all options.\n")
        self.exit(USAGE_ERROR)
        raise AssertionError  # `exit` does not return


class Parser(ShortErrors):
    """The parser of the commands that do not involve Lightning."""


def _shorten(message: str) -> str:
    """Remove the unhelpful names of types from jsonargparse's messages."""
    kind = r"Type (?:typing|collections\.abc)\.Callable\[.*?\] expects a function or a callable class: "
    message = re.sub(kind, "", message, flags=re.S)
    message = re.sub(r"\s*Got value: Namespace\(.*\)", "", message, flags=re.S)
    message = re.sub(r"(?<=has no attribute )('\w+')\. Got value: \S+", r"\1", message)
    # A class that could not be created: keep its own message, without the other types that its option accepts.
    if match := re.match(
        r"Does not validate against any.*?Problem with given class_path '([\w.]+)':\s*(.*?)\n  - ", message, re.S
    ):
        package = re.search(r"Requirement '([^']+)' not met", match[2])
        reason = f"needs a package that is not installed: pip install '{package[1]}'" if package else match[2]
        message = f"{match[1]} {reason}" if package else f"{match[1]}: {reason}"
    message = re.sub(r'^Parser key "config": File does not exist: ', "--config: there is no file ", message)
    message = message.replace("Expected a dot import path string:", "there is no class called")
    message = re.sub(
        r"Expected '([\w.]+)' to be a subclass of <class '([\w.]+)'>\.*", r"\1 is not a subclass of \2", message
    )
    # Where words are an alternative to a class, drop them from the message about a class that lacks arguments.
    return re.sub(rf"expected one of [^\n]*\n\s*- ({LACKING})", r"\1", reword(message)).strip()


def _hint(message: str, parser: ArgumentParser) -> str:
    """Suggest the nearest existing name or file, on a separate line."""
    said = _shorten(message)
    if re.search(rf"expected [^;]*\ba string\b[^;]*; found ({NOT_TEXT})$", said, re.MULTILINE):
        return f"{QUOTES}\n"
    for pattern, advice in ADVICE:
        if re.search(pattern, message):
            return f"{advice}\n"
    if match := re.search(r"expected one of (.+); found (\S+)$", said, re.MULTILINE):
        choices = match[1].split(", ")
        return _offer(match[2], choices) or _offer_short(match[2], choices)
    if match := re.search(r"File does not exist: '(.+)'", message):
        missing = Path(match[1])
        near = [path.name for path in missing.parent.iterdir()] if missing.parent.is_dir() else []
        return _offer(missing.name, near) or ("" if near else f"There is no folder {missing.parent}.\n")
    if (match := re.search(r"Path is not a file: '(.+)'", message)) and (folder := Path(match[1])).is_dir():
        inside = sorted(map(str, [*folder.glob("*.yaml"), *folder.glob("*.yml")]))[:N_OFFERED]
        is_config = re.search(r"\bconfig\b", message.split(":")[0])
        return f"{folder} is a folder." + f" Did you mean {' or '.join(inside)}?" * bool(is_config and inside) + "\n"
    if match := re.match(rf"([\w.]+): {LACKING}(\w+)", said):
        return f"Give them after the class, e.g. --{match[1]}.{match[2]}=VALUE.\n"
    if match := re.search(r"[Uu]nrecognized arguments: ([^-\s]\S*)", message):
        return _offer_option(match[1], parser)
    if match := re.search(r"[Uu]nrecognized arguments: (--[\w.+-]+)", message):
        return _offer(match[1], list_option_strings(parser))
    if match := re.search(r"Option '([\w.]+)' is not accepted", message):
        class_path = re.search(r"class_path='([\w.]+)'", message)
        if class_path:
            return _offer(match[1], _parameters(class_path[1]), show_all=True)
        return _offer(match[1], [option.lstrip("-") for option in list_option_strings(parser)])
    if match := re.search(r'key "([\w.]+)":.*(?:dot import path string: |has no attribute )(\S+)', message, flags=re.S):
        name = match[2].strip("'.").rpartition(".")[2]
        return _offer(name, list_class_names(parser, match[1]), show_all=True)
    return ""


def _offer(name: str, known: Iterable[str], show_all: bool = False) -> str:
    known = sorted(set(known))
    nearest = difflib.get_close_matches(name, known, n=N_OFFERED, cutoff=SIMILARITY)
    text = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    if show_all and known and (not nearest or len(known) <= N_SHOWN):
        text += f"There are: {', '.join(known)}."
    return f"{text.strip()}\n" if text else ""


def _offer_option(word: str, parser: ArgumentParser) -> str:
    """Suggest the option that a word without one is the value of."""
    suffix, command = Path(word).suffix.lower(), parser.prog.replace(" [options]", "").rpartition(" ")[2]
    if command == "check" and suffix == ".json":
        return f"Only one file stands alone; give both parts of a data set as --data.train=FILE --data.val={word}.\n"
    names = OPTIONS_OF_FILES.get(suffix, ())
    if command in OWN_OPTIONS and suffix not in (".yaml", ".yml", ".ckpt"):
        names = (OWN_OPTIONS[command],)
    found = next((f"--{name}" for name in names if f"--{name}" in list_option_strings(parser)), None)
    hint = "Options are written --name=value; the `command` of a sweep passes them as ${args}."
    return f"Did you mean {found}={word}?\n" if found else f"{hint}\n"


def _offer_short(name: str, known: Iterable[str]) -> str:
    """Suggest the full form of an abbreviated name, such as deeplabcut for dlc."""
    letters = ".*".join(map(re.escape, name.lower()))
    nearest = [one for one in known if re.match(letters, one)]
    return f"Did you mean {' or '.join(nearest[:N_OFFERED])}?\n" if nearest else ""


def _parameters(class_path: str) -> list[str]:
    """Return the parameters of a class that the parser has already imported."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    return [parameter for parameter in inspect.signature(cls).parameters if parameter != "self"] if cls else []
