import json
import logging
import pickle
import subprocess
import sys

import pytest
import torch
from conftest import write_discs
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.boxes.data_set import SyntheticBoxes
from keypoint_detection.boxes.scene import KEYPOINT_NAMES
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.types import PADDING, DataError

CHANNELS = {"red": ["red"], "sides": ["left", "right"]}


def ids(loader):
    return [image_id for batch in loader for image_id in batch.image_ids.tolist()]


def make(path, **options):
    return KeypointsDataModule(**{"train": str(path), "channels": CHANNELS, "num_workers": 0, **options})


def test_validation_is_kept_aside_by_a_seed(discs):
    first, again, other = (make(discs, val_fraction=0.25, split_seed=seed, group_by="image") for seed in (1, 1, 2))
    for data in (first, again, other):
        data.setup("fit")
    train, val = sorted(ids(first.train_dataloader())), ids(first.val_dataloader())
    assert len(val) == 3
    assert sorted(train + val) == list(range(10, 22))
    assert ids(again.val_dataloader()) == val
    assert ids(other.val_dataloader()) != val


def test_images_that_differ_in_a_running_number_are_held_out_in_one_piece(discs):
    data = make(discs, val_fraction=0.25)
    data.setup("fit")
    train, val = sorted(ids(data.train_dataloader())), ids(data.val_dataloader())
    assert val == list(range(val[0], val[0] + 3))
    assert set(train) == set(range(10, 22)) - set(range(val[0] - 1, val[0] + 4))
    assert data.describe_split().startswith("3 of 12 images are held out, with consecutive numbers in images/0*, and ")
    assert data.held_out_groups("val").shape == (0, 2)


def test_whole_groups_are_held_out_and_resampled_by_default(tmp_path):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "mouse", "keypoints": ["tip"]}]}
    for number, name in enumerate(f"{video}_{frame}.png" for video in "abcde" for frame in range(3)):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
        content["images"].append({"id": number, "file_name": name, "width": 16, "height": 16})
        content["annotations"].append({"id": number, "image_id": number, "category_id": 1, "keypoints": [4, 4, 2]})
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = make(tmp_path / "train.json", channels=["tip"])
    data.setup("fit")
    held_out = data.held_out_groups("val")
    assert len(held_out) == 3
    assert len(set(held_out[:, 1])) == 1
    assert "3 of 15 images are held out: 1 of 5 groups" in data.describe_split()


def test_augmentation_never_touches_the_validation_part(discs):
    data = make(discs, augmentation=[v2.RandomInvert(1.0)], val_fraction=0.5)
    data.setup("fit")
    plain = make(discs, augment=False, val_fraction=0.5)
    plain.setup("fit")
    for changed, untouched in zip(data.val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(changed.images, untouched.images)
    by_id = {int(i): image for b in plain.train_dataloader() for i, image in zip(b.image_ids, b.images, strict=True)}
    for batch in data.train_dataloader():
        for image_id, image in zip(batch.image_ids, batch.images, strict=True):
            assert torch.equal(image, 255 - by_id[int(image_id)])


def test_a_validation_file_leaves_the_training_file_whole(discs, tmp_path):
    data = make(discs, val=str(discs))
    data.setup("fit")
    assert len(ids(data.train_dataloader())) == 12
    assert ids(data.val_dataloader()) == list(range(10, 22))


def test_the_training_order_changes_with_every_epoch(discs):
    torch.manual_seed(0)
    data = make(discs)
    data.setup("fit")
    loader = data.train_dataloader()
    first, again = ids(loader), ids(loader)
    loader.sampler.set_epoch(1)
    assert first == again != ids(loader)
    assert sorted(first) == sorted(ids(loader))


def test_channels_that_are_left_out_come_from_the_file(discs):
    data = make(discs, channels=None)
    data.setup("fit")
    assert next(iter(data.val_dataloader())).points.shape[1] == 3
    assert set(data.describe()["train"]["points"]) == {"red", "left", "right"}


def test_all_of_a_batch_moves_to_the_device(discs):
    data = make(discs)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    tensors = [one for one in (*moved, *moved.truths) if isinstance(one, torch.Tensor)]
    assert (len(tensors), {one.device.type for one in tensors}) == (4 + len(PADDING), {"meta"})
    assert type(moved) is type(batch)


def test_the_description_counts_images_and_points(discs):
    data = make(discs, test=str(discs))
    data.setup("test")
    described = data.describe()["test"]
    assert described["images"] == 12
    assert described["points"] == {"red": 11, "sides": 22}
    assert len(described["sha256"]) == 64


@pytest.mark.parametrize(
    ("stage", "options", "text"),
    [
        ("fit", {"train": None}, "no training file: give --data.train"),
        ("validate", {"train": None}, "no validation file: give --data.val"),
        ("test", {}, "no test file: give --data.test"),
        ("fit", {"channels": ["nose"]}, "channel 'nose' names 'nose'.*types are: red, left, right"),
        ("fit", {"flip_pairs": [("left", "rigt")]}, r"data\.flip_pairs names 'rigt'.*types are: red, left, right"),
        ("fit", {"synthetic": SyntheticBoxes()}, r"data\.synthetic draws its own files"),
    ],
)
def test_what_cannot_be_set_up_says_why(discs, stage, options, text):
    with pytest.raises(DataError, match=text):
        make(discs, **options).setup(stage)


def test_one_picture_cannot_be_split(write_coco):
    with pytest.raises(DataError, match=r"1 image\(s\) cannot be split"):
        make(write_coco(), channels=None).setup("fit")


def test_training_without_a_single_label_is_refused(write_coco):
    path = write_coco(annotations=[])
    with pytest.raises(DataError, match="not a single labelled keypoint"):
        make(path, channels=None, val=str(path)).setup("fit")


def test_pictures_of_several_sizes_need_an_image_size(write_coco, tmp_path):
    path = write_coco(images=[{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "two.png"}])
    Image.new("RGB", (20, 30)).save(tmp_path / "two.png")
    with pytest.raises(DataError, match=r"8x10 .*30x20 .*Set data\.image_size"):
        make(path, channels=None, val=str(path)).setup("fit")
    make(path, channels=None, val=str(path), image_size=(16, 16)).setup("fit")


def test_sideways_pictures_count_as_they_are_shown(write_coco, tmp_path):
    path = write_coco(images=[{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "two.png"}])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 10)).save(tmp_path / "two.png", exif=exif)
    make(path, channels=None, val=str(path)).setup("fit")


