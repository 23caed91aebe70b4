import errno
import json
from pathlib import Path

import pytest
import torch
from conftest import write_discs
from PIL import Image
from torchvision.transforms import v2

from keypoint_detection.data.augmentation import default_augmentation
from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.dataset import KeypointsDataset, collate
from keypoint_detection.data.default_augmentation import DefaultAugmentation
from keypoint_detection.data.sampling import Draw
from keypoint_detection.geometry import apply_affine
from keypoint_detection.images import ImageError
from keypoint_detection.types import DataError

CHANNELS = {"sides": ["left", "right"], "red": ["red"], "also_left": ["left"]}


@pytest.fixture
def table(discs):
    return read_coco(discs, coordinates="continuous")


def points_of(sample, channel):
    return sample.truths.points[sample.channels == channel]


def test_a_channel_collects_its_types_and_a_type_may_be_in_two(table):
    sample = KeypointsDataset(table, CHANNELS, image_size=None, resize_mode="letterbox", visible_only=False)[0]
    red, left, right = table.truths.points[:3].tolist()
    assert len(sample.truths.points) == 4
    assert sorted(points_of(sample, 0).tolist()) == sorted([left, right])
    assert points_of(sample, 1).tolist() == [red]
    assert points_of(sample, 2).tolist() == [left]


def test_a_picture_without_annotations_is_a_negative(table):
    sample = KeypointsDataset(table, CHANNELS, image_size=None, resize_mode="letterbox", visible_only=False)[2]
    assert sample.truths.points.shape == (0, 2)
    assert sample.image.shape == (3, 48, 64)


def test_indices_choose_the_pictures(table):
    dataset = KeypointsDataset(
        table, CHANNELS, indices=[5, 1], image_size=None, resize_mode="letterbox", visible_only=False
    )
    assert [sample.image_id for sample in (dataset[0], dataset[1])] == [15, 11]


def test_the_map_to_the_picture_leads_back_to_the_label(table):
    dataset = KeypointsDataset(table, CHANNELS, image_size=(100, 90), resize_mode="letterbox", visible_only=False)
    sample = dataset[0]
    assert sample.image.shape == (3, 100, 90)
    back = apply_affine(points_of(sample, 1)[None], sample.input_to_image[None])[0, 0]
    assert back.tolist() == pytest.approx(table.truths.points[0].tolist(), abs=1e-4)
    x, y = points_of(sample, 1)[0].int().tolist()
    assert sample.image[:, y, x].tolist() == pytest.approx([255, 0, 0], abs=8)


def test_a_mirror_exchanges_the_types_of_a_pair(table):
    flip = v2.RandomHorizontalFlip(1.0)
    channels = {"left": ["left"], "right": ["right"], "red": ["red"]}
    sample = KeypointsDataset(
        table,
        channels,
        transform=flip,
        flip_pairs=[("left", "right")],
        image_size=None,
        resize_mode="letterbox",
        visible_only=False,
    )[0]
    red, left, right = table.truths.points[:3]
    assert points_of(sample, 0)[0].tolist() == pytest.approx([64 - right[0], right[1]])
    assert points_of(sample, 1)[0].tolist() == pytest.approx([64 - left[0], left[1]])
    assert points_of(sample, 2)[0].tolist() == pytest.approx([64 - red[0], red[1]])


def test_an_empty_list_of_pairs_allows_mirrors_and_exchanges_nothing(table):
    dataset = KeypointsDataset(
        table,
        CHANNELS,
        transform=v2.RandomHorizontalFlip(1.0),
        flip_pairs=[],
        image_size=None,
        resize_mode="letterbox",
        visible_only=False,
    )
    assert points_of(dataset[0], 2)[0, 0].item() == pytest.approx(64 - table.truths.points[1, 0])


TWO_CATEGORIES = {"left": ["left"], "right": ["right"], "red": ["red"]}


@pytest.mark.parametrize(
    ("pairs", "refused"),
    [
        ([("left", "right")], False),
        ([("rat/left", "rat/right"), ("mouse/left", "mouse/right")], False),
        ([("mouse/left", "mouse/right")], True),
        ([("mouse/left", "rat/right")], True),
    ],
)
def test_pairs_of_some_categories_are_refused_where_a_channel_collects_all(discs, pairs, refused):
    content = json.loads(discs.read_text())
    (mouse,) = content["categories"]
    content["categories"] = [{**mouse, "name": "mouse"}, {**mouse, "name": "rat", "id": mouse["id"] + 1}]
    path = discs.parent / "two.json"
    path.write_text(json.dumps(content))
    table = read_coco(path, coordinates="continuous")

    def make(channels):
        options = {"image_size": None, "resize_mode": "letterbox", "visible_only": False}
        return KeypointsDataset(table, channels, flip_pairs=pairs, **options)

    if refused:
        with pytest.raises(
            DataError, match=r"channel 'left' becomes .*, but channel 'right' collects mouse/right, rat/"
        ):
            make(TWO_CATEGORIES)
    else:
        assert make(TWO_CATEGORIES).mirrored_types is not None
    # A channel of the one category alone has a twin of its own.
    one_category = {"a": ["mouse/left"], "b": ["mouse/right"], "c": ["rat/right"], "d": ["rat/left"]}
    assert make(one_category).mirrored_types is not None


