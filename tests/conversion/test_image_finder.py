import json
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.data.video import write_video


def write_blender(path: Path, *names: str) -> Path:
    entries = [{"image_path": name, "corner_keypoints": [[0.5, 0.5]]} for name in names]
    path.write_text(json.dumps({"dataset": entries}))
    return path


def write_coco(path: Path, *names: str, **more: Any) -> Path:
    images = [{"id": number, "file_name": name, "height": 40, "width": 80} for number, name in enumerate(names)]
    labels = [{"id": n, "image_id": n, "category_id": 1, "keypoints": [9 + n, 9, 2]} for n in range(len(names))]
    categories = [{"id": 1, "name": "mouse", "keypoints": ["nose"]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": labels, "categories": categories, **more}))
    return path


def write_cvat(path: Path, *names: str) -> Path:
    point = '<points label="nose" occluded="0" points="10,10"/>'
    images = "".join(f'<image id="0" name="{name}" width="80" height="40">{point}</image>' for name in names)
    path.write_text(f"<annotations>{images}</annotations>")
    return path


def write_label_studio(path: Path, *names: str) -> Path:
    region = {"id": "a", "to_name": "img", "type": "keypointlabels", "value": {"x": 5, "y": 5, "keypointlabels": ["n"]}}
    tasks = [{"id": 1, "data": {"image": name}, "annotations": [{"result": [region]}]} for name in names]
    path.write_text(json.dumps(tasks))
    return path


def write_deeplabcut(path: Path, *names: str) -> Path:
    rows = "".join(f"{name},10,10\n" for name in names)
    path.write_text(f"scorer,ann,ann\nbodyparts,nose,nose\ncoords,x,y\n{rows}")
    return path


WRITERS = {
    "blender.json": write_blender,
    "coco.json": write_coco,
    "annotations.xml": write_cvat,
    "export.json": write_label_studio,
    "CollectedData_ann.csv": write_deeplabcut,
}
every_format = pytest.mark.parametrize("name", WRITERS)


@every_format
@pytest.mark.parametrize("names", [("a/001.png", "b/001.png"), ("/x/a/001.png", "C:\\x\\b\\001.png")])
def test_two_names_never_lead_to_one_file(draw, read, tmp_path, name, names):
    draw("001.png")
    with pytest.raises(ValueError, match=r"001.png' and .*a/001.png' are two images in the labels, but both lead to"):
        read(WRITERS[name](tmp_path / name, *names))


@every_format
def test_a_data_set_that_was_moved_is_found(draw, read, tmp_path, name):
    paths = [draw("a/001.png"), draw("b/001.png")]
    labels = read(WRITERS[name](tmp_path / name, "/home/me/set/a/001.png", "/home/me/set/b/001.png"))
    assert [image.path for image in labels.images] == paths


@every_format
def test_a_deleted_image_is_not_replaced_by_one_of_its_name_in_another_folder(draw, read, tmp_path, name):
    draw("001.png")
    draw("a/000.png")
    with pytest.raises(ValueError, match=r"1 of 2 images is missing in .*, e.g. 'a/001.png'.* --missing_images=skip"):
        read(WRITERS[name](tmp_path / name, "a/000.png", "a/001.png"))


@every_format
def test_missing_images_are_left_out_and_counted_on_request(draw, read, tmp_path, name):
    draw("a/000.png")
    labels = read(WRITERS[name](tmp_path / name, "a/000.png", "a/001.png", "a/002.png"), missing_images="skip")
    assert len(labels.images) == 1
    assert "Left out: 2 missing images, e.g. 'a/001.png', 'a/002.png'." in labels.notes


@every_format
def test_a_data_set_without_a_single_image_is_refused(read, tmp_path, name):
    with pytest.raises(ValueError, match="2 of 2 images are missing"):
        read(WRITERS[name](tmp_path / name, "a/001.png", "a/002.png"), missing_images="skip")


@every_format
@pytest.mark.parametrize("is_absolute", [True, False])
def test_images_outside_the_folder_are_read_only_on_request(draw, read, tmp_path, name, is_absolute):
    private = draw("private/001.png")
    (tmp_path / "set").mkdir()
    source = WRITERS[name](tmp_path / "set" / name, str(private) if is_absolute else "../private/001.png")
    with pytest.raises(ValueError, match=r"private/001.png' is outside .*set. .* --outside_images=allow"):
        read(source)
    for options in ({"outside_images": "allow"}, {"image_root": tmp_path / "private"}):
        if is_absolute or "outside_images" in options:
            (image,) = read(source, **options).images
            assert image.path.samefile(private)


@every_format
@pytest.mark.parametrize("suffix", [".PNG", ".png", ".jpg"])
def test_names_without_a_suffix_find_their_frame(draw, read, tmp_path, name, suffix):
    path = draw(f"frame_000000{suffix}")
    (tmp_path / "frame_000000.txt").touch()
    (image,) = read(WRITERS[name](tmp_path / name, "frame_000000")).images
    assert image.path == path


@every_format
def test_a_name_without_a_suffix_that_two_files_have_is_missing(draw, read, tmp_path, name):
    for suffix in ("png", "jpg"):
        draw(f"frame_000000.{suffix}")
    with pytest.raises(ValueError, match="the only image is missing"):
        read(WRITERS[name](tmp_path / name, "frame_000000"))


@every_format
def test_names_of_windows_are_found(draw, read, tmp_path, name):
    path = draw("images/0.png")
    (image,) = read(WRITERS[name](tmp_path / name, "images\\0.png")).images
    assert (image.path, image.name) == (path, "images/0.png")


def test_the_advice_for_a_moved_folder_can_be_taken(draw, read, tmp_path):
    draw("set/elsewhere/0.png")
    source = write_coco(tmp_path / "set" / "coco.json", "/media/disk/images/0.png")
    with pytest.raises(ValueError, match=r"if they are the right ones, give --image_root=.*elsewhere\."):
        read(source)
    assert len(read(source, image_root=tmp_path / "set" / "elsewhere").images) == 1


@pytest.fixture
def sleap(tmp_path: Path) -> Callable[..., Path]:
    """Write a SLEAP project of two videos of one name, labelled in their frame 3."""
    sio = pytest.importorskip("sleap_io")

    def write(name: str) -> Path:
        skeleton = sio.Skeleton(["nose"], name="mouse")
        frames = []
        for camera, grey in (("cam1", 30), ("cam2", 200)):
            path = tmp_path / camera / "video.mp4"
            path.parent.mkdir()
            write_video(str(path), [np.full((48, 64, 3), grey, np.uint8)] * 5, Fraction(25))
            mouse = sio.Instance.from_numpy(np.array([[float(grey) / 10, 20.0]]), skeleton=skeleton)
            frames.append(sio.LabeledFrame(sio.Video.from_filename(str(path)), frame_idx=3, instances=[mouse]))
        path = tmp_path / name
        sio.save_slp(sio.Labels(frames), str(path), embed=name.endswith(".pkg.slp"), verbose=False)
        return path

    return write


@pytest.mark.parametrize("name", ["mice.slp", "mice.pkg.slp"])
def test_videos_of_one_name_in_two_folders_stay_apart(sleap, read, name):
    labels = read(sleap(name))
    assert [(image.name, image.group) for image in labels.images] == [
        ("cam1/video/000003.png", "cam1/video"),
        ("cam2/video/000003.png", "cam2/video"),
    ]
    for image, grey in zip(labels.images, (30, 200), strict=True):
        (instance,) = image.instances
        assert instance.points.tolist() == [[grey / 10 + 0.5, 20.5]]
        assert abs(float(image.read().mean()) - grey) < 3


def test_two_videos_never_lead_to_one_file(sleap, read, tmp_path):
    source = sleap("mice.slp")
    (tmp_path / "cam1" / "video.mp4").rename(tmp_path / "video.mp4")
    (tmp_path / "cam2" / "video.mp4").unlink()
    with pytest.raises(ValueError, match=r"cam2/video.mp4' and .*cam1/video.mp4' are two videos in the labels"):
        read(source)


def test_windows_of_one_video_stay_apart(read, tmp_path):
    sio = pytest.importorskip("sleap_io")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    write_video(str(tmp_path / "v.mp4"), [pixels] * 3, Fraction(25))
    video, skeleton = sio.Video.from_filename(str(tmp_path / "v.mp4")), sio.Skeleton(["nose"])
    mouse = np.array([[4.0, 5.0]])
    frames = [
        sio.LabeledFrame(video.crop(window), frame_idx=1, instances=[sio.Instance.from_numpy(mouse, skeleton=skeleton)])
        for window in ((0, 0, 32, 48), (32, 8, 64, 48))
    ]
    sio.save_slp(sio.Labels(frames), str(tmp_path / "mice.slp"), embed=False, verbose=False)
    labels = read(tmp_path / "mice.slp")
    assert [image.name for image in labels.images] == ["v_0_0_32_48/000001.png", "v_32_8_64_48/000001.png"]
    assert [image.read().shape for image in labels.images] == [(48, 32, 3), (40, 32, 3)]
    assert [round(float(image.read().mean()), -2) for image in labels.images] == [0, 200]


def test_images_of_a_kind_that_only_some_programs_know_are_found(tmp_path, read):
    for number, suffix in enumerate(("png", "avif", "gif", "jp2", "jfif")):
        for folder in ("images", "labels"):
            (tmp_path / folder / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 40)).save(tmp_path / "images" / "train" / f"{number}.{suffix}")
        (tmp_path / "labels" / "train" / f"{number}.txt").write_text("0 .5 .5 .6 .6 .3 .3 2\n")
    (tmp_path / "labels" / "train" / "9.txt").touch()
    (tmp_path / "data.yaml").write_text("{train: images/train, names: {0: mouse}, kpt_shape: [1, 3]}")
    labels = read(tmp_path)
    assert [len(image.instances) for image in labels.images] == [1] * 5
    assert labels.notes == [f"Left out: 1 label file without an image, e.g. {tmp_path / 'labels' / 'train' / '9.txt'}."]


def test_a_video_without_labels_need_not_be_there(sleap, read, tmp_path):
    sio = pytest.importorskip("sleap_io")
    source = sleap("mice.slp")
    content = sio.load_slp(str(source), open_videos=False)
    for name in ("gone.mp4", "predictions.slp"):
        content.videos.append(sio.Video(str(tmp_path / name), open_backend=False))
    sio.save_slp(content, str(tmp_path / "more.slp"), embed=False, verbose=False)
    assert len(read(tmp_path / "more.slp").images) == 2


def test_missing_images_of_a_list_are_left_out_on_request(draw, read, tmp_path):
    draw("images/0.png")
    (tmp_path / "labels").mkdir()
    for number in range(2):
        (tmp_path / "labels" / f"{number}.txt").write_text("0 .5 .5 .6 .6 .3 .3 2\n")
    (tmp_path / "train.txt").write_text("./images/0.png\n./images/1.png\n")
    (tmp_path / "data.yaml").write_text("{train: train.txt, names: {0: mouse}, kpt_shape: [1, 3]}")
    with pytest.raises(ValueError, match=r"1 of 2 images is missing in .* --missing_images=skip"):
        read(tmp_path)
    assert len(read(tmp_path, missing_images="skip").images) == 1


# DeepLabCut's tables with two rows of one image are refused.
@pytest.mark.parametrize("name", [one for one in WRITERS if one != "CollectedData_ann.csv"])
def test_an_image_that_is_named_twice_is_told(draw, read, tmp_path, name):
    draw("a/000.png")
    labels = read(WRITERS[name](tmp_path / name, "a/000.png", "a/000.png"))
    assert len(labels.images) == 2
    assert labels.notes == ["Named more than once, each time with its own labels: 1 image, e.g. 'a/000.png'."]


def test_an_archive_is_to_be_unpacked(read, tmp_path):
    (tmp_path / "export.zip").touch()
    with pytest.raises(ValueError, match="is a ZIP archive; unpack it first"):
        read(tmp_path / "export.zip")


@every_format
def test_names_find_files_whose_umlauts_are_stored_otherwise(draw, read, tmp_path, name):
    path = draw(unicodedata.normalize("NFD", "Mäuse/ü.png"))
    (image,) = read(WRITERS[name](tmp_path / name, unicodedata.normalize("NFC", "Mäuse/ü.png"))).images
    assert image.path == path


def test_no_folder_of_another_data_set_is_recommended(draw, read, tmp_path):
    draw("other/0.png")
    draw("set/part/0.png")
    source = write_coco(tmp_path / "set" / "coco.json", "0.png", "1.png")
    with pytest.raises(ValueError, match="2 of 2 images are missing") as caught:
        read(source)
    assert "image_root" not in str(caught.value)
    draw("set/part/1.png")
    with pytest.raises(ValueError, match=r"With --image_root=\S*set/part, all would be found"):
        read(source)
    with pytest.raises(ValueError, match="2 of 2 images are missing") as caught:
        read(source, image_root=tmp_path / "other" / "none")
    assert "With --image_root" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.PNG", "A.png"])
def test_a_name_in_other_case_is_explained_and_no_folder_is_named_twice(draw, read, tmp_path, monkeypatch, name):
    draw("set/images/a.png")
    write_label_studio(tmp_path / "set" / "tasks.json", f"images/{name}")
    monkeypatch.chdir(tmp_path / "set")
    with pytest.raises(ValueError, match="only image is missing in") as caught:
        read(Path("tasks.json"))
    text = str(caught.value)
    assert f"missing in . or {tmp_path}: 'images/{name}'. " in text
    assert f"images/a.png differs from images/{name} only in upper and lower case: rename one of them." in text
