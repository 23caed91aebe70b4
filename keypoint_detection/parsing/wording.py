"""Reword a parser's message about a refused value: what was expected, and what was found."""

import ast
import re

# Names for the types of jsonargparse and Python in messages to the user.
KINDS = {
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number, 0 or more",
    "ClosedUnitInterval": "a number from 0 to 1",
    "OpenUnitInterval": "a number above 0 and below 1",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "list": "a list",
    "tuple": "a list",
    "collections.abc.Iterable": "a list",
    "dict": "a mapping",
}
# jsonargparse's text around the errors of each possible type of a value.
NOISE = (
    r"\s*(-\s*)?(Does not validate against any of the Union subtypes|Subtypes: |Errors:|Given value"
    r"|Expected a <class 'NoneType'>|Expected a path but)|\s*$"
)
KEY = r'Parser key "([^"]+)":'
BULLET = r"\s*(?:- )?"
# Longer values are not repeated: the user has just typed them.
MAX_SHOWN = 60


def reword(message: str) -> str:
    r"""Say what was expected and found in place of the names of types.

    Args:
        message: the message of jsonargparse. Text that does not mention types stays unchanged.

    >>> reword('Parser key "data.fold":\n  Not of type NonNegativeInt: -1 does not conform to restriction v>=0')
    'data.fold: expected a whole number, 0 or more; found -1'
    """
    if "Parser key" not in message:
        return message
    message = re.sub(rf"{BULLET}Problem with given class_path '[\w.]+':(?=\s*Parser key)", "\n", message)
    # A nested key may follow a message on the line of the outer key.
    message = re.sub(rf'(?<=":) (?={KEY})', "\n", message)
    given = re.search(r"Given value: (.*)", message)
    lines: list[str] = []
    expected: list[str] = []
    found = ""
    for line in (*message.splitlines(), ""):
        kind, value = _read_expectation(line)
        if kind:
            expected.append(kind)
            found = value or found
        elif not re.match(NOISE, line) or not line:
            if expected:
                lines.append(_say(expected, found or (given[1] if given else "")))
                expected, found = [], ""
            if line and line not in lines:
                lines.append(line)
    return _join_keys(lines)


def _read_expectation(line: str) -> tuple[str, str]:
    """Return what a line expected and what it found; empty texts if it says neither."""
    if match := re.match(rf"{BULLET}Not of type ({'|'.join(KINDS)}): (.*)", line):
        number = re.match(r"(.*?) ?does not conform to restriction", match[2]) or re.search(r": '(.*)'", match[2])
        return KINDS[match[1]], number[1] if number else ""
    if match := re.match(rf"{BULLET}Expected a typing\.Literal(\[.*?\])(?:\. Got value: (.*))?$", line):
        choices = [str(choice) for choice in ast.literal_eval(match[1])]
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices), match[2] or ""
    if match := re.match(rf"{BULLET}Expected a tuple with (\d+) elements(?:\. Got value: (.*))?$", line):
        return f"a list of {match[1]} values", match[2] or ""
    if match := re.match(rf"{BULLET}Expected an? <class '({'|'.join(KINDS)})'>(?:\. Got value: (.*))?$", line):
        return KINDS[match[1]], match[2] or ""
    return "", ""


def _say(expected: list[str], found: str) -> str:
    is_shown = 0 < len(found) <= MAX_SHOWN and not found.startswith(("Namespace(", "NestedArg("))
    return f"    - expected {' or '.join(dict.fromkeys(expected))}{f'; found {found}' if is_shown else ''}"


def _join_keys(lines: list[str]) -> str:
    """Put each key on the line of its problem, if it has only one."""
    joined: list[str] = []
    for line in lines:
        outer = re.fullmatch(rf"(\s*){KEY}", joined[-1]) if joined else None
        inner = re.fullmatch(rf"\s*{KEY}", line)
        if outer and inner:
            joined[-1] = f'{outer[1]}Parser key "{outer[2]}.{inner[1]}":'
        elif outer:
            joined[-1] = f"{outer[1]}{outer[2]}: {re.sub(BULLET, '', line, count=1)}"
        else:
            joined.append(line)
    return "\n".join(joined)