def test_a_mirror_without_known_pairs_is_refused(table):
    dataset = KeypointsDataset(
        table,
        CHANNELS,
        transform=v2.RandomHorizontalFlip(1.0),
        image_size=None,
        resize_mode="letterbox",
        visible_only=False,
    )
    with pytest.raises(ValueError, match=r"Give data\.flip_pairs"):
        dataset[0]


def test_points_that_leave_the_picture_are_dropped_not_clamped(table):
    dataset = KeypointsDataset(
        table,
        {"red": ["red"]},
        transform=v2.CenterCrop((48, 20)),
        image_size=None,
        resize_mode="letterbox",
        visible_only=False,
    )
    expected = sum(22 <= point[0] <= 42 for point in table.truths.points[0::3].tolist())
    assert 0 < expected < 11
    assert sum(len(dataset[index].channels) for index in range(len(dataset))) == expected


def test_labels_outside_of_their_picture_are_dropped(write_coco):
    path = write_coco(annotations=[{"id": 5, "image_id": 1, "category_id": 1, "keypoints": [-1, 2, 2, 10, 8, 2]}])
    dataset = KeypointsDataset(
        read_coco(path, coordinates="continuous"),
        {"nose": ["nose"], "tail": ["tail"]},
        image_size=(30, 30),
        resize_mode="letterbox",
        visible_only=False,
    )
    assert dataset[0].channels.tolist() == [1]


def test_occluded_points_can_be_left_out(write_coco):
    table = read_coco(write_coco(), coordinates="continuous")  # the nose visible, the tail occluded
    channels = {"nose": ["nose"], "tail": ["tail"]}
    assert KeypointsDataset(table, channels, image_size=None, resize_mode="letterbox", visible_only=False)[
        0
    ].truths.visibility.tolist() == [2, 1]
    assert KeypointsDataset(table, channels, visible_only=True, image_size=None, resize_mode="letterbox")[
        0
    ].truths.visibility.tolist() == [2]


