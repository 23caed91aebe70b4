"""Argument parsing on top of jsonargparse: errors of a few lines that name the way out, and the order of precedence."""

import ast
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

__all__ = ["ENVIRONMENT_PREFIX", "DetectorParser", "Parser", "order_arguments"]

ENVIRONMENT_PREFIX = "KPD"
USAGE_ERROR = 2
# How alike two names must be, from 0 to 1, for the one to be offered in place of the other.
SIMILARITY = 0.6
N_OFFERED = 3
# Options of the trainer where 16.0 can only mean 16. Elsewhere the two differ: limit_val_batches takes 1.0 for all
# batches and 1 for one, and the version of a logger is a text.
WHOLE_TRAINER_NUMBERS = tuple(
    f"--trainer.{name}"
    for name in ("max_epochs", "min_epochs", "max_steps", "min_steps", "accumulate_grad_batches", "log_every_n_steps")
)
# What to do about messages that say only what is wrong.
ADVICE = (
    (
        r"invalid literal for int\(\) with base 10: '[-\d.]+'",
        "A whole number is expected. A sweep draws whole numbers with `distribution: int_uniform`.",
    ),
    (
        r"[Uu]nrecognized arguments: [^-\s]",
        "Options are written --name=value; the `command` of a sweep passes them as ${args}.",
    ),
    (
        r'key "model\.channels"',
        "Give a mapping like {corner: [corner0, corner1], flap: [flap0]}, or a list of keypoint types.",
    ),
)


class _ShortErrors(ArgumentParser):
    """Answer a mistake in a few lines, without the sixty lines of usage that argparse prints first."""

    # The classes that short names stand for; a subclass may register more.
    short_names: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and how to go on, and leave with exit code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        # argparse calls the module file by its name when started with `python -m`.
        command = re.sub(r"^(__main__\.py|pytest|\S*pytest\S*)\b", "kpd", command)
        hint = _hint(message, parser, self.short_names)
        sys.stderr.write(f"{command}: error: {_shorten(message)}\n{hint}Run `{command} --help` for all options.\n")
        self.exit(USAGE_ERROR)
        raise AssertionError  # `exit` does not return


class Parser(_ShortErrors):
    """The parser of the commands that Lightning has no part in."""


class DetectorParser(_ShortErrors, LightningArgumentParser):
    """The parser of `fit`, `validate` and `test`."""


