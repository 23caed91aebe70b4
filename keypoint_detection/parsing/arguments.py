"""Command-line arguments before parsing: values in Python's notation, classes, pipes and environment variables."""

import ast
import contextlib
import difflib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from keypoint_detection.documents import parse_yaml

ENVIRONMENT_PREFIX = "KPD"
CONFIG_OPTIONS = ("-c", "--config")
CONFIG_PREFIX = "--config="
# How similar two names must be, from 0 to 1, for one to be suggested in place of the other.
SIMILARITY = 0.6
# The options whose values can name classes.
CLASS_OPTIONS = r"(model(?!\.init_from)|trainer|data\.(augmentation|synthetic))\b"
# Trainer options where 16.0 can only mean 16. Elsewhere the two differ: for limit_val_batches, 1.0 means all batches
# and 1 means one; and the version of a logger is a string.
WHOLE_TRAINER_NUMBERS = tuple(
    f"--trainer.{name}"
    for name in ("max_epochs", "min_epochs", "max_steps", "min_steps", "accumulate_grad_batches", "log_every_n_steps")
)


# What a COCO file has, and a config has not.
LABEL_KEYS = {"images", "annotations"}
# The tag of an empty value in YAML.
NULL_TAG = "tag:yaml.org,2002:null"


class ConfigWord(NamedTuple):
    """A word on the command line that names a config.

    Attributes:
        prefix: the beginning of the word: `--config=`, or nothing if the option is the word before it.
        source: the rest: the path of a YAML file, or the text of one, which has several lines.
    """

    prefix: str
    source: str

    @property
    def is_text(self) -> bool:
        """Whether the config came from a pipe; its text could be too long to look up as a path."""
        return "\n" in self.source

    def read(self) -> Any:
        """Return the content of the config.

        Raises:
            OSError: there is no such file, or it cannot be read.
            UnicodeDecodeError: the file is not text.
            ValueError: it is not YAML, or unreasonably large.
        """
        return parse_yaml(self.read_text())

    def read_text(self) -> str:
        """Return the text of the config; raises the same errors about the file as `read`."""
        return self.source if self.is_text else Path(self.source).read_text(encoding="utf-8-sig")


def find_configs(words: Sequence[str]) -> dict[int, ConfigWord]:
    """Return the configs that words name, by position.

    >>> find_configs(["--config=a.yaml", "--model.lr=1", "-c", "b.yaml"])
    {0: ConfigWord(prefix='--config=', source='a.yaml'), 3: ConfigWord(prefix='', source='b.yaml')}
    """
    configs = {}
    for position, word in enumerate(words):
        if position > 0 and words[position - 1] in CONFIG_OPTIONS:
            configs[position] = ConfigWord("", word)
        elif word.startswith(CONFIG_PREFIX):
            configs[position] = ConfigWord(CONFIG_PREFIX, word.removeprefix(CONFIG_PREFIX))
    return configs


def prepare_words(words: Sequence[str]) -> list[str]:
    """Rewrite the words after a command for the parser, in the given order.

    Values can be in Python's notation, which a Weights & Biases agent uses: `None`, `16.0`, `{'a': [1, None]}`. A flag
    that chooses a class is moved before those of its parameters. A config from a pipe, as in `--config <(kpd fit
    --print_config)`, can be read only once, so it is replaced by its text.

    >>> prepare_words(["--model.backbone.n_channels=16.0", "--model.backbone=Unet"])
    ['--model.backbone=Unet', '--model.backbone.n_channels=16']
    """
    configs = find_configs(words)
    prepared = [
        config.prefix + _read_pipe(config) if (config := configs.get(position)) else _read_python_value(word)
        for position, word in enumerate(words)
    ]
    return _classes_first(prepared)


def gives_config(words: Sequence[str]) -> bool:
    """Whether words name a config file."""
    return bool(find_configs(words))


def refuse_broken_configs(words: Sequence[str]) -> None:
    """Refuse config files that are not YAML (the parser's error lacks their name), and sections without settings.

    Raises:
        ValueError: with file, line, column and problem.
    """
    for config in find_configs(words).values():
        try:
            content = config.read()
        except (OSError, UnicodeDecodeError):
            continue  # the parser reports what is wrong with the file
        except ValueError as error:
            raise ValueError(f"{'the config' if config.is_text else config.source}, {error}.") from error
        refuse_labels(config, content)


