"""The words of a command line: their order of precedence, and values as Python writes them."""

import ast
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ENVIRONMENT_PREFIX", "environment", "order_arguments"]

ENVIRONMENT_PREFIX = "KPD"
# Options of the trainer where 16.0 can only mean 16. Elsewhere the two differ: limit_val_batches takes 1.0 for all
# batches and 1 for one, and the version of a logger is a text.
WHOLE_TRAINER_NUMBERS = tuple(
    f"--trainer.{name}"
    for name in ("max_epochs", "min_epochs", "max_steps", "min_steps", "accumulate_grad_batches", "log_every_n_steps")
)


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


def environment() -> Mapping[str, str]:
    """The environment that settings are read from."""
    return os.environ
