"""Everything that the package changes or reads inside jsonargparse for lack of a public API."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, _typehints, set_loader
from jsonargparse._loaders_dumpers import yaml_load

from keypoint_detection.documents import parse_yaml

_DISCARD = "discard_init_args_on_class_path_change"
_IMPORT = "import_object"
# The attribute of a replacement that holds the original.
_REPLACED = "__wrapped__"


def drop_arguments_of_old_classes() -> None:
    """Make a class that replaces another one start from its own defaults.

    jsonargparse keeps arguments of the old class that the new one also has: SGD would get the weight decay that the
    user chose for AdamW.
    """
    if getattr(_typehints, _DISCARD) is not _discard_all_init_args:
        setattr(_typehints, _DISCARD, _discard_all_init_args)


def _discard_all_init_args(parser_or_action: Any, prev_val: Any, value: Any) -> None:
    if prev_val and "init_args" in prev_val and prev_val["class_path"] != value["class_path"]:
        for key in list(prev_val["init_args"].keys()):
            prev_val["init_args"].pop(key)


# Shorter values without aliases can be neither deeply nested nor larger than they look.
_HARMLESS_LENGTH = 500


def guard_values() -> None:
    """Make the parser refuse values that would exhaust it, on the command line, in the environment and in files."""
    set_loader("yaml", _load_bounded, (yaml.YAMLError,))


def _load_bounded(text: str) -> Any:
    if "&" in text or sum(map(text.count, "[{-?:")) > _HARMLESS_LENGTH:
        try:
            parse_yaml(text)
        except ValueError as error:
            raise yaml.YAMLError(str(error)) from error
    try:
        return yaml_load(text)  # type: ignore[no-untyped-call]
    # Errors raised by the constructors of dates and numbers.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(f"this is not YAML: {error}") from error


def import_through(importer: Callable[[str, Callable[[str], Any]], Any]) -> None:
    """Import every class or function that a setting names through a given function.

    Args:
        importer: called with the name and with jsonargparse's function, which imports any name without checks.
    """
    original = getattr(_typehints, _IMPORT)
    if hasattr(original, _REPLACED):
        return

    def import_object(name: str, check_path: bool = True) -> Any:
        # Only names from annotations in code are not checked.
        return importer(name, original) if check_path else original(name, check_path=False)

    setattr(import_object, _REPLACED, original)
    setattr(_typehints, _IMPORT, import_object)


def list_option_strings(parser: ArgumentParser) -> Iterator[str]:
    """Yield every option of a parser and of its commands."""
    yield from (option for option in parser._option_string_actions if option.startswith("--"))
    subcommands = getattr(parser, "_subcommands_action", None)
    for child in subcommands._name_parser_map.values() if subcommands is not None else ():
        yield from list_option_strings(child)


def let_stand_alone(parser: ArgumentParser, option: str, *others: str) -> None:
    """Let the name of a Boolean option stand without a value, meaning true.

    Args:
        parser: the parser of the command.
        option: its name, e.g. `--output.resume`.
        others: further names for it.
    """
    action = parser._option_string_actions[option]
    action.nargs, action.const = "?", True
    for other in others:
        action.option_strings = [*action.option_strings, other]
        parser._option_string_actions[other] = action


def list_class_names(parser: ArgumentParser, option: str) -> list[str]:
    """List the short names of the imported classes that an option accepts.

    Args:
        parser: the parser of the command.
        option: its name without hyphens, e.g. `model.backbone`.
    """
    action: Any = parser._option_string_actions.get(f"--{option}")
    is_typed = isinstance(action, _typehints.ActionTypeHint)
    _, _, paths = (action.extra_help() if is_typed else "").partition("known subclasses: ")
    return [path.strip().rpartition(".")[2] for path in paths.split(",") if path]


def reword_options(parser: Any, texts: Mapping[str, str], titles: Mapping[str, str]) -> None:
    """Replace the help of options, and the titles of groups, given by their names."""
    for action in parser._actions:
        action.help = texts.get(action.dest, action.help)
    for name, title in titles.items():
        parser.groups[name].title = title


def show_options(parser: Any, groups: Sequence[str], usage: str, epilog: str | None) -> NoReturn:
    """Show the help of some groups of options, in this order, and exit.

    Args:
        parser: the parser of the command, which cannot be used afterwards.
        groups: names of the groups; the empty name stands for options without a group, joined by groups whose options
            have no dot in their names.
        usage: the line above them.
        epilog: the text below them.
    """
    plain, *others = (parser.groups[name] if name else parser._optionals for name in groups)
    if plain is parser._optionals:
        plain._group_actions.extend(others.pop(0)._group_actions)
    for group in (plain, *others):
        # Options for whole sections as files are meant for programs.
        group._group_actions = [one for one in group._group_actions if one.dest not in parser.groups]
    parser._action_groups = [plain, *others]
    parser.usage, parser.epilog = usage, epilog
    parser.print_help()
    parser.exit()
    raise AssertionError  # `exit` does not return


class SkipsEmptySections(ArgumentParser):
    """A parser that reads an empty section of a config as no settings."""

    def _load_config_parser_mode(self, content: str, *args: Any, **kwargs: Any) -> Any:
        # jsonargparse mistakes a mapping with one empty value for text, as in `--option=name:`, unless a comment is
        # added.
        return super()._load_config_parser_mode(f"{content}\n#", *args, **kwargs)

    def _apply_actions(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(cfg, dict):
            cfg = {key: value for key, value in cfg.items() if value is not None or key not in (self.groups or {})}
        return super()._apply_actions(cfg, *args, **kwargs)
