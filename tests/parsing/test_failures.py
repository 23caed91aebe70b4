"""Unexpected errors, as a user reads them."""

import importlib
import re
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from keypoint_detection.channels import resolve_channels
from keypoint_detection.parsing.failures import describe_failure, find_own_place, message_of, note_run_folder


def provoke(function, *arguments) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - of any kind
        function(*arguments)
    return caught.value


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def read_traceback(text: str) -> str:
    (path,) = re.findall(r"The traceback is in (\S+);", text)
    return Path(path).read_text()


def test_an_error_in_the_users_code_shows_kind_message_and_line(write_module):
    module = importlib.import_module(write_module("own_net", "def build():\n    return {}['width']\n"))
    text = describe_failure(provoke(module.build), ["fit", "--x=1"])
    assert text.splitlines()[:2] == ["kpd fit: KeyError: 'width'", "  in your own code: own_net.py, line 2, in build"]
    assert len(text.splitlines()) == 3
    assert "kpd fit --x=1" in read_traceback(text)
    assert "Traceback (most recent call last)" in read_traceback(text)


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("import os\nimport absent_library\n", "ModuleNotFoundError: No module named 'absent_library'", 2),
        ("def f(:\n    pass\n", "SyntaxError: invalid syntax", 1),
        ("x = 1\n\n1 / 0\n", "ZeroDivisionError: division by zero", 3),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(write_module, source, kind, line):
    name = write_module(f"broken_{line}", source)
    text = describe_failure(provoke(importlib.import_module, name), ["fit"])
    assert text.startswith(f"kpd fit: {kind}\n  in your own code: broken_{line}.py, line {line}")


def test_an_error_of_a_library_called_by_the_users_code_is_located_in_the_users_code(write_module):
    module = importlib.import_module(write_module("own_json", "import json\n\ndef load():\n    json.loads('{')\n"))
    assert find_own_place(provoke(module.load)) == "own_json.py, line 4, in load"


def test_an_error_without_code_of_the_user_may_be_a_bug():
    text = describe_failure(RuntimeError("lost"), ["check"])
    assert text.startswith("kpd check: RuntimeError: lost\nThis may be a bug in kpd: please report it")


def test_an_error_inside_the_package_shows_where(monkeypatch, capsys):
    monkeypatch.setattr("keypoint_detection.parsing.failures._is_own", lambda file: False)
    text = describe_failure(provoke(resolve_channels, 3, [], Path("x.json")), ["check"])
    assert "\n  at keypoint_detection/channels.py, line " in text


def test_the_traceback_is_kept_in_the_folder_of_the_run_even_of_several_failures(tmp_path):
    error = OSError("gone")
    note_run_folder(error, tmp_path)
    for _ in range(2):
        assert str(tmp_path / "traceback.txt") in describe_failure(error, ["fit"])
    assert (tmp_path / "traceback.txt").read_text().count("OSError: gone") == 2


def test_a_run_whose_folder_is_gone_keeps_its_traceback_elsewhere(tmp_path):
    error = OSError("gone")
    note_run_folder(error, tmp_path / "removed")
    assert "OSError: gone" in read_traceback(describe_failure(error, ["fit"]))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
            "a process that reads images was killed, most likely by the system because memory ran out",
        ),
        (RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"), "--data.num_workers=N"),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Segmentation fault. "), "images crashed"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that …"),
            "shared memory",
        ),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
            "--shm-size",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."), "A smaller --data.batch_size"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (MemoryError(), "not enough memory"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (
            RuntimeError(
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"
            ),
            "another process of this training run has ended",
        ),
    ],
)
def test_what_is_known_comes_with_advice(error, expected):
    assert expected in describe_failure(error, ["fit"])


class Failing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("first line\nsecond line")


def test_an_error_from_a_reading_process_is_shown_without_its_traceback(tmp_path, monkeypatch):
    error = provoke(next, iter(DataLoader(Failing(), num_workers=1)))
    assert message_of(error) == "first line\nsecond line"
    assert find_own_place(error) is not None
    assert re.search(r"test_failures.py, line \d+, in __getitem__", find_own_place(error))
    assert describe_failure(error, ["fit"]).startswith("kpd fit: ValueError: first line\nsecond line\n")


def test_a_long_message_is_cut():
    text = describe_failure(RuntimeError("\n".join(["x" * 1000] * 50)), ["fit"])
    assert len(text.splitlines()) < 14
    assert max(map(len, text.splitlines())) < 500


def test_a_file_that_only_the_author_of_a_library_has_is_not_the_users_code():
    names = {}
    exec(compile("def fail():\n    raise OSError('moov atom not found')\n", "av/error.py", "exec"), names)
    error = provoke(names["fail"])
    assert "av/error.py" not in str(find_own_place(error))
