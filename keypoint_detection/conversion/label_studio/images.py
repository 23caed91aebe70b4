"""Find the image that a region was drawn on in Label Studio: object tags, pages, and the addresses of files."""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.problems import Problems
from keypoint_detection.images import IMAGE_SUFFIXES
from keypoint_detection.types import DataError

CONFIG_NAME = "label_config.xml"
# Uploaded files get a prefix of eight hexadecimal digits and a hyphen.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
UPLOAD_FOLDER = re.compile(r"^/?data/upload/(\d+/)?")
IMAGE_NAME = re.compile(rf"({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})$", re.IGNORECASE)


class View(NamedTuple):
    """An image of a task: its address, and the regions drawn on it."""

    address: str
    result: list[dict[str, Any]]


def read_tags(path: Path) -> dict[str, str]:
    """Read which entry of `data` each image tag of a labelling config shows."""
    root = read_config(path)
    tags = [] if root is None else root.iter("Image")
    found = {tag.get("name", ""): tag.get("value") or tag.get("valueList") or "" for tag in tags}
    return {name: value.removeprefix("$") for name, value in found.items() if value.startswith("$")}


def list_views(
    task: dict[str, Any], annotation: dict[str, Any], tags: dict[str, str], used: list[str], problems: Problems
) -> Iterator[View]:
    """List the images of a task that were labelled, with their regions; problems are recorded."""
    try:
        result = annotation.get("result") or []
        data = {key: pages for key, value in (task.get("data") or {}).items() if (pages := _list_pages(key, value))}
        names = list(dict.fromkeys(str(one["to_name"]) for one in result if one.get("to_name")))
        where = f"task {task.get('id')}: 'data'"
        if not data:
            problems.add("no image", f"{where} names no image: {task.get('data')!r:.80}.")
            return
        shown = {name: tags.get(name, name) for name in names or list(tags) or used or ["image"]}
        # Many entries of `data` repeat the name of the image.
        is_one = len({list_names(pages[0])[-1].rpartition("/")[2] for pages in data.values()}) == 1
        if len(shown) == 1 and is_one and not set(shown.values()) & set(data):
            shown = dict.fromkeys(shown, "image" if "image" in data else next(iter(data)))
        shown |= {name: key for name, key in tags.items() if key in data}
        unknown = [name for name, key in shown.items() if key not in data]
        if unknown:
            problems.add(
                "several images",
                f"{where} has the images {', '.join(data)}, and it is unknown which of them {', '.join(unknown)} "
                f"shows: save the labelling config as {CONFIG_NAME} beside the export.",
            )
            return
        first = next(iter(shown.values()))
        for region in result:
            page, n_pages = int(region.get("item_index") or 0), len(data[shown.get(str(region.get("to_name")), first)])
            if page >= n_pages:
                count = count_in_words(n_pages, "page")
                problems.add("page", f"{where} has {count}; a region is on page {page}, counted from 0.")
        ids = {str(one.get("id")): str(one.get("to_name")) for one in result if one.get("to_name")}
        for name, key in shown.items():
            for index, address in enumerate(data[key]):
                yield View(address, [one for one in result if _is_on(one, name, index, ids, len(shown) == 1)])
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        problems.add("layout", describe_layout(task, error))


def _is_on(entry: dict[str, Any], name: str, index: int, ids: dict[str, str], is_only: bool) -> bool:
    """Whether an entry is on a page of an image; relations are on the page of the regions they relate."""
    to_name = str(entry.get("to_name") or ids.get(str(entry.get("from_id"))) or "")
    if entry.get("type") == "relation":
        return is_only or to_name == name
    return (is_only or to_name == name) and int(entry.get("item_index") or 0) == index


def _list_pages(key: str, value: Any) -> list[str]:
    """List the image addresses in an entry of `data`; one called `image` can contain names of any kind."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str) and one for one in values):
        return []
    is_image = key == "image" or all(IMAGE_NAME.search(name) for one in values for name in list_names(one)[:1])
    return values if is_image else []


def list_names(address: str) -> list[str]:
    """List the names that the file at an address could have, the most likely first.

    Label Studio encodes addresses; people who write tasks by hand leave `#`, `%` and `+` as they are.
    """
    parsed = urlparse(address)
    query = parse_qs(parsed.query)
    if "fileuri" in query:  # an address in cloud storage, signed when the image is shown
        uri = query["fileuri"][0].replace(" ", "+").translate(str.maketrans("-_", "+/"))
        try:
            address = base64.b64decode(uri + "=" * (-len(uri) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            address = uri
        parsed, query = urlparse(address), {}
    local = query.get("d")
    has_scheme = "://" in address
    raw = address.partition("?d=")[2] if local else address.partition("://")[2] if has_scheme else address
    decoded = local[0] if local else unquote(parsed.path if has_scheme else address)
    names: list[str] = []
    for name in (decoded, raw):
        short = UPLOAD_FOLDER.sub("", name)
        folder, _, last = short.rpartition("/")
        names += [name.lstrip("/") if has_scheme else name, short]
        names.append(f"{folder}/{UPLOAD_PREFIX.sub('', last)}".lstrip("/"))
    return list(dict.fromkeys(names))


def read_config(path: Path) -> ElementTree.Element | None:
    """Read a labelling config, if there is one."""
    if not path.is_file():
        return None
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not valid XML ({error}); expected a Label Studio labelling config.") from error


def describe_layout(task: dict[str, Any], error: Exception) -> str:
    """Report that the layout of a task differs from that of an export."""
    return f"task {task.get('id')} is not laid out as in a Label Studio export ({error})."
