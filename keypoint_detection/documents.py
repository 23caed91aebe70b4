"""Read text, JSON and YAML files from untrusted sources: each is read completely, or refused in one sentence.

A file can be of another kind than its name suggests, can be endless (a device or a pipe), or can be made to exhaust its
reader: a thousand brackets, or a few lines of YAML that stand for billions of values.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from keypoint_detection.types import DataError

# The first bytes of files that are not UTF-8 text, and what to say about them.
MAGIC = {
    b"\x1f\x8b": "is compressed by gzip; unpack it first (gunzip)",
    b"PK\x03\x04": "is a ZIP archive; unpack it first",
    b"\xff\xfe": "is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16; save it as UTF-8",
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Text has no zero bytes; the beginning shows whether a file is text without reading gigabytes.
N_PEEKED_BYTES = 4096
MAX_YAML_CHARACTERS = 1_000_000
# With every alias expanded; the largest configs have a few thousand.
MAX_YAML_VALUES = 1_000_000
# An escape in JSON or YAML that is half of a character; most occur beside their other half.
HALF_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# The loader in C, where it is installed, is ten times faster.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TOO_DEEP = "it is nested too deeply"


def refuse_special_file(path: Path, expected: str) -> None:
    """Refuse anything but regular files: folders, and devices, pipes and sockets, which could be read forever.

    Args:
        path: path of the file; a missing file is left to the caller to report.
        expected: what is expected instead, for the message.

    Raises:
        DataError: it exists but is not a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise DataError(f"{path} is {kind}; {expected} is expected.")


def read_bytes(path: Path, expected: str) -> bytes:
    """Read a file of UTF-8 text, without its byte order mark.

    Args:
        path: path of the file.
        expected: what the file should be, for the messages, e.g. `a COCO keypoint file (JSON)`.

    Raises:
        DataError: there is no such file, or it is clearly not UTF-8 text.
    """
    refuse_special_file(path, expected)
    try:
        with path.open("rb") as file:
            start = file.read(N_PEEKED_BYTES)
            for magic, what in MAGIC.items():
                if start.startswith(magic):
                    raise DataError(f"{path} {what}. It should be {expected}.")
            if b"\0" in start:
                raise DataError(f"{path} is not text; {expected} is expected.")
            return (start + file.read()).removeprefix(BYTE_ORDER_MARK)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected {expected}. Paths are relative to {Path.cwd()}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}.") from error


def read_text(path: Path, expected: str) -> str:
    """Read a file of UTF-8 text; see `read_bytes`."""
    try:
        return read_bytes(path, expected).decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8. "
            f"It should be {expected}."
        ) from error


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file; NaN and Infinity are accepted too.

    Args:
        path: path of the file.
        expected: what the file should be, for the messages.

    Raises:
        DataError: there is no such file, it is not JSON, or it contains text that cannot be written to a file.
    """
    text = read_text(path, expected)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise DataError(f"{path}: {TOO_DEEP}; expected {expected}.") from error
    except ValueError as error:  # raised for integers of thousands of digits as well
        raise DataError(f"{path}: not valid JSON ({error}); expected {expected}.") from error
    _refuse_halves(path, text, content)
    return content


def read_yaml(path: Path, expected: str) -> Any:
    """Read a YAML file.

    Args:
        path: path of the file.
        expected: what the file should be, for the messages.

    Raises:
        DataError: there is no such file, it is not YAML, or expands to more values than any config needs.
    """
    text = read_text(path, expected)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected {expected}.") from error
    _refuse_halves(path, text, content)
    return content


def parse_yaml(text: str) -> Any:
    """Parse YAML of bounded size; aliases, which stand for copies, count as often as they are used.

    Raises:
        ValueError: it is not YAML, is too large, or has a key twice in one mapping; the message gives the line.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; no settings need more than {MAX_YAML_CHARACTERS}")
    try:
        loader = _LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_values(node, {}) > MAX_YAML_VALUES:
            raise ValueError(f"its aliases stand for more than {MAX_YAML_VALUES} values")
        _refuse_repeated_keys(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}this is not YAML: {error.problem or error.context}") from error
    # Including errors of the constructors of dates and numbers: IndexError for `!!int ''`, KeyError for `!!bool x`.
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"this is not YAML: {error}") from error


def _count_values(node: yaml.Node, counted: dict[int, float]) -> float:
    """Count the values below a node; infinitely many if it contains itself."""
    if id(node) not in counted:
        counted[id(node)] = float("inf")  # until it is known: an alias inside a node can refer to the node itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        counted[id(node)] = 1 + sum(_count_values(child, counted) for child in flat)
    return counted[id(node)]


def _refuse_repeated_keys(root: yaml.Node) -> None:
    """Refuse duplicate keys in a mapping, of which only the last would count."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            waiting += node.value
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines and key.value != "<<":
                raise ValueError(f"line {line}: {key.value} is given twice, first in line {lines[name]}; keep one")
            lines[name] = line


def _refuse_halves(path: Path, text: str, content: Any) -> None:
    r"""Refuse halves of characters, such as "\ud800", which no file name and no UTF-8 file can contain."""
    if not HALF_ESCAPE.search(text):
        return
    try:
        json.dumps(content, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        start = error.object[max(0, error.start - 20) : error.start + 20]
        raise DataError(f"{path}: has half of a character (a lone surrogate) in {start!a}; rename it.") from error
