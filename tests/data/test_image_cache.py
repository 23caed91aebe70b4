import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.data import image_cache
from keypoint_detection.data.augmentation import default_augmentation
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.dataset import KeypointsDataset
from keypoint_detection.data.image_cache import HEADER, ImageCache, open_cache
from keypoint_detection.data.sampling import Draw
from keypoint_detection.images import ImageError
from keypoint_detection.resizing import read_image, resize
from keypoint_detection.types import DataError

ENTRY_BYTES = HEADER.size + 3 * 16 * 16


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{index}.png") for index in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def make(folder, max_bytes=10**6, image_size=(16, 16)):
    folder.mkdir(exist_ok=True)
    return ImageCache(folder, max_bytes, image_size, "letterbox")


def entries(cache):
    return sorted(cache.folder.glob("??/*"))


def expected(path, size=(16, 16)):
    return resize(read_image(path), size, "letterbox")[0]


@pytest.fixture
def n_read(monkeypatch):
    """How often an image is read from its file."""
    read = []
    monkeypatch.setattr(image_cache, "read_image", lambda path: read.append(path) or read_image(path))
    return lambda: len(read)


def test_an_image_is_read_from_its_file_once_for_all_processes(images, tmp_path, n_read):
    cache = make(tmp_path / "cache")
    other = pickle.loads(pickle.dumps(make(tmp_path / "cache")))
    for one in (cache, cache, other):
        found = one.read(images[0])
        assert torch.equal(found.image, expected(images[0]))
        assert found.image_size == (20, 30)
    assert n_read() == 1
    assert [path.stat().st_size for path in entries(cache)] == [ENTRY_BYTES]


def test_what_is_read_depends_on_the_file_and_on_the_size(images, tmp_path, n_read):
    cache = make(tmp_path / "cache")
    cache.read(images[0])
    make(tmp_path / "cache", image_size=(8, 8)).read(images[0])
    assert n_read() == 2
    Image.new("RGB", (30, 20), (200, 0, 0)).save(images[0])
    os.utime(images[0], ns=(1, 1))
    assert torch.equal(cache.read(images[0]).image, expected(images[0]))
    assert n_read() == 3