def order_arguments(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Order the words after a command so that later ones win: config files, environment variables, flags.

    A variable `KPD_FIT__MODEL__LR=0.001` counts as the flag `--model.lr=0.001` of `kpd fit`. Values of flags may be
    written as Python writes them, which is what a Weights & Biases agent does: `None`, `16.0`, `{'a': [1, None]}`.

    Args:
        words: the command and what follows it, as typed.
        environment: the variables; those of other commands are passed over.

    >>> order_arguments(["fit", "--model.lr=1", "-c", "a.yaml"], {"KPD_FIT__MODEL__LR": "2"})
    ['fit', '-c', 'a.yaml', '--model.lr=2', '--model.lr=1']
    """
    command, rest = words[0], list(words[1:])
    configs, flags = [], []
    while rest:
        word = rest.pop(0)
        if word in ("-c", "--config"):
            configs += [word, *rest[:1]]
            rest = rest[1:]
        elif word.startswith("--config="):
            configs.append(word)
        else:
            flags.append(word)
    prefix = f"{ENVIRONMENT_PREFIX}_{command}__".upper()
    from_environment = [
        f"--{name[len(prefix) :].lower().replace('__', '.')}={value}"
        for name, value in sorted(environment.items())
        if name.startswith(prefix)
    ]
    return [command, *configs, *from_environment, *_classes_first([_read_python_value(flag) for flag in flags])]


def _read_python_value(flag: str) -> str:
    """Rewrite a flag's value from Python's notation to that of config files, where the two differ.

    >>> _read_python_value("--data.batch_size=16.0"), _read_python_value("--data.num_workers=None")
    ('--data.batch_size=16', '--data.num_workers=null')
    """
    name, equals, value = flag.partition("=")
    if not (name.startswith("--") and equals):
        return flag
    if value == "None":
        return f"{name}=null"
    is_exact = name.split(".")[0] == "--trainer" and name not in WHOLE_TRAINER_NUMBERS
    if value[:1] in ("[", "{"):
        try:
            content = ast.literal_eval(value)
            return f"{name}={json.dumps(content if is_exact else _with_whole_numbers(content))}"
        except (ValueError, SyntaxError, TypeError):
            return flag  # not Python's notation: YAML or JSON, or the parser says what is wrong with it
    if re.fullmatch(r"[+-]?\d+\.0", value) and not is_exact:
        return f"{name}={value.removesuffix('.0')}"
    return flag


def _with_whole_numbers(value: Any) -> Any:
    """Turn floats without a fraction into integers, which every option that takes floats takes too."""
    if isinstance(value, dict):
        return {key: _with_whole_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classes_first(flags: list[str]) -> list[str]:
    """Move a flag that chooses a class before the flags of its parameters, whatever their order was.

    >>> _classes_first(["--model.backbone.n_channels=8", "--model.lr=1", "--model.backbone=Unet"])
    ['--model.backbone=Unet', '--model.backbone.n_channels=8', '--model.lr=1']
    """
    ordered: list[str] = []
    for flag in flags:
        name, equals, _ = flag.partition("=")
        of_class = [index for index, other in enumerate(ordered) if equals and other.startswith(f"{name}.")]
        ordered.insert(of_class[0] if of_class else len(ordered), flag)
    return ordered


def _shorten(message: str) -> str:
    """Leave out of jsonargparse's messages what names types instead of saying what to do."""
    message = re.sub(r"Type typing\.Callable\[.*?\] expects a function or a callable class: ", "", message, flags=re.S)
    message = re.sub(r"\s*Got value: Namespace\(.*\)", "", message, flags=re.S)
    message = message.replace("Expected a dot import path string:", "there is no class called")
    return message.strip()


def _hint(message: str, parser: ArgumentParser, short_names: Mapping[str, Sequence[str]]) -> str:
    """Name the nearest thing that exists, as a line of its own."""
    for pattern, advice in ADVICE:
        if re.search(pattern, message):
            return f"{advice}\n"
    if match := re.search(r"[Uu]nrecognized arguments: (--[\w.+-]+)", message):
        return _offer(match[1], _option_strings(parser))
    if match := re.search(r"Option '([\w.]+)' is not accepted", message):
        class_path = re.search(r"class_path='([\w.]+)'", message)
        if class_path:
            return _offer(match[1], _parameters(class_path[1]), show_all=True)
        return _offer(match[1], [option.lstrip("-") for option in _option_strings(parser)])
    if match := re.search(r'key "(?:[\w]+\.)*?([\w.]+)":.*dot import path string: (\S+)', message, flags=re.S):
        key = match[1].split(".")[-1]
        known = short_names.get(key, [])
        return _offer(match[2], known, show_all=True) if known else ""
    return ""


def _offer(name: str, known: Iterable[str], show_all: bool = False) -> str:
    known = sorted(set(known))
    nearest = difflib.get_close_matches(name, known, n=N_OFFERED, cutoff=SIMILARITY)
    text = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    if show_all and known:
        text += f"There are: {', '.join(known)}."
    return f"{text.strip()}\n" if text else ""


def _option_strings(parser: ArgumentParser) -> list[str]:
    """Every option of a parser and of its commands."""
    options = [option for option in parser._option_string_actions if option.startswith("--")]
    subcommands = getattr(parser, "_subcommands_action", None)
    if subcommands is not None:
        for child in subcommands._name_parser_map.values():
            options += _option_strings(child)
    return options


def _parameters(class_path: str) -> list[str]:
    """The parameters of a class that the parser has imported already."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    return [parameter for parameter in inspect.signature(cls).parameters if parameter != "self"] if cls else []


def environment() -> Mapping[str, str]:
    """The environment that settings are read from."""
    return os.environ