def test_the_procedural_data_set_is_drawn_and_used(tmp_path):
    boxes = SyntheticBoxes(folder=str(tmp_path / "boxes"), n_train=2, n_val=1, height=64, width=64)
    data = KeypointsDataModule(synthetic=boxes, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert {str(one) for one in data.parts["train"].table.keypoint_types} == set(KEYPOINT_NAMES)
    assert len(ids(data.train_dataloader())) == 2
    assert len(ids(data.val_dataloader())) == 1


def test_nothing_is_drawn_if_files_are_given_too(discs, tmp_path):
    boxes = SyntheticBoxes(folder=str(tmp_path / "boxes"), n_train=2, n_val=1, height=64, width=64)
    with pytest.raises(DataError, match=r"data\.synthetic draws its own files"):
        make(discs, synthetic=boxes).prepare_data()
    assert not (tmp_path / "boxes").exists()


def test_workers_share_flat_arrays_not_python_objects(discs):
    """The size of what a worker copies grows with the bytes of the arrays, not with a number of objects."""
    data = make(discs)
    data.setup("fit")
    table = data.train_dataloader().dataset.table
    assert len(pickle.dumps(table)) < 3000 + sum(column.nbytes for column in table if hasattr(column, "nbytes"))
    assert all(column.dtype != object for column in table if hasattr(column, "dtype"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cache_on_disk_serves_later_epochs_and_later_runs(discs, tmp_path, num_workers):
    folder = tmp_path / "cache"
    options = {"image_size": (32, 40), "cache": "disk", "cache_folder": str(folder), "num_workers": num_workers}

    def images(path):
        data = make(path, val=str(path), **options)
        data.prepare_data()
        data.setup("fit")
        return {i: one for b in data.train_dataloader() for i, one in zip(b.image_ids.tolist(), b.images, strict=True)}

    first = images(discs)
    assert len(list(folder.glob("??/*"))) == 12
    moments = {entry: entry.stat().st_mtime_ns for entry in folder.glob("??/*")}
    again = images(discs)
    assert set(first) == set(again) == set(range(10, 22))
    assert all(torch.equal(first[image_id], again[image_id]) for image_id in first)
    assert {entry: entry.stat().st_mtime_ns for entry in folder.glob("??/*")} == moments


def test_hyperparameters_made_in_python_are_plain(discs):
    data = make(discs, augmentation=[v2.RandomGrayscale()], image_size=(32, 32))
    assert data.hparams["image_size"] == [32, 32]
    assert json.dumps(dict(data.hparams))


@pytest.mark.parametrize("pairs", [[("red", "left"), ("left", "right")], [("left", "left")]])
def test_a_type_with_two_twins_is_refused(discs, pairs):
    with pytest.raises(DataError, match="has no single twin"):
        make(discs, flip_pairs=pairs).setup("fit")


def test_training_without_a_point_that_counts_is_refused(write_coco):
    outside = {"id": 5, "image_id": 1, "category_id": 1, "keypoints": [50, 2, 2, 3, 4, 1]}
    path = str(write_coco(annotations=[outside]))
    with pytest.raises(DataError, match=r"not a single labelled keypoint.*The file has 2"):
        make(path, channels=["nose"], val=path).setup("fit")
    with pytest.raises(DataError, match="not a single labelled keypoint"):
        make(path, channels=["tail"], val=path, visible_only=True).setup("fit")
    make(path, channels=["tail"], val=path, augment=False).setup("fit")


def setup_warnings(caplog, path, stage, **options):
    with caplog.at_level(logging.WARNING):
        make(path, channels=["nose", "tail"], **options).setup(stage)
    return [record.getMessage() for record in caplog.records if record.name.endswith("datamodule")]


@pytest.mark.parametrize(
    ("keypoints", "text"),
    [
        ([10, 8, 2, 11, 4, 2], "1 of 2 labelled points is outside its image and is left out."),
        ([10, 9, 2, 11, 4, 2], "2 of 2 labelled points are outside their image and are left out."),
    ],
)
@pytest.mark.parametrize(("stage", "part"), [("validate", "val"), ("test", "test")])
def test_points_outside_their_image_are_warned_of(write_coco, caplog, stage, part, keypoints, text):
    path = write_coco(annotations=[{"id": 1, "image_id": 1, "category_id": 1, "keypoints": keypoints}])
    (message,) = setup_warnings(caplog, path, stage, **{part: str(path)})
    assert message.startswith(f"{path}: {text} E.g. ")
    assert message.endswith(f"in image 1 ({path.parent / 'one.png'}) of 8x10 (height x width).")


def test_only_the_images_of_a_part_are_checked_for_points_outside(write_coco, caplog):
    keypoints = [[11, 2, 2, 3, 4, 2], [1, 2, 2, 3, 4, 2], [1, 2, 2, 3, 11, 2], [4, 4, 2, 3, 4, 2]]
    path = write_coco(
        images=[{"id": index, "file_name": "one.png"} for index in range(4)],
        annotations=[
            {"id": index, "image_id": index, "category_id": 1, "keypoints": one} for index, one in enumerate(keypoints)
        ],
    )
    messages = setup_warnings(caplog, path, "fit", val_fraction=0.5, augment=False, group_by="image")
    assert messages
    assert all("of 4 labelled points" in message for message in messages)
    assert sum(int(message.removeprefix(f"{path}: ").split()[0]) for message in messages) == 2


def test_shares_of_a_side_are_warned_of(write_coco, caplog):
    annotations = [
        {"id": index, "image_id": 1, "category_id": 1, "keypoints": [0.2, 0.5, 2, 0.9, 0.7, 2]} for index in range(5)
    ]
    path = write_coco(annotations=annotations)
    (message,) = setup_warnings(caplog, path, "validate", val=str(path))
    assert "10 labelled points, which is all of them, have coordinates between 0 and 1" in message


def test_twins_of_several_categories_change_places_within_their_own(write_coco):
    names = ["left", "right"]
    path = write_coco(
        categories=[{"id": index, "name": name, "keypoints": names} for index, name in enumerate(["cat", "dog"])],
        annotations=[{"id": 5, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1]}],
    )
    data = make(
        path, channels={"a": ["cat/left"], "b": ["dog/left"], "c": ["right"]}, val=str(path), flip_pairs=[names]
    )
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    assert [str(one) for one in dataset.table.keypoint_types] == ["cat/left", "cat/right", "dog/left", "dog/right"]
    assert dataset.mirrored_types.tolist() == [1, 0, 3, 2]
    assert dataset.type_in_channel.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_an_image_size_that_shows_nothing_is_refused(discs):
    with pytest.raises(DataError, match="the minimum is 8 px"):
        make(discs, image_size=(1, 1))


def test_a_path_is_a_plain_value_in_checkpoints(discs):
    data = KeypointsDataModule(train=discs, channels=CHANNELS)
    assert data.hparams["train"] == str(discs)


def test_the_folds_hold_out_every_image_once(discs):
    held_out = []
    for fold in range(5):
        data = make(discs, n_folds=5, fold=fold, group_by="image")
        data.setup("fit")
        val = ids(data.val_dataloader())
        assert sorted(val + ids(data.train_dataloader())) == list(range(10, 22))
        alone = make(discs, n_folds=5, fold=fold, group_by="image")
        alone.setup("validate")
        assert ids(alone.val_dataloader()) == val
        held_out += val
    assert sorted(held_out) == list(range(10, 22))


def test_groups_stay_together_in_every_kind_of_split(discs):
    # 0-0.png to 0-11.png: the groups are 1 (1, 10, 11), 0, 2, 3, and so on.
    for options in ({}, {"n_folds": 3, "fold": 1}, {"val": str(discs), "train_fraction": 0.5}):
        data = make(discs, group_by=r"-([0-9])[0-9]*\.png", **options)
        data.setup("fit")
        train = set(ids(data.train_dataloader()))
        assert 0 < len(train) < 12
        assert len(train & {11, 20, 21}) in (0, 3)


def test_a_part_of_the_training_images_leaves_validation_as_it_is(discs, monkeypatch):
    parts = {}
    for fraction, seed in ((1.0, 0), (0.5, 0), (0.25, 0), (0.25, 0), (0.25, 1)):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        data = make(discs, n_folds=3, fold=0, train_fraction=fraction, group_by="image")
        data.setup("fit")
        parts.setdefault((fraction, seed), set()).update(ids(data.train_dataloader()))
        assert len(ids(data.val_dataloader())) == 4
    assert [len(part) for part in parts.values()] == [8, 4, 2, 2]
    assert parts[0.25, 0] < parts[0.5, 0] < parts[1.0, 0]
    assert parts[0.25, 0] != parts[0.25, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_folds": 2, "fold": 0, "val": "val.json"}, r"data\.val is val\.json, but data\.n_folds validates on folds"),
        ({"n_folds": 13, "fold": 0, "group_by": "image"}, r"discs-0\.json: data\.n_folds is 13.*only 12 image\(s\)"),
        ({"group_by": "x"}, r"discs-0\.json: data\.group_by='x': 12 of 12 file names do not match it"),
        ({"group_by": 2}, r"discs-0\.json: .*fewer than 2 folders, e\.g\. 'images/0-0\.png'"),
        ({"group_by": 1}, r"discs-0\.json: 1 group\(s\) of images cannot be split"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(discs, options, text):
    with pytest.raises(DataError, match=text):
        make(discs, **options).setup("fit")


def test_folds_that_contradict_themselves_are_refused_at_once(discs):
    for options in ({"n_folds": 3}, {"fold": 3}, {"n_folds": 3, "fold": 3}, {"train_fraction": 0.0}):
        with pytest.raises(DataError, match=r"data\.(fold|n_folds|train_fraction) is"):
            make(discs, **options)


def test_shared_memory_that_is_full_is_an_error_rather_than_an_endless_wait(discs, monkeypatch):
    def refuse(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    data = KeypointsDataModule(train=str(discs), num_workers=1, batch_size=4)
    data.setup("fit")
    with pytest.raises(RuntimeError, match="shared memory"):
        next(iter(data.val_dataloader()))


def test_a_failure_does_not_wait_for_the_reading_processes(discs):
    """They ignore the first SIGTERM, and it is the only one that Python sends before it waits for them."""
    script = "\n".join(
        [
            "from keypoint_detection.data.datamodule import KeypointsDataModule",
            f"data = KeypointsDataModule(train={str(discs)!r}, num_workers=2, batch_size=2)",
            "data.setup('fit')",
            "batches = iter(data.val_dataloader())",
            "next(batches)",
            "raise SystemExit(3)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")


def test_images_damaged_at_the_start_are_left_out_if_asked(tmp_path, caplog):
    path = write_discs(tmp_path, 8)
    (tmp_path / "images" / "0-1.png").write_bytes(b"")
    (tmp_path / "images" / "0-5.png").write_text("no image")
    with pytest.raises(DataError, match=r"2 problems(\n.*){2}--data\.on_bad_image=skip leaves out images"):
        make(path, val=str(path)).setup("validate")
    data = make(path, val=str(path), on_bad_image="skip")
    data.setup("validate")
    assert ids(data.val_dataloader()) == [10, 12, 13, 14, 16, 17]
    (message,) = [one for one in caplog.messages if "cannot be read" in one]
    assert "2 of 8 images cannot be read and are left out" in message
    assert "0-1.png" in message
    assert "0-5.png" in message
    for image in tmp_path.glob("images/*.png"):
        image.write_bytes(b"")
    with pytest.raises(DataError, match="of 8 images, none can be read"):
        make(path, val=str(path), on_bad_image="skip").setup("validate")
