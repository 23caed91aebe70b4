"""Read tables and projects of DeepLabCut."""

import glob
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.conversion.deeplabcut.tables import (
    ANIMAL,
    IMAGE_FOLDER,
    SINGLE,
    Table,
    find_tables,
    prefer_csv,
    read_table,
)
from keypoint_detection.conversion.frames import VideoFrames
from keypoint_detection.conversion.image_finder import ImageFinder, tidy_name
from keypoint_detection.conversion.label_set import Category, Instance, LabelledImage, LabelSet, Reading, make_instance
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.image_bounds import ImageBounds
from keypoint_detection.data.problems import Problems
from keypoint_detection.data.video import VIDEO_SUFFIXES
from keypoint_detection.documents import read_yaml
from keypoint_detection.types import VISIBLE, DataError


def read(source: Path, reading: Reading) -> LabelSet:
    """Read a table, or all tables of a project.

    Raises:
        DataError: there is no table, it is broken, or its images are missing.
    """
    root = source.parent if source.name == "config.yaml" else source
    paths = find_tables(root) if root.is_dir() else [prefer_csv(source)]
    if not paths:
        raise DataError(f"{source}: has no table CollectedData_*.csv, nor does any folder in {IMAGE_FOLDER}/.")
    config = _read_config(root if root.is_dir() else source.parent)
    paths, notes = _choose_scorer(paths, config)
    tables = [read_table(path) for path in paths]
    categories = _collect_categories(tables, config, reading.keypoints)
    notes += _compare_with_config(tables, config) + (_note_folders_without_table(root) if root.is_dir() else [])
    images: list[LabelledImage] = []
    owners: dict[str, Path] = {}
    problems = Problems()
    for table in tables:
        found, left_out = _read_rows(table, categories, config, reading, has_others=len(tables) > 1)
        for image in found:
            key = str(image.path or image.name)
            if key in owners:
                places = f"twice in {table.path}" if owners[key] == table.path else f"in {owners[key]} and {table.path}"
                problems.add("twice", f"{key} is labelled {places}. Keep one of them, or name the table to read.")
            owners.setdefault(key, table.path)
        images += found
        notes += left_out
    problems.raise_if_any(source)
    if not images:
        raise DataError(f"{source}: not one of the labelled images exists.")
    return LabelSet(categories, images, notes)


def _choose_scorer(paths: list[Path], config: dict[str, Any]) -> tuple[list[Path], list[str]]:
    """Keep only the tables of the scorer that the project names, as DeepLabCut does."""
    own = f"CollectedData_{config.get('scorer')}"
    folders = {path.parent for path in paths if path.stem == own}
    others = [path for path in paths if path.parent in folders and path.stem != own]
    notes = [f"Left out because the scorer of the project is {config['scorer']!r}: {path}." for path in others]
    return [path for path in paths if path not in others], notes


def _compare_with_config(tables: list[Table], config: dict[str, Any]) -> list[str]:
    """Report where the tables differ from the project's config."""
    notes = []
    scorer = config.get("scorer")
    others = [table.path for table in tables if scorer and table.path.stem != f"CollectedData_{scorer}"]
    if others:
        notes.append(
            f"The scorer of the project is {scorer!r}, but {others[0]} is read, as its folder has no other table."
        )
    stated = [config.get(key) for key in ("bodyparts", "multianimalbodyparts", "uniquebodyparts")]
    parts = {str(part) for one in stated if isinstance(one, list) for part in one}
    found = {column.bodypart for table in tables for column in table.columns}
    if parts and parts != found:
        only = [
            f"{', '.join(sorted(one))} only in {where}"
            for one, where in ((parts - found, "config.yaml"), (found - parts, "the tables"))
            if one
        ]
        notes.append(f"Body parts differ: {'; '.join(only)}. Those of the tables are read.")
    return notes


def _note_folders_without_table(root: Path) -> list[str]:
    folders = [path for path in sorted((root / IMAGE_FOLDER).glob("*")) if path.is_dir()]
    # DeepLabCut puts its drawings of the labels into such folders.
    bare = [path for path in folders if not path.name.endswith("_labeled") and not any(path.glob("CollectedData_*"))]
    return [f"Left out: {count_in_words(len(bare), 'folder')} without a table, e.g. {bare[0]}."] if bare else []


def _collect_categories(tables: list[Table], config: dict[str, Any], keypoints: list[str]) -> list[Category]:
    """Make a category for the animals and one for parts that occur only once; the order is that of the columns."""
    columns = [column for table in tables for column in table.columns]
    animals = list(dict.fromkeys(one.bodypart for one in columns if one.individual != SINGLE))
    singles = list(dict.fromkeys(one.bodypart for one in columns if one.individual == SINGLE))
    if keypoints and set(keypoints) != set(animals):
        raise DataError(f"{tables[0].path}: has the body parts {', '.join(animals)}; keypoints names {keypoints}.")
    named = {str(config.get("Task") or ANIMAL): keypoints or animals, SINGLE: singles}
    edges = [
        (str(edge[0]), str(edge[1]))
        for edge in config.get("skeleton") or []
        if isinstance(edge, list) and len(edge) == 2
    ]
    return [
        Category(name, parts, [(parts.index(a), parts.index(b)) for a, b in edges if a in parts and b in parts])
        for name, parts in named.items()
        if parts
    ]