def refuse_labels(config: ConfigWord, content: Any) -> None:
    """Refuse a COCO file that is given as a config.

    Raises:
        ValueError: it has images and annotations.
    """
    if isinstance(content, Mapping) and content.keys() >= LABEL_KEYS:
        source = "the config" if config.is_text else config.source
        raise ValueError(
            f"{source} holds labels, not settings. Give it to `kpd check` and `kpd init` without --config, and to "
            "`kpd fit` as --data.train."
        )


def find_unknown_keys(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Find keys in config files that are not options, and sections that are not mappings.

    The parameters of a class are left to the parser.

    Args:
        words: the words of a command, which can name configs.
        options: the options of its parser, e.g. `--model.lr`.

    Returns: One line for each: the file, the line in it, the key, and the nearest existing option or what is expected.
    """
    known = {option.removeprefix("--") for option in options if not option.endswith(".help")}
    problems = []
    for config in find_configs(words).values():
        try:
            config.read()  # refuses content that could exhaust its reader
            root = yaml.compose(config.read_text())
        except (OSError, ValueError):
            continue  # the parser reports what is wrong with the file
        source = "the config" if config.is_text else config.source
        problems += [f"{source}, {wrong}" for wrong in find_wrong_sections(config, root, _sections_of(known))]
        for key, line in _walk_keys(root, "", known):
            near = difflib.get_close_matches(key, _names_of_level(key, known), n=1, cutoff=SIMILARITY)
            hint = f"; did you mean {near[0]}?" if near else "."
            problems.append(f"{source}, line {line}: there is no option {key}{hint}")
    return problems


def find_wrong_sections(config: ConfigWord, root: yaml.Node | None, sections: Collection[str]) -> list[str]:
    """Find sections of a config that are neither mappings, nor empty, nor files with the settings of the section.

    Args:
        config: a config that has been read without an error.
        root: the node of its content.
        sections: the names of the sections, e.g. `data`.

    Returns:
        For each, its line, what is expected and what was found.
    """
    problems = []
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value not in sections or isinstance(value, yaml.MappingNode) or value.tag == NULL_TAG:
            continue
        is_scalar = isinstance(value, yaml.ScalarNode)
        folders = [Path.cwd(), *([] if config.is_text else [Path(config.source).parent])]
        if is_scalar and any((folder / value.value).is_file() for folder in folders):
            continue
        found = f"{value.value!r:.60}" if is_scalar else "a list"
        problems.append(
            f"line {key.start_mark.line + 1}: {key.value} is {found}; expected its options, indented below "
            f"`{key.value}:`, or a file with them."
        )
    return problems


def _sections_of(known: Collection[str]) -> set[str]:
    return {section for section, dot, _ in (name.partition(".") for name in known) if dot}


def _walk_keys(node: yaml.Node | None, prefix: str, known: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield the keys below a node that are neither options nor sections of them, and their lines."""
    for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else ():
        key = f"{prefix}{key_node.value}"
        if any(option.startswith(f"{key}.") for option in known):
            yield from _walk_keys(value_node, f"{key}.", known)
        elif key not in known and key_node.value != "<<":
            yield key, key_node.start_mark.line + 1


def _names_of_level(key: str, known: Collection[str]) -> set[str]:
    """Return the options and sections that a key could be a misspelling of: those at the same depth."""
    depth = key.count(".") + 1
    return {".".join(name.split(".")[:depth]) for name in known}


def find_class_names(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the user's texts that can name classes and functions: in configs, options and variables.

    File names are excluded, since a file can have any name.
    """
    for place, text in find_texts(words, environment):
        if re.match(CLASS_OPTIONS, place) and not os.path.exists(text):
            yield text


def find_texts(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the texts that the user wrote in configs, options and variables, each with its option."""
    for config in find_configs(words).values():
        with contextlib.suppress(OSError, ValueError):  # the parser reports what is wrong with the file
            yield from _walk_texts("", config.read())
    variables = (name for name in environment if name.startswith(f"{ENVIRONMENT_PREFIX}_"))
    options = [(".".join(name.lower().split("__")[1:]), environment[name]) for name in variables]
    for position, word in enumerate(words):
        option, equals, value = word.removeprefix("--").partition("=")
        options.append((option, value if equals else "".join(words[position + 1 : position + 2])))
    for option, value in options:
        yield from _walk_texts(option, _read_value(value) if re.match(CLASS_OPTIONS, option) else value)


def _walk_texts(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _walk_texts(f"{place}.{key}".removeprefix("."), entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _walk_texts(place, entry)
    elif isinstance(value, str):
        yield place, value


def _read_value(value: str) -> Any:
    """Parse a value, or the file that it names with the settings of a class; anything but YAML stays text."""
    try:
        return parse_yaml(Path(value).read_text(encoding="utf-8-sig") if os.path.isfile(value) else value)
    except (OSError, ValueError):
        return value


def find_checkpoint_path(words: Sequence[str]) -> str | None:
    """Return the last `ckpt_path` given by flags or config files."""
    path: str | None = None
    configs = find_configs(words)
    for position, word in enumerate(words):
        if position in configs:
            path = _checkpoint_of_config(configs[position]) or path
        elif word == "--ckpt_path":
            path = words[position + 1] if position + 1 < len(words) else ""
        elif word.startswith("--ckpt_path="):
            path = word.removeprefix("--ckpt_path=")
    return None if path in (None, "null") else path


def _checkpoint_of_config(config: ConfigWord) -> str | None:
    try:
        content = config.read()
    except (OSError, ValueError):
        return None  # the parser reports what is wrong with the file
    value = content.get("ckpt_path") if isinstance(content, dict) else None
    return str(value) if value else None


def variables_as_words(command: str, options: Collection[str], environment: Mapping[str, str]) -> list[str]:
    """Turn the environment variables that the parser does not read itself into words.

    The parser reads `KPD_FIT__MODEL__LR=0.001` itself. It does not know the parameters of classes by name
    (`KPD_FIT__MODEL__BACKBONE__N_CHANNELS=8`), and it would silently ignore mistakes.

    Args:
        command: the command being run; variables for other commands are ignored.
        options: the options that the parser knows, e.g. `--model.lr`.
        environment: the variables. Parts of a name that contain lower-case letters are kept as they are (`__T_max`).

    >>> variables_as_words("fit", ["--model.lr"], {"KPD_FIT__MODEL__LR": "1", "KPD_FIT__MODEL__A__T_max": "9"})
    ['--model.a.T_max=9']
    """
    prefix = f"{ENVIRONMENT_PREFIX}_{command}__".upper()
    words = []
    for variable, value in sorted(environment.items()):
        if variable.startswith(prefix):
            parts = variable[len(prefix) :].split("__")
            option = "--" + ".".join(part.lower() if part.isupper() else part for part in parts)
            if option not in options:
                words.append(f"{option}={value}")
    return words


def _read_pipe(config: ConfigWord) -> str:
    is_pipe = not config.is_text and Path(config.source).is_fifo()
    return Path(config.source).read_text(encoding="utf-8") if is_pipe else config.source


def _read_python_value(flag: str) -> str:
    """Rewrite a flag's value from Python's notation to that of config files, if the two differ.

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
            return flag  # not Python's notation: YAML or JSON, or the parser reports what is wrong with it
    if re.fullmatch(r"[+-]?\d+\.0", value) and not is_exact:
        return f"{name}={value.removesuffix('.0')}"
    return flag


def _with_whole_numbers(value: Any) -> Any:
    """Turn floats without a fractional part into integers, which every option for floats also accepts."""
    if isinstance(value, dict):
        return {key: _with_whole_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classes_first(flags: list[str]) -> list[str]:
    """Move a flag that chooses a class before the flags of its parameters, whatever their order.

    >>> _classes_first(["--model.backbone.n_channels=8", "--model.lr=1", "--model.backbone=Unet"])
    ['--model.backbone=Unet', '--model.backbone.n_channels=8', '--model.lr=1']
    """
    ordered: list[str] = []
    for flag in flags:
        name, equals, _ = flag.partition("=")
        of_class = [index for index, other in enumerate(ordered) if equals and other.startswith(f"{name}.")]
        ordered.insert(of_class[0] if of_class else len(ordered), flag)
    return ordered
