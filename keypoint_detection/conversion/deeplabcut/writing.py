"""Write DeepLabCut projects: tables as .csv and .h5, and the config."""

import csv
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from keypoint_detection.conversion.deeplabcut.tables import ANIMAL, IMAGE_FOLDER, N_PATH_CELLS, SINGLE, Column
from keypoint_detection.conversion.label_set import Category, LabelledImage, LabelSet, round_px
from keypoint_detection.extras import how_to_install
from keypoint_detection.types import DataError

SCORER = "kpd"
# The key of the table in the file, as pandas stores it.
H5_KEY = "df_with_missing"
# The settings that DeepLabCut writes into every new project.
DEFAULTS = {
    "start": 0,
    "stop": 1,
    "numframes2pick": 20,
    "skeleton_color": "black",
    "pcutoff": 0.6,
    "dotsize": 12,
    "alphavalue": 0.7,
    "colormap": "rainbow",
    "TrainingFraction": [0.95],
    "iteration": 0,
    "default_net_type": "resnet_50",
    "default_augmenter": "default",
    "snapshotindex": -1,
    "batch_size": 8,
    "cropping": False,
    "x1": 0,
    "x2": 640,
    "y1": 277,
    "y2": 624,
    "corner2move2": [50, 50],
    "move2corner": True,
}


def write(labels: LabelSet, folder: Path) -> list[str]:
    """Write a table for each folder of images in labeled-data/, and the entries of the project's config about them.

    Raises:
        DataError: there are categories that the tables cannot distinguish.
    """
    animals = [index for index, one in enumerate(labels.categories) if one.name != SINGLE]
    if len(animals) > 1:
        names = ", ".join(labels.categories[index].name for index in animals)
        raise DataError(f"DeepLabCut labels one kind of animal; there are {names}. Choose one with --categories.")
    folders: dict[Path, list[LabelledImage]] = {}
    for image in labels.images:
        assert image.path is not None
        folders.setdefault(image.path.parent, []).append(image)
    # All tables of a project have the same columns.
    counts = [
        max(sum(one.category == index for one in image.instances) for image in labels.images)
        for index in range(len(labels.categories))
    ]
    has_individuals = len(counts) > 1 or not animals or counts[0] > 1
    columns = _name_columns(labels.categories, counts)
    for place, images in folders.items():
        header = {"scorer": [SCORER] * len(columns)}
        header |= {"individuals": [column.individual for column in columns]} if has_individuals else {}
        header |= {"bodyparts": [one.bodypart for one in columns], "coords": [one.coordinate for one in columns]}
        rows = [_make_row(image, place, labels.categories, columns) for image in images]
        with (place / f"CollectedData_{SCORER}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerows([[name, *[""] * (N_PATH_CELLS - 1), *cells] for name, cells in header.items()])
            table.writerows(rows)
        has_h5 = _write_h5(header, rows, place / f"CollectedData_{SCORER}.h5")
    sizes = {place.name: images[0].size for place, images in folders.items()}
    _write_config(labels.categories, columns, has_individuals, folder, sizes)
    if has_h5:
        return []
    return [
        f"DeepLabCut trains on .h5, which needs pandas and PyTables: {how_to_install('convert')} and "
        "convert again, or make it with deeplabcut.convertcsv2h5('config.yaml', userfeedback=False)."
    ]


def _write_h5(header: dict[str, list[str]], rows: list[list[str]], path: Path) -> bool:
    """Write a table as pandas stores it; False if a package for that is not installed."""
    try:
        import pandas as pd
        import tables  # noqa: F401
    except ModuleNotFoundError:
        return False
    values = [[float(cell) if cell else math.nan for cell in row[N_PATH_CELLS:]] for row in rows]
    # Text stored as objects, as by the versions of pandas that DeepLabCut runs on.
    images = [pd.Index(cells, dtype=object) for cells in zip(*(row[:N_PATH_CELLS] for row in rows), strict=True)]
    names = [pd.Index(cells, dtype=object) for cells in header.values()]
    index, columns = pd.MultiIndex.from_arrays(images), pd.MultiIndex.from_arrays(names, names=list(header))
    pd.DataFrame(values, index=index, columns=columns).to_hdf(path, key=H5_KEY, mode="w")
    return True


def _write_config(
    categories: list[Category],
    columns: list[Column],
    has_individuals: bool,
    folder: Path,
    sizes: dict[str, tuple[int, int]],
) -> None:
    """Write a project's config; DeepLabCut finds image folders by the names of videos, which need not exist."""
    parts = {category.name == SINGLE: category.keypoints for category in categories}
    content: dict[str, Any] = {
        "Task": next((one.name for one in categories if one.name != SINGLE), ANIMAL),
        "scorer": SCORER,
        "date": datetime.now(timezone.utc).strftime("%b%d"),
        "multianimalproject": has_individuals,
        "identity": False,
        "project_path": str(folder.absolute()),
        "video_sets": {
            str(folder.absolute() / "videos" / f"{name}.mp4"): {"crop": f"0, {width}, 0, {height}"}
            for name, (height, width) in sizes.items()
        },
    }
    if has_individuals:
        individuals = dict.fromkeys(column.individual for column in columns if column.individual != SINGLE)
        content |= {"individuals": list(individuals), "uniquebodyparts": parts.get(True, [])}
        content |= {"multianimalbodyparts": parts.get(False, []), "bodyparts": "MULTI!"}
    else:
        content["bodyparts"] = parts[False]
    content["skeleton"] = [[one.keypoints[a], one.keypoints[b]] for one in categories for a, b in one.skeleton]
    content |= DEFAULTS
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def _name_columns(categories: list[Category], counts: list[int]) -> list[Column]:
    return [
        Column(individual, keypoint, coordinate)
        for category, count in zip(categories, counts, strict=True)
        for individual in _name_individuals(category, count)
        for keypoint in category.keypoints
        for coordinate in ("x", "y")
    ]


def _name_individuals(category: Category, count: int) -> list[str]:
    return [SINGLE] if category.name == SINGLE else [f"individual{number}" for number in range(1, max(count, 1) + 1)]


def _make_row(image: LabelledImage, folder: Path, categories: list[Category], columns: list[Column]) -> list[str]:
    assert image.path is not None
    cells: dict[Column, str] = {}
    n_animals = 0
    for instance in image.instances:
        category = categories[instance.category]
        n_animals += category.name != SINGLE
        individual = SINGLE if category.name == SINGLE else f"individual{n_animals}"
        for keypoint, (x, y), is_labelled in zip(
            category.keypoints, instance.points.tolist(), instance.is_labelled, strict=True
        ):
            if is_labelled:
                cells[Column(individual, keypoint, "x")] = str(round_px(x))
                cells[Column(individual, keypoint, "y")] = str(round_px(y))
    return [IMAGE_FOLDER, folder.name, image.path.name, *(cells.get(column, "") for column in columns)]