def _read_config(folder: Path) -> dict[str, Any]:
    """Read the config of the project that contains a folder; empty if there is none."""
    for place in (folder, *list(folder.absolute().parents)[:2]):
        path = place / "config.yaml"
        if path.is_file():
            config = read_yaml(path, "the config of DeepLabCut")
            if isinstance(config, dict) and "Task" in config:
                return config
    return {}


def _read_rows(
    table: Table, categories: list[Category], config: dict[str, Any], reading: Reading, *, has_others: bool
) -> tuple[list[LabelledImage], list[str]]:
    problems = Problems()
    folder = table.path.parent
    is_in_project = folder.absolute().parent.name == IMAGE_FOLDER
    project = folder.absolute().parent.parent if is_in_project else folder
    bounds = ImageBounds(reading.image_root or project, reading.outside_images)
    finder = ImageFinder([folder, project], [[name] for name, _ in table.rows], bounds, reading, problems)
    images = []
    videos: dict[Path, VideoFrames] = {}
    for name, cells in table.rows:
        image = _find_frame(name, finder, videos, config, problems)
        instances = _read_row(table, name, cells, categories, problems)
        if image is not None:
            if "/" not in image.name:
                image.name = f"{folder.absolute().name}/{image.name}"
            image.instances = instances
            image.group = image.name.rpartition("/")[0]
            images.append(image)
    notes = finder.conclude(has_others=has_others or bool(images))
    problems.raise_if_any(table.path)
    return images, notes


def _find_frame(
    name: str, finder: ImageFinder, videos: dict[Path, VideoFrames], config: dict[str, Any], problems: Problems
) -> LabelledImage | None:
    """Find a frame; if its image is missing from this copy of the project, find it in the original video."""
    tidy = tidy_name(name)
    folder = tidy.rpartition("/")[0]
    number = re.fullmatch(r"img(\d+)", Path(tidy).stem)
    paths = [] if number is None or finder.look_for([name]) else _find_videos(Path(folder).name, finder.roots, config)
    if number is None or not paths:
        return finder.find([name])  # which records a missing image
    if len(paths) > 1:
        problems.add("videos", f"{name}: is a frame of {' or of '.join(map(str, paths))}; remove one of them.")
        return None
    if not finder.bounds.encloses(paths[0]):
        problems.add("outside", finder.bounds.describe_outside(str(paths[0])))
        return None
    frames, window = videos.setdefault(paths[0], VideoFrames(paths[0])), _read_window(paths[0], config)
    index = int(number[1])

    def read() -> NDArray[np.uint8]:
        pixels = frames[index]
        if window is None:
            return pixels
        left, right, top, bottom = window
        if not (0 <= left < right <= pixels.shape[1] and 0 <= top < bottom <= pixels.shape[0]):
            raise DataError(
                f"{paths[0]}: its crop {window} in config.yaml (left, right, top, bottom) is not inside it."
            )
        return pixels[top:bottom, left:right]

    return LabelledImage(f"{folder}/{Path(tidy).stem}.png", (0, 0), None, read=read)


def _read_window(path: Path, config: dict[str, Any]) -> list[int] | None:
    """Return the part of a video's frames that a project labels, (left, right, top, bottom) in pixels; None for all."""
    sets = config.get("video_sets")
    if not config.get("cropping") or not isinstance(sets, dict):
        return None
    stated = [one for name, one in sets.items() if Path(tidy_name(str(name))).name == path.name]
    sides = re.findall(r"-?\d+", str(stated[0].get("crop", ""))) if stated and isinstance(stated[0], dict) else []
    return [int(side) for side in sides] if len(sides) == len(("left", "right", "top", "bottom")) else None


def _find_videos(stem: str, roots: list[Path], config: dict[str, Any]) -> list[Path]:
    """Find the videos that a folder of frames may come from: the one that the project names, or all with its name."""
    stated = [Path(tidy_name(str(one))).name for one in config.get("video_sets") or {}]
    found = {
        path.name: path
        for root in roots
        for folder in (root / "videos", root)
        for path in sorted(folder.glob(f"{glob.escape(stem)}.*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    }
    return [path for name, path in found.items() if name in stated] or list(found.values())


def _read_row(
    table: Table, name: str, cells: list[str], categories: list[Category], problems: Problems
) -> list[Instance]:
    places = {category.name == SINGLE: index for index, category in enumerate(categories)}
    instances: dict[str, Instance] = {}
    values: dict[tuple[str, str], dict[str, float]] = {}
    for column, cell in zip(table.columns, cells, strict=True):
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError:
            problems.add(
                "number", f"{name}: {column.bodypart} has {column.coordinate} = {cell!r:.40}; a number is expected."
            )
            continue
        values.setdefault((column.individual, column.bodypart), {})[column.coordinate] = value
    for (individual, bodypart), xy in values.items():
        index = places[individual == SINGLE]
        x, y = xy.get("x", math.nan), xy.get("y", math.nan)
        if math.isfinite(x) and math.isfinite(y):
            keypoints = categories[index].keypoints
            instance = instances.setdefault(individual, make_instance(index, len(keypoints)))
            instance.points[keypoints.index(bodypart)] = x, y
            instance.visibility[keypoints.index(bodypart)] = VISIBLE
        elif not (math.isnan(x) and math.isnan(y)):
            problems.add("half", f"{name}: {bodypart} has x = {x} and y = {y}; two numbers or none are expected.")
    return list(instances.values())
