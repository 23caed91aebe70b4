"""Make text from files and file names safe for a terminal, a log or a spreadsheet."""

import logging
import re
import sys

# Characters that would move the cursor, colour or hide text, or reverse its direction; and halves of characters, which
# represent bytes of a file name that are not UTF-8, and which no stream can write. Line feeds and tabs are allowed: the
# package writes them itself.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# The beginning of a cell that a spreadsheet treats as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def make_printable(text: str) -> str:
    r"""Replace characters that control a terminal with escape sequences.

    >>> make_printable("a\x1b[2Kb")
    'a\\x1b[2Kb'
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, without a full stop; the name of its class if it has no message.

    >>> first_line(ValueError("No such project.\nTry another one."))
    'No such project'
    """
    return next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__


def make_plain_cell(name: str) -> str:
    """Put an apostrophe before a name that a spreadsheet would run as a formula.

    For files that people open, and that the package does not read back. Numbers stay unchanged, and so do all names
    that begin with a letter or a digit.

    >>> make_plain_cell("=HYPERLINK(1).png"), make_plain_cell("a=b.png")
    ("'=HYPERLINK(1).png", 'a=b.png')
    """
    return f"'{name}" if name.startswith(_FORMULA) else name


def say(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(make_printable(text))


def complain(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(make_printable(text))


def make_handler() -> logging.Handler:
    """Make the handler that shows a log on the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    return handler


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return make_printable(super().format(record))
