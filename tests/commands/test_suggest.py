import csv
import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spot_detector import blob_image, save

from keypoint_detection.cli import run
from keypoint_detection.data.video import write_video

# The detector's score is the brightness of the spot.
BRIGHTNESS = {"bright.png": 1.0, "b/dim.png": 0.75, "b/middle.png": 0.85}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for number, (name, brightness) in enumerate(BRIGHTNESS.items()):
        save((blob_image(15 + 25 * number, 12 + 18 * number) * brightness).astype(np.uint8), folder / name)
    return folder


def suggest(checkpoint, images, *options):
    run(["suggest", f"--ckpt_path={checkpoint}", f"--images={images}", *options])


def suggested(path="suggested.csv"):
    with Path(path).open(newline="") as file:
        return [row["image"] for row in csv.DictReader(file)]


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        suggest(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_doubtful_images_come_first(checkpoint, images, capsys):
    suggest(checkpoint, images, "--n_images=2")
    assert suggested() == ["b/dim.png", "b/middle.png"]
    assert "2 images of 3 to label next" in capsys.readouterr().out
    sheet = np.asarray(Image.open("suggested.png"))
    assert (sheet == (230, 159, 0)).all(-1).any()  # points are drawn


def test_what_is_labelled_is_neither_suggested_nor_repeated(checkpoint, images, capsys):
    shutil.copy(images / "b" / "dim.png", images / "copy.png")
    entries = [{"id": 1, "file_name": "b/dim.png"}]
    (images / "labels.json").write_text(json.dumps({"images": entries}))
    suggest(checkpoint, images, f"--labelled={images / 'labels.json'}", "--output=new/s.csv")
    assert suggested("new/s.csv") == ["b/middle.png", "bright.png"]
    assert "The others are copies" in capsys.readouterr().out


def test_unreadable_images_are_listed_and_in_the_exit_code(checkpoint, images, capsys):
    (images / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        suggest(checkpoint, images)
    assert stop.value.code == 1
    assert "1 file could not be read" in capsys.readouterr().err
    assert sorted(suggested()) == sorted(BRIGHTNESS)


def test_what_cannot_be_done_is_refused(checkpoint, images, capsys):
    assert "ending in .csv" in refusal(capsys, checkpoint, images, "--output=a.txt")
    assert "does not exist" in refusal(capsys, checkpoint, "nowhere")
    assert "are labelled already" in refusal(capsys, checkpoint, images, f"--labelled={images}")
    for name in ("suggested.csv", "suggested.png"):
        Path(name).touch()
        assert f"{name} already exists" in refusal(capsys, checkpoint, images)
        assert not Path(name).read_bytes()
        Path(name).unlink()
    assert not list(Path().glob("suggested*"))


def test_frames_of_a_video_are_suggested_and_written_as_images(checkpoint, tmp_path, capsys):
    brightness = [1.0, 0.75, 1.0, 0.85, 1.0]
    frames = [
        (blob_image(15 + 12 * number, 12 + 8 * number) * value).astype(np.uint8)
        for number, value in enumerate(brightness)
    ]
    write_video("v.mp4", frames, Fraction(10))
    suggest(checkpoint, "v.mp4", "--n_images=2")
    assert suggested() == ["suggested/v.mp4/000001.png", "suggested/v.mp4/000003.png"]
    assert sorted(path.name for path in Path("suggested/v.mp4").iterdir()) == ["000001.png", "000003.png"]
    shown = np.asarray(Image.open("suggested/v.mp4/000003.png")).astype(int)
    assert np.abs(shown - frames[3]).mean() < 3
    assert "2 images of 5" in capsys.readouterr().out
    Path("suggested.csv").unlink()
    Path("suggested.png").unlink()
    assert "suggested already exists" in refusal(capsys, checkpoint, "v.mp4")


def test_of_long_videos_some_frames_are_looked_at(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keypoint_detection.commands.suggest.N_FRAMES", 4)
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mkv"):
        write_video(f"videos/{name}", [blob_image(15 + 5 * number, 30) for number in range(10)], Fraction(10))
    suggest(checkpoint, "videos")
    assert "of 4 to label next" in capsys.readouterr().out
    assert {name.rpartition("/")[2] for name in suggested()} <= {"000000.png", "000005.png"}


def test_a_detector_that_finds_nothing_orders_by_difference(checkpoint, tmp_path, capsys):
    folder = tmp_path / "grey"
    folder.mkdir()
    for number, grey in enumerate([0, 10, 20, 100, 110]):
        Image.new("RGB", (80, 60), (0, 0, grey)).save(folder / f"{number}.png")
    suggest(checkpoint, folder, "--n_images=3")
    assert capsys.readouterr().err.count("they are ranked only by how much they differ") == 1
    assert suggested() == ["0.png", "4.png", "2.png"]
