import os
from pathlib import Path

import pytest

from keypoint_detection.destinations import path_below, refuse_unwritable
from keypoint_detection.types import DataError


def test_what_can_be_written_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("")
    for name in ("new.json", "there.json", "new/folders/new.json", "."):
        refuse_unwritable(tmp_path / name, "--output")


def test_nothing_lies_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for name in ("file/out.json", "file/folder/out.json"):
        with pytest.raises(DataError) as caught:
            refuse_unwritable(Path(name), "--output")
        expected = f"--output: {name} cannot be written ({tmp_path / 'file'} is a file); give another --output."
        assert str(caught.value) == expected


def test_a_folder_that_is_read_only_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(DataError, match="you have no write permission in"):
        refuse_unwritable(tmp_path / "out.json", "--output")


@pytest.mark.parametrize("name", ["a/b.png", "/a/b.png", "../../a/b.png", "a/../b.png", "./a/b.png"])
def test_a_name_that_leads_elsewhere_stays_below(name: str, tmp_path: Path) -> None:
    place = (tmp_path / path_below(name)).resolve()
    assert place.is_relative_to(tmp_path.resolve())
    assert place.name == "b.png"
