"""Find and read the stored tables of DeepLabCut: their columns and rows."""

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from keypoint_detection.data.problems import Problems
from keypoint_detection.documents import read_text
from keypoint_detection.types import DataError

# The individual of body parts that occur only once in an image.
SINGLE = "single"
ANIMAL = "animal"
IMAGE_FOLDER = "labeled-data"
# The name that pandas gives columns whose header is empty.
UNNAMED = "Unnamed: "
# The columns of the image in tables that store its path in three cells.
N_PATH_CELLS = 3


class Column(NamedTuple):
    """What a column of a table holds for an image; the individual is empty if there is only one."""

    individual: str
    bodypart: str
    coordinate: str


class Table(NamedTuple):
    """A table as stored in its file; the columns are those after the image's."""

    path: Path
    columns: list[Column]
    rows: list[tuple[str, list[str]]]


def is_deeplabcut(source: Path) -> bool:
    """Whether this is a DeepLabCut table, project, project config or folder with tables."""
    if source.is_dir():
        return bool(find_tables(source))
    if source.suffix == ".csv":
        with source.open(encoding="utf-8-sig", errors="replace") as file:
            return bool(re.match("scorer[,;\t]", file.readline()))
    return source.suffix == ".h5" or (source.name == "config.yaml" and bool(find_tables(source.parent)))


def prefer_csv(path: Path) -> Path:
    """Use the .csv that DeepLabCut keeps beside a .h5."""
    table = path.with_suffix(".csv")
    return table if path.suffix == ".h5" and table.is_file() else path


def find_tables(root: Path) -> list[Path]:
    """Find the tables of a project or folder; if one is stored as both .csv and .h5, the .csv."""
    found = {
        path.with_suffix(""): path
        for suffix in ("h5", "csv")
        for pattern in (f"CollectedData_*.{suffix}", f"{IMAGE_FOLDER}/*/CollectedData_*.{suffix}")
        for path in root.glob(pattern)
    }
    return [found[stem] for stem in sorted(found)]


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        DataError: it is broken, or is not a table of labels.
    """
    lines = _read_csv(path)
    headers: dict[str, list[str]] = {}
    for line in lines:
        if line[0] not in ("scorer", "individuals", "bodyparts", "coords"):
            break
        headers[line[0]] = line
    if not {"scorer", "bodyparts", "coords"} <= set(headers):
        raise DataError(
            f"{path}: its first column begins with {', '.join(repr(line[0]) for line in lines[:4])}; a DeepLabCut "
            "table of labels begins with 'scorer', 'bodyparts', 'coords' (and 'individuals' for several animals)."
        )
    body = lines[len(headers) :]
    # The remaining cells of the path have an empty header.
    n_path = N_PATH_CELLS if not any(headers["coords"][1:N_PATH_CELLS]) else 1
    individuals = headers.get("individuals") or [""] * len(headers["coords"])
    columns = [
        Column(*cells)
        for cells in zip(individuals[n_path:], headers["bodyparts"][n_path:], headers["coords"][n_path:], strict=True)
    ]
    problems = Problems()
    for column, count in Counter(columns).items():
        if count > 1 or column.bodypart.startswith(UNNAMED):
            times = f" {count} times" if count > 1 else ", which is not a name"
            problems.add("columns", f"its header has the column {' '.join(filter(None, column))}{times}.")
    rows = []
    for number, line in enumerate(body, start=len(headers) + 1):
        if len(line) != n_path + len(columns):
            problems.add(
                "cells", f"row {number} has {len(line)} cells; {n_path + len(columns)} are expected, as in the header."
            )
        rows.append(("/".join(line[:n_path]), line[n_path:]))
    if any(column.coordinate == "likelihood" for column in columns):
        raise DataError(f"{path}: has predictions of a network (there is a column 'likelihood'); labels are expected.")
    if not rows:
        problems.add("empty", "has no rows below its header.")
    problems.raise_if_any(path)
    return Table(path, columns, rows)


def _read_csv(path: Path) -> list[list[str]]:
    if path.suffix == ".h5":
        raise DataError(
            f"{path}: the same table as .csv is expected beside it; .h5 is not read, because it can run code. In "
            "Python: import pandas; pandas.read_hdf('NAME.h5').to_csv('NAME.csv'), if you trust the file."
        )
    try:
        text = read_text(path, "a table of DeepLabCut (.csv)")
        # Spreadsheets use other separators in locales with decimal commas.
        separator = next((mark for mark in ";\t" if text.startswith(f"scorer{mark}")), ",")
        lines = [line for line in csv.reader(io.StringIO(text, ""), delimiter=separator) if line]
        return lines if separator == "," else [[_with_point(cell) for cell in line] for line in lines]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", cell.strip()) else cell
