"""Report unexpected failures: a few lines for the user, and a file with the traceback."""

import os
import platform
import re
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from keypoint_detection.ranks import find_rank

# If set to 1, tracebacks are shown.
DEBUG_VARIABLE = "KPD_DEBUG"
TRACEBACK_FILE = "traceback.txt"

# torch's messages when another process of the same training run has ended.
LOST_PROCESS = r"gloo/transport|gloo::|ncclRemoteError|process group watchdog"
READS_IMAGES = "a process that reads images"
FEWER_WORKERS = "Use fewer of them: --data.num_workers=N; 0 reads in the main process."
# Known messages of libraries: a pattern, what happened, and what to do about it.
KNOWN = (
    (
        r"DataLoader worker .*Bus error|allocate shared memory|unable to (?:write to|mmap|open shared memory)",
        "the shared memory through which the processes that read images pass them on is full",
        f"Make /dev/shm larger (in Docker: --shm-size=8g). Or: {FEWER_WORKERS}",
    ),
    (
        r"DataLoader worker .*(?:signal: Killed|exited unexpectedly)",
        f"{READS_IMAGES} was killed, most likely by the system because memory ran out",
        FEWER_WORKERS,
    ),
    (
        r"DataLoader worker .*signal: ",
        f"{READS_IMAGES} crashed",
        "With --data.num_workers=0 the main process reads the images, which may show where.",
    ),
    (
        LOST_PROCESS,
        "another process of this training run has ended",
        "Its message is above. If there is none, it was killed, most likely by the system because memory ran out.",
    ),
    (
        r"Too many open files|received \d+ items of ancdata",
        "too many files are open",
        "Allow more (ulimit -n 65536), or use fewer processes: --data.num_workers=N.",
    ),
    (
        r"out of memory|can't allocate memory|Unable to allocate|_ALLOC_FAILED|^MemoryError",
        "not enough memory",
        "A smaller --data.batch_size or --data.image_size needs less.",
    ),
)
MAX_MESSAGE_LINES = 8
MAX_LINE = 400
FRAME = re.compile(r'^ *File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?', re.M)
# The beginning of an error from a process that reads images; its traceback follows as text.
FROM_WORKER = re.compile(r"Caught \w+ in .*process \d+\.\nOriginal Traceback \(most recent call last\):\n")
PACKAGE = Path(__file__).resolve().parents[1]


class _Place(NamedTuple):
    """A line of code; the function is empty for a line that could not be parsed."""

    file: Path
    line: int
    function: str

    def __str__(self) -> str:
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"{file}, line {self.line}{f', in {self.function}' if self.function else ''}"


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def is_of_another_process(error: BaseException) -> bool:
    """Whether an error only reports that another process of the training run has ended."""
    return isinstance(error, RuntimeError) and re.search(LOST_PROCESS, str(error)) is not None


def note_run_folder(error: BaseException, folder: Path) -> None:
    """Attach the folder of the run that an error ended to the error; the traceback is written there."""
    error.__dict__["run_folder"] = folder


def find_own_place(error: BaseException) -> str | None:
    """Find the last line of the user's own code that an error or its causes passed through.

    Returns:
        The file, line and function; None if only kpd and installed libraries were involved.
    """
    places = [place for place in _list_places(_format(error)) if _is_own(place.file)]
    return str(places[-1]) if places else None


def message_of(error: BaseException) -> str:
    """Return the message of an error, without the traceback in one from a process that reads images."""
    text = str(error).strip()
    if not FROM_WORKER.match(text):
        return text
    last = list(FRAME.finditer(text))[-1:]
    lines = text[last[0].end() if last else 0 :].splitlines()[1:]
    while lines and lines[0].startswith("    "):  # the source code of that frame
        lines.pop(0)
    return re.sub(r"^[\w.]+: ", "", "\n".join(lines))


def describe_failure(error: BaseException, words: Sequence[str]) -> str:
    """Describe an unexpected error in a few lines, and write its traceback to a file.

    Args:
        error: what was raised.
        words: the command and its arguments.

    Returns: What happened, where, what to do about it, and the file, which is in the run folder if there is one.
    """
    command = f"kpd {words[0]}" if words else "kpd"
    text = _format(error)
    summary = _summarize(error)
    file = _write(error, text, words)
    shown = f"The traceback is in {file}; {DEBUG_VARIABLE}=1 shows it here."
    for pattern, happened, advice in KNOWN:
        if re.search(pattern, summary, flags=re.M):
            return f"{command}: {happened} ({_first_line(summary)}). {advice}\n{shown}\n"
    own = find_own_place(error)
    if own is not None:
        return f"{command}: {summary}\n  in your own code: {own}\n{shown}\n"
    inside = [place for place in _list_places(text) if place.file.is_relative_to(PACKAGE)]
    where = f"  at {inside[-1].file.relative_to(PACKAGE.parent)}, line {inside[-1].line}\n" if inside else ""
    blame = "" if isinstance(error, OSError) else "This may be a bug in kpd: please report it with its traceback. "
    return f"{command}: {summary}\n{where}{blame}{shown}\n"


def _format(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _list_places(text: str) -> Iterator[_Place]:
    for match in FRAME.finditer(text):
        yield _Place(Path(match["file"]), int(match["line"]), match["function"] or "")


def _is_own(file: Path) -> bool:
    """Whether a file exists and is neither installed, nor part of Python or this package, nor the running script.

    Compiled libraries name files that exist only on their authors' machines.
    """
    if not file.is_file() or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    file = file.resolve()
    if file == Path(sys.argv[0]).resolve():
        return False
    paths = sysconfig.get_paths()
    others = (PACKAGE, *(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    return not any(file.is_relative_to(folder) for folder in others)


def _summarize(error: BaseException) -> str:
    """Return the kind of an error and its message, cut to a few lines."""
    name = type(error).__name__
    message = error.msg if isinstance(error, SyntaxError) else message_of(error)
    lines = [line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…" for line in message.splitlines()]
    if len(lines) > MAX_MESSAGE_LINES:
        lines = [*lines[:MAX_MESSAGE_LINES], "…"]
    return ": ".join([name, "\n".join(lines)] if lines else [name])


def _first_line(summary: str) -> str:
    return summary.splitlines()[0].rstrip(" .:")


def _write(error: BaseException, text: str, words: Sequence[str]) -> str:
    """Append the traceback to its file and return that file's path."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("keypoint-detection", "torch", "lightning"))
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {' '.join(['kpd', *words])}\n{versions}, Python {sys.version}\n"
    content = f"{head}{platform.platform()}\n\n{text}\n"
    folder = getattr(error, "run_folder", None)
    rank = find_rank()
    if folder is not None and folder.is_dir():
        path = folder / (TRACEBACK_FILE if rank == 0 else f"rank-{rank}-{TRACEBACK_FILE}")
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(content)
        except OSError:  # the disk may be full
            pass
        else:
            return str(path)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kpd-", suffix=".txt", delete=False, encoding="utf-8"
        ) as temporary:
            temporary.write(content)
    except OSError:
        sys.stderr.write(text)
        return "the lines above"
    return temporary.name


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