DAMAGES = {
    "cut off": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "one byte": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "all bytes": lambda raw: b"x" * len(raw),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_made_again(images, tmp_path, n_read, damage):
    cache = make(tmp_path / "cache")
    cache.read(images[0])
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert torch.equal(cache.read(images[0]).image, expected(images[0]))
    assert n_read() == 2
    assert entry.read_bytes() == whole


def test_a_cache_never_takes_more_than_it_may(images, tmp_path, n_read):
    cache = make(tmp_path / "cache", max_bytes=2 * ENTRY_BYTES)
    for path in images * 2:
        assert torch.equal(cache.read(path).image, expected(path))
    assert len(entries(cache)) == 2
    assert n_read() == 4 + 2


def test_a_full_cache_drops_what_is_oldest(images, tmp_path):
    cache = make(tmp_path / "cache", max_bytes=4 * ENTRY_BYTES)
    for age, path in enumerate(images):
        cache.read(path)
        (new,) = [entry for entry in entries(cache) if entry.stat().st_mtime > 1e6]
        os.utime(new, (1000 - age, 1000 - age))
    cache.tidy()
    assert len(entries(cache)) == 2
    assert {entry.stat().st_mtime for entry in entries(cache)} == {1000, 999}
    cache.read(images[3])
    assert len(entries(cache)) == 3


def test_a_cache_deletes_nothing_but_its_entries(images, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "SHARED_MEMORY", tmp_path / "shm")
    folder = tmp_path / "shm" / f"kpd-images-{os.getuid()}"
    others = [folder / name for name in ("db/thesis.tex", "ab/ab", f"cd/ab{'0' * 30}", f"a./ab{'0' * 30}")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    make(folder, max_bytes=1).tidy()
    cache = open_cache("ram", "", 1.0, (16, 16), "letterbox")
    cache.read(images[0])
    assert len(entries(cache)) == 5
    del cache
    assert set(folder.glob("??/*")) == set(others)


def test_a_cache_in_memory_is_not_where_somebody_else_leads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "SHARED_MEMORY", tmp_path)
    (tmp_path / f"kpd-images-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(DataError, match="it belongs to somebody else"):
        open_cache("ram", "", 1.0, (16, 16), "letterbox")


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        make(tmp_path / "cache").read(str(tmp_path / "gone.png"))


def test_a_write_that_fails_leaves_nothing_behind(images, tmp_path, monkeypatch, caplog):
    def fail(*paths):
        raise OSError(28, "No space left on device")

    cache = make(tmp_path / "cache")
    monkeypatch.setattr(os, "replace", fail)
    assert torch.equal(cache.read(images[0]).image, expected(images[0]))
    assert entries(cache) == []
    assert "can be added to the image cache (No space left on device)" in caplog.text


def test_a_damaged_count_does_not_stop_a_training(images, tmp_path):
    cache = make(tmp_path / "cache")
    (cache.folder / "used").write_text("x")
    assert torch.equal(cache.read(images[0]).image, expected(images[0]))
    assert len(entries(cache)) == 1


def test_a_cache_that_disappears_does_not_stop_a_training(images, tmp_path, caplog):
    cache = make(tmp_path / "cache")
    cache.folder.rmdir()
    assert torch.equal(cache.read(images[0]).image, expected(images[0]))
    assert "no more images can be added to the image cache" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.cache: .*file is not writable .*Give data\.cache_folder"):
        open_cache("disk", str(tmp_path / "file"), 1.0, None, "stretch")


RAM = """
import sys
from pathlib import Path
from keypoint_detection.data import image_cache
image_cache.SHARED_MEMORY = Path(sys.argv[1])
cache = image_cache.open_cache("ram", "", 1.0, (16, 16), "letterbox")
cache.read(sys.argv[2])
assert len(list(cache.folder.glob("??/*"))) == int(sys.argv[3])
if sys.argv[4] == "killed":
    import os; os._exit(0)
"""


def test_a_cache_in_memory_lasts_as_long_as_a_process_uses_it(images, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "SHARED_MEMORY", tmp_path)

    def run(image, n_entries, end):
        subprocess.run([sys.executable, "-c", RAM, tmp_path, image, str(n_entries), end], check=True)

    run(images[0], 1, "killed")
    (folder,) = tmp_path.glob("kpd-images-*")
    assert len(list(folder.glob("??/*"))) == 1  # nobody could remove it
    cache = open_cache("ram", "", 1.0, (16, 16), "letterbox")
    assert entries(cache) == []
    cache.read(images[1])
    run(images[0], 2, "ended")
    assert len(entries(cache)) == 2
    del cache
    assert list(folder.glob("??/*")) == []


@pytest.mark.parametrize("image_size", [None, (32, 40)])
def test_samples_from_the_cache_are_those_without(discs, tmp_path, image_size):
    table, channels = read_coco(discs, coordinates="continuous"), {"red": ["red"]}
    plain = KeypointsDataset(table, channels, image_size=image_size, resize_mode="letterbox", visible_only=False)
    cached = KeypointsDataset(
        table,
        channels,
        image_size=image_size,
        cache=make(tmp_path / "c", image_size=image_size),
        resize_mode="letterbox",
        visible_only=False,
    )
    for index in [0, 1, 0, 1]:
        torch.testing.assert_close(cached[index], plain[index], rtol=0, atol=0, equal_nan=True)


def test_the_first_reading_of_a_random_view_is_as_the_second(discs, tmp_path):
    transform = v2.Compose(default_augmentation(may_flip=False))
    cache = make(tmp_path / "cache", image_size=(32, 40))
    dataset = KeypointsDataset(
        read_coco(discs, coordinates="continuous"),
        {"red": ["red"]},
        image_size=(32, 40),
        transform=transform,
        cache=cache,
        resize_mode="letterbox",
        visible_only=False,
    )
    first, second = dataset[Draw(0, 5)], dataset[Draw(0, 5)]
    assert torch.equal(first.image, second.image)
    plain = KeypointsDataset(
        read_coco(discs, coordinates="continuous"),
        {"red": ["red"]},
        image_size=(32, 40),
        transform=transform,
        resize_mode="letterbox",
        visible_only=False,
    )[Draw(0, 5)]
    torch.testing.assert_close(first.truths.points, plain.truths.points)
    torch.testing.assert_close(first.input_to_image, plain.input_to_image)
    assert (first.image.float() - plain.image.float()).abs().mean() < 3
