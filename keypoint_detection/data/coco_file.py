"""Load the JSON of a COCO keypoint file: only the fields in use, with annotations one at a time.

As Python objects, a file of 60,000 images takes seconds and most of a gigabyte. Fields are therefore picked out during
parsing, skipping anything else in the file (segmentations, captions), and an annotation exists only while it is being
processed. Fields can have any type here: their readers report everything wrong with them together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from keypoint_detection.documents import read_bytes, read_json
from keypoint_detection.types import DataError

# The parser refuses what RFC 8259 does not allow (NaN, half of a surrogate pair) and numbers too large for a float.
NotPlainJson = msgspec.DecodeError
EXPECTED = "a COCO keypoint file (JSON)"


class ImageEntry(msgspec.Struct, gc=False):
    """The fields used of an entry of `images`; None for those it lacks."""

    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class AnnotationEntry(msgspec.Struct, gc=False):
    """The fields used of an entry of `annotations`; None, or UNSET for the id, for those it lacks."""

    id: Any = msgspec.UNSET
    image_id: Any = None
    category_id: Any = None
    keypoints: Any = None
    bbox: Any = None
    area: Any = None
    num_keypoints: Any = None


class CategoryEntry(msgspec.Struct, gc=False):
    """The fields used of an entry of `categories`; None, or UNSET for the name, for those it lacks."""

    id: Any = None
    name: Any = msgspec.UNSET
    keypoints: Any = None
    skeleton: Any = None


class CocoFile(NamedTuple):
    """The entries of a COCO keypoint file.

    Attributes:
        info: its description of itself, which can be anything.
        images: all images.
        annotations: the input of `read_annotations`.
        categories: all categories.
    """

    info: Any
    images: list[ImageEntry]
    annotations: list[Any]
    categories: list[CategoryEntry]

    def read_annotations(self) -> Iterator[AnnotationEntry]:
        """Yield the annotations one by one.

        Raises:
            NotPlainJson: an annotation of a file loaded by `load_quickly` is not plain JSON.
        """
        read: Any = _ANNOTATION.decode if self.annotations and isinstance(self.annotations[0], msgspec.Raw) else _pick
        return map(read, self.annotations)


class _Shell(msgspec.Struct, gc=False):
    images: list[ImageEntry]
    annotations: list[msgspec.Raw]  # their text
    categories: list[CategoryEntry]
    info: Any = None


_ANNOTATION = msgspec.json.Decoder(AnnotationEntry)


def _pick(annotation: dict[str, Any]) -> AnnotationEntry:
    return msgspec.convert(annotation, AnnotationEntry)


def load_quickly(path: Path) -> CocoFile:
    """Load a COCO keypoint file, provided that it is plain JSON.

    Raises:
        NotPlainJson: it is not, or is not laid out like a COCO file; `load_leniently` reads it or reports what is
            wrong.
        DataError: there is no such file, or it is of another kind.
    """
    shell = msgspec.json.decode(memoryview(read_bytes(path, EXPECTED)), type=_Shell)
    if not shell.images:
        raise NotPlainJson("no images")
    return CocoFile(shell.info, shell.images, shell.annotations, shell.categories)


def load_leniently(path: Path) -> CocoFile:
    """Load a COCO keypoint file with Python's own parser, which also accepts NaN.

    Raises:
        DataError: there is no such file, or it is not a COCO keypoint file.
    """
    content = read_json(path, EXPECTED)
    expected = "a COCO keypoint file is an object with the lists 'images', 'annotations' and 'categories'"
    if not isinstance(content, dict):
        hint = " Detection results are a list; give the ground-truth file." if content else ""
        raise DataError(f"{path}: contains a {type(content).__name__}; {expected}.{hint}")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            found = "is missing" if key not in content else "is not a list of objects"
            raise DataError(f"{path}: '{key}' {found}; {expected}. It has: {', '.join(map(repr, content))}.")
    if not content["images"]:
        raise DataError(f"{path}: 'images' is empty; there is nothing to train on or to measure.")
    return CocoFile(
        content.get("info"),
        msgspec.convert(content["images"], list[ImageEntry]),
        content["annotations"],
        msgspec.convert(content["categories"], list[CategoryEntry]),
    )