def test_a_batch_pads_points_and_keeps_their_order(table):
    dataset = KeypointsDataset(table, CHANNELS, image_size=None, resize_mode="letterbox", visible_only=False)
    batch = collate([dataset[0], dataset[2], dataset[1]])
    assert batch.images.shape == (3, 3, 48, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.points.shape == (3, 3, 2, 2)
    assert batch.visibility.tolist() == [
        [[2, 2], [2, 0], [2, 0]],
        [[0, 0], [0, 0], [0, 0]],
        [[2, 2], [2, 0], [2, 0]],
    ]
    assert batch.points[0, 0].tolist() == points_of(dataset[0], 0).tolist()
    assert batch.truths.instances[0].tolist() == [[0, 0], [0, -1], [0, -1]]
    assert batch.truths.box_sizes[0, 0].tolist() == [30, 30]
    assert batch.truths.areas[1].isnan().all()
    assert batch.image_ids.tolist() == [10, 12, 11]
    assert batch.image_sizes.tolist() == [[48, 64]] * 3


def test_a_batch_without_any_point_has_no_slots(table):
    batch = collate(
        [KeypointsDataset(table, CHANNELS, image_size=None, resize_mode="letterbox", visible_only=False)[2]]
    )
    assert batch.points.shape == (1, 3, 0, 2)
    assert batch.visibility.shape == (1, 3, 0)


def test_pictures_of_different_sizes_say_what_to_set(table):
    small = KeypointsDataset(table, CHANNELS, image_size=(16, 16), resize_mode="letterbox", visible_only=False)[0]
    with pytest.raises(ValueError, match=r"\(16, 16\), \(48, 64\).*Set data\.image_size"):
        collate(
            [small, KeypointsDataset(table, CHANNELS, image_size=None, resize_mode="letterbox", visible_only=False)[0]]
        )


def test_the_seed_of_a_draw_decides_its_augmentation_and_leaves_the_global_generator_alone(discs):
    table = read_coco(discs, coordinates="continuous")
    dataset = KeypointsDataset(
        table,
        {"red": ["red"]},
        transform=v2.RandomAffine(40, (0.2, 0.2)),
        image_size=None,
        resize_mode="letterbox",
        visible_only=False,
    )
    state = torch.get_rng_state()
    first, again, other = (dataset[Draw(3, seed)] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    torch.manual_seed(7)
    assert torch.equal(dataset[Draw(3, 1)].image, first.image)


@pytest.fixture
def some_unreadable(tmp_path, monkeypatch):
    """Twelve images, of which those at 3, 4 and 9 disappeared after the start."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    table = read_coco(write_discs(tmp_path, 12), coordinates="continuous")
    for position in (3, 4, 9):
        Path(table.image_paths[position].decode()).unlink()
    return table, waits


def make_patient(table, unreadable, **options):
    options = {"image_size": (24, 32), "resize_mode": "letterbox", "visible_only": False, **options}
    return KeypointsDataset(table, CHANNELS, unreadable=unreadable, **options)


def test_an_image_that_disappeared_is_named_with_the_option_that_goes_on_without_it(some_unreadable):
    table, waits = some_unreadable
    with pytest.raises(ImageError, match=r"0-3.png: no such file. --data.on_bad_image=skip goes on without it"):
        make_patient(table, "raise")[3]
    assert len(waits) == 4


def test_the_next_image_that_can_be_read_replaces_one_that_cannot(some_unreadable):
    table, waits = some_unreadable
    dataset = make_patient(table, "replace")
    sample = dataset[Draw(3, 7)]
    assert torch.equal(sample.image, dataset[Draw(5, 7)].image)
    assert sample.image_id == 15
    assert [image_id for image_id, _ in sample.failures] == [13, 14]
    assert not sample.is_missing
    n_waits = len(waits)
    assert dataset[Draw(3, 7)].image_id == 15
    assert len(waits) == n_waits, "waited again for an image that was given up"


def test_a_disk_that_is_gone_ends_a_training_that_replaces_images(some_unreadable):
    table, _ = some_unreadable
    for path in table.image_paths:
        Path(path.decode()).unlink(missing_ok=True)
    with pytest.raises(ImageError, match="11 images in a row cannot be read"):
        make_patient(table, "replace")[0]


def test_a_batch_leaves_out_images_that_cannot_be_read(some_unreadable):
    table, _ = some_unreadable
    dataset = make_patient(table, "leave out")
    batch = collate([dataset[position] for position in (2, 3, 4, 5)])
    assert batch.image_ids.tolist() == [12, 15]
    assert [image_id for image_id, _ in batch.failures] == [13, 14]
    assert batch.images.shape == (2, 3, 24, 32)
    nothing = collate([dataset[3], dataset[4]])
    assert nothing.images.shape == (0, 3, 24, 32)
    assert nothing.points.shape[:2] == (0, 3)
    assert len(nothing.failures) == 2


def test_trying_again_changes_no_random_number(discs, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    table = read_coco(discs, coordinates="continuous")

    def read(n_failures):
        torch.manual_seed(3)
        opened = iter(range(100))

        def open_image(path, *args, **options):
            if next(opened) < n_failures:
                raise OSError(errno.EIO, "input/output error")
            return pillow_open(path, *args, **options)

        monkeypatch.setattr("PIL.Image.open", open_image)
        dataset = make_patient(table, "raise", transform=default_augmentation(False)[0])
        return dataset[0].image, torch.rand(1)

    pillow_open = Image.open
    (smooth, after), (bumpy, after_bumps) = read(0), read(3)
    assert torch.equal(smooth, bumpy)
    assert after == after_bumps


@pytest.mark.parametrize("size", [None, (40, 70)])
@pytest.mark.parametrize(
    "transforms",
    [[], [DefaultAugmentation(flip=True)], [DefaultAugmentation(), v2.RandomHorizontalFlip()], [v2.RandomRotation(90)]],
    ids=["plain", "default", "default and more", "rotation"],
)
def test_centres_of_objects_move_with_the_image(write_coco, size, transforms):
    entries = [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [3, 2, 2, 5, 6, 2], "bbox": [1, 1, 6, 4]},
        {"id": 2, "image_id": 1, "category_id": 1, "keypoints": [7, 2, 2, 9, 6, 1]},
        {"id": 3, "image_id": 1, "category_id": 1, "keypoints": [4, 4, 2, 0, 0, 0], "bbox": [-90, -30, 20, 20]},
    ]
    table = read_coco(write_coco(annotations=entries), coordinates="continuous")
    # Of the box, of the points without a box, and outside the image.
    assert table.truths.centres.tolist() == [[4, 3], [4, 3], [8, 4], [8, 4], [-80, -20]]
    transform = v2.Compose(transforms) if transforms else None
    channels = {"nose": ["nose"], "tail": ["tail"]}
    options = {"resize_mode": "stretch", "transform": transform, "flip_pairs": [], "visible_only": False}
    dataset = KeypointsDataset(table, channels, image_size=size, **options)
    for seed in range(10):
        truths, to_image = dataset[Draw(0, seed)].truths, dataset[Draw(0, seed)].input_to_image
        expected = torch.tensor([[4.0, 3.0], [8, 4], [-80, -20]])[truths.instances]
        torch.testing.assert_close(apply_affine(truths.centres[None], to_image[None])[0], expected, atol=1e-3, rtol=0)


def test_centres_follow_the_convention_of_the_points(write_coco):
    table = read_coco(write_coco(), coordinates="pixel_index")
    assert table.truths.centres.tolist() == [[2.5, 3.5], [2.5, 3.5]]
