import numpy as np
import pytest
from PIL import Image

from keypoint_detection.data.coco_keypoints import read_coco
from keypoint_detection.data.image_files import check_images
from keypoint_detection.types import DataError

EXIF_ORIENTATION = 0x0112


def check(path, needs_equal_sizes=False):
    table = read_coco(path, coordinates="continuous")
    return check_images(table, np.arange(len(table.image_ids)), needs_equal_sizes)


def sized(height, width, name="one.png", identifier=1):
    return {"id": identifier, "file_name": name, "height": height, "width": width}


def test_sizes_are_those_of_the_files(write_coco):
    assert check(write_coco(images=[sized(8, 10)])).tolist() == [[8, 10]]
    assert check(write_coco()).tolist() == [[8, 10]]  # the labels do not say


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((400, 600), "labels are for 400x600 .*one.png has 8x10: the labels were made at another size"),
        ((10, 8), "height and width are swapped"),
    ],
)
def test_labels_of_another_size_are_refused(write_coco, size, text):
    with pytest.raises(DataError, match=text):
        check(write_coco(images=[sized(*size)]))


def test_labels_made_before_the_exif_rotation_are_refused(write_coco, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (10, 8)).save(tmp_path / "phone.jpg", exif=exif)
    with pytest.raises(DataError, match=r"10x8 .*the size before its EXIF rotation.*convert its JSON export"):
        check(write_coco(images=[sized(8, 10, "phone.jpg")]))
    assert check(write_coco(images=[sized(10, 8, "phone.jpg")])).tolist() == [[10, 8]]


def test_all_files_that_are_not_images_are_named_together(write_coco, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    names = ["empty.jpg", "text.png", "one.png"]
    path = write_coco(images=[{"id": index, "file_name": name} for index, name in enumerate(names)], annotations=[])
    with pytest.raises(DataError, match=r"2 problems\n.*empty.jpg: cannot be read.*\n.*text.png: cannot be read"):
        check(path)
