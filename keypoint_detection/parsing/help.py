"""Format the help to fit a few screens: the meaning of an option, its values, and its default."""

import re
import textwrap
from argparse import SUPPRESS, Action, HelpFormatter

from jsonargparse import DefaultHelpFormatter

from keypoint_detection.parsing.wording import KINDS

# Indentation of an option's description.
INDENT = 6
# jsonargparse's text after an option's description, with Python's names of types.
FACTS = re.compile(
    r" \((?=required|type: |default: )(?P<required>required)?(?:, )?(?:type: (?P<type>.*?))?"
    r"(?:(?:, )?default: (?P<default>.*?))?(?:, known subclasses: (?P<known>.*))?\)$",
    re.DOTALL,
)
OWN = "keypoint_detection."
# Options that every command has.
COMMON = {
    "help": "show this help",
    "print_config": "print all settings as a config file and exit; =comments explains them, =skip_default leaves out "
    "settings that have their default",
}

# For the commands that read checkpoints; the option is removed before their words are parsed.
TRUST_HELP = """\
Your own code:
  --trust=MODULE  let the checkpoint use classes of this module, such as your own
                  backbone; repeat it for more modules"""


class ShortHelp(DefaultHelpFormatter):  # type: ignore[misc, unused-ignore]
    """Help with an option on one line and its description on the next few."""

    def __init__(self, prog: str, width: int | None = None) -> None:
        super().__init__(prog, max_help_position=INDENT, width=width)  # type: ignore[no-untyped-call]

    def _expand_help(self, action: Action) -> str:
        return COMMON.get(action.dest) or FACTS.sub(_in_words, super()._expand_help(action))

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return HelpFormatter._format_action_invocation(self, action)
        names = [name for name in action.option_strings if not name.endswith("+")]
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(names)} {value}"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill each paragraph separately, and leave lines that begin with a space unchanged."""
        paragraphs = textwrap.dedent(text).strip().split("\n\n")
        return "\n\n".join(
            paragraph
            if re.search(r"^ ", paragraph, flags=re.MULTILINE)
            else textwrap.fill(paragraph, width, initial_indent=indent, subsequent_indent=indent)
            for paragraph in paragraphs
        )


def _in_words(facts: re.Match[str]) -> str:
    """Describe the values that an option takes, where that is simple, and its default, unless that is null."""
    kind, default, known = (facts["type"] or "").removesuffix(" | null"), facts["default"], facts["known"]
    said = ["required"] if facts["required"] else []
    if kind in KINDS and kind not in ("bool", "str"):
        said.append(KINDS[kind])
    classes = [name.strip() for name in (known or "").split(",")]
    # Long lists of other packages' classes are left to `--OPTION.help CLASS` and their documentation.
    if 2 * sum(name.startswith(OWN) for name in classes) > len(classes):
        said.append("one of " + ", ".join(name.rpartition(".")[2] for name in classes))
    if default not in (None, "null", SUPPRESS):
        if named := re.fullmatch(r"\{'class_path': '(?:\w+\.)*(\w+)'(?:, 'init_args': \{(.+)\})?\}", default):
            default = named[1] + (f" with {named[2]}".replace("'", "") if named[2] else "")
        said.append(f"default: {default.lower() if kind == 'bool' else default}")
    return f" ({'; '.join(said)})" if said else ""
