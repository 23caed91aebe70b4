import csv
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from spot_detector import blob_image, make_checkpoint, save

from keypoint_detection import Predictor
from keypoint_detection.cli import run
from keypoint_detection.data import unlabelled
from keypoint_detection.data.video import read_frames, write_video

PLACES = {"a.png": (20.25, 30.5), "b/c.jpg": (50.0, 12.75), "b/d.png": (61.5, 44.0)}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for name, (x, y) in PLACES.items():
        save(blob_image(x, y), folder / name, **({"quality": 95} if name.endswith("jpg") else {}))
    return folder


def predict(checkpoint, source, *options, folder="out"):
    run(
        [
            "predict",
            f"--ckpt_path={checkpoint}",
            f"--data.predict={source}",
            f"--output.folder={folder}",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--data.num_workers=0",
            *options,
        ]
    )


def read_csv(path):
    with Path(path).open(newline="") as file:
        return {row["image"]: (float(row["x"]), float(row["y"])) for row in csv.DictReader(file)}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_searched_to_the_bottom(checkpoint, images):
    predict(checkpoint, images)
    assert sorted(path.name for path in Path("out").iterdir()) == ["predictions.csv"]
    found = read_csv("out/predictions.csv")
    assert list(found) == list(PLACES)
    for name, place in PLACES.items():
        assert found[name] == pytest.approx(place, abs=0.1)


def test_the_points_are_those_of_the_python_interface(checkpoint, images):
    predict(checkpoint, images, "--output.format=jsonl", "--data.batch_size=2")
    records = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert len(records) == 3
    detector = Predictor.from_checkpoint(checkpoint)
    for record in records:
        (expected,) = detector(images / record["name"])
        (found,) = record["points"]
        assert found["channel"] == expected.channel
        assert (found["x"], found["y"], found["score"]) == pytest.approx(expected[1:4], abs=1e-3)
        assert (record["height"], record["width"]) == (60, 80)


def test_points_are_precise_in_mixed_precision_too(calibrated_checkpoint, tmp_path):
    small = blob_image(51.8, 30.3, (48, 64))
    save(np.kron(small, np.ones((10, 10, 1), np.uint8)), tmp_path / "large.png")
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        words = ["--output.format=jsonl", f"--trainer.precision={precision}"]
        predict(calibrated_checkpoint, "large.png", *words, folder=precision)
        (found[precision],) = json.loads(Path(precision, "predictions.jsonl").read_text())["points"]
    full, mixed = found.values()
    assert (full["x"], full["y"]) == pytest.approx((518, 303), abs=0.5)
    # The network itself moves points by fractions of its own pixels, which are 10 of these.
    assert (mixed["x"], mixed["y"]) == pytest.approx((full["x"], full["y"]), abs=0.5)
    assert mixed["spread"] == pytest.approx(full["spread"], rel=0.1)


@pytest.mark.parametrize(("source", "names"), [("images/**/*.png", 2), ("images/a.png", 1)])
def test_a_pattern_and_a_single_image_are_taken(checkpoint, images, source, names):
    predict(checkpoint, source)
    assert len(read_csv("out/predictions.csv")) == names


def test_images_keep_their_size_where_the_detector_was_trained_without_one(tmp_path, images):
    save(blob_image(30.0, 20.0, (40, 64)), images / "other.png")
    predict(make_checkpoint(tmp_path), images)
    found = read_csv("out/predictions.csv")
    assert len(found) == 4
    assert found["other.png"] == pytest.approx((30.0, 20.0), abs=0.05)


def test_without_a_folder_the_files_go_to_that_of_the_run(checkpoint, images):
    run(["predict", f"--ckpt_path={checkpoint}", f"--data.predict={images}", "--trainer.accelerator=cpu"])
    assert not Path("predictions.csv").exists()
    (found,) = Path().glob("runs/*-predict/predictions.csv")
    assert list(read_csv(found)) == list(PLACES)


def test_a_folder_that_cannot_be_made_is_named(checkpoint, images, capsys):
    Path("file").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, folder="file/below")
    assert stop.value.code == 2
    assert "file/below cannot be written" in capsys.readouterr().err


def test_pixel_index_is_half_a_pixel_less(checkpoint, images):
    predict(checkpoint, images)
    predict(checkpoint, images, "--output.coordinates=pixel_index", folder="index")
    one, other = read_csv("out/predictions.csv"), read_csv("index/predictions.csv")
    for name in PLACES:
        assert other[name] == pytest.approx((one[name][0] - 0.5, one[name][1] - 0.5), abs=1e-6)


def test_unreadable_images_are_skipped_listed_and_in_the_exit_code(checkpoint, images, capsys):
    (images / "b" / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, "--data.batch_size=1")
    assert stop.value.code == 1
    errors = capsys.readouterr().err
    assert ": 1 image could not be read" in errors
    assert "b/broken.png" in errors
    assert list(read_csv("out/predictions.csv")) == list(PLACES)


def test_an_interrupted_prediction_goes_on_where_it_was(checkpoint, images, monkeypatch):
    read, seen = unlabelled.read_image, []

    def interrupt(path):
        seen.append(Path(path).name)
        if len(seen) == 2:
            raise MemoryError("out of memory")
        return read(path)

    monkeypatch.setattr(unlabelled, "read_image", interrupt)
    with pytest.raises(MemoryError):
        predict(checkpoint, images, "--data.batch_size=1")
    assert not list(Path("out").glob("[!.]*"))
    with pytest.raises(SystemExit):  # not begun again by mistake
        predict(checkpoint, images)
    predict(checkpoint, images, "--resume=true")
    assert seen == ["a.png", "c.jpg", "c.jpg", "d.png"]
    assert list(read_csv("out/predictions.csv")) == list(PLACES)
    assert [path.name for path in Path("out").iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--output.score_threshold=0.9", "output.score_threshold 0.6"),
        ("--output.coordinates=pixel_index", "output.coordinates 'continuous'"),
        ("--data.image_size=[40,64]", "data.image_size [48, 64]"),
        ("--data.resize=stretch", "data.resize 'letterbox'"),
        ("--data.flip_pairs=[]", "model.flip_test False"),
        ("--model.max_keypoints=1", "model.max_keypoints 3"),
        ("--model.min_distance_px=9", "model.min_distance_px"),
        ("--trainer.precision=bf16-mixed", "trainer.precision '32-true'"),
    ],
)
def test_other_options_do_not_go_on(checkpoint, images, option, named, monkeypatch, capsys):
    read = unlabelled.read_image
    monkeypatch.setattr(unlabelled, "read_image", lambda path: read(path) if "a.png" in path else [][0])
    with pytest.raises(IndexError):
        predict(checkpoint, images, "--data.batch_size=1")
    monkeypatch.setattr(unlabelled, "read_image", read)
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, "--resume", option)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err
    predict(checkpoint, images, "--resume", "--output.format=[csv,jsonl]")
    assert list(read_csv("out/predictions.csv")) == list(PLACES)


def test_sigterm_stops_and_the_prediction_can_be_resumed(checkpoint, images, monkeypatch, caplog):
    read = unlabelled.read_image

    def stop_at_the_first(path):
        if "a.png" in path:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(path)

    monkeypatch.setattr(unlabelled, "read_image", stop_at_the_first)
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, "--data.batch_size=1")
    assert stop.value.code == 143
    assert "--output.folder=out --resume" in caplog.text
    assert not list(Path("out").glob("[!.]*"))
    predict(checkpoint, images, "--resume")
    assert list(read_csv("out/predictions.csv")) == list(PLACES)


def test_a_validation_that_found_nothing_gives_no_threshold(checkpoint, images):
    content = torch.load(checkpoint, weights_only=True)
    content["validation"] = {"epoch": 1, "step": 1, "report": {"overall": {"score_threshold": float("nan")}}}
    torch.save(content, checkpoint)
    predict(checkpoint, images)
    assert list(read_csv("out/predictions.csv")) == list(PLACES)


def test_another_detector_does_not_go_on(checkpoint, images, monkeypatch, capsys):
    read = unlabelled.read_image
    monkeypatch.setattr(unlabelled, "read_image", lambda path: read(path) if "a.png" in path else [][0])
    with pytest.raises(IndexError):
        predict(checkpoint, images, "--data.batch_size=1")
    monkeypatch.setattr(unlabelled, "read_image", read)
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.head.bias"] += 0.25
    torch.save(content, checkpoint)
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, "--resume")
    assert stop.value.code == 2
    assert "an interrupted prediction by another detector" in capsys.readouterr().err
    assert not list(Path("out").glob("[!.]*"))


@pytest.mark.parametrize(
    "options",
    [
        ["--data.predict=elsewhere"],
        ["--output.format=xml"],
        ["--output.format=[]"],
        ["--output.resume=true"],
        ["--resume", "--output.folder=new"],
    ],
)
def test_what_cannot_be_done_is_refused(checkpoint, images, options, capsys):
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, *options)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) <= 5


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["--resume"], None),
        (["--resume", "true"], None),
        (["--output.resume"], None),
        (["--config=resuming.yaml"], None),
        ([], "KPD_PREDICT__RESUME"),
        ([], "KPD_PREDICT__OUTPUT__RESUME"),
    ],
)
def test_resuming_is_asked_for_by_either_name(tmp_path, monkeypatch, capsys, words, variable):
    monkeypatch.chdir(tmp_path)
    Path("resuming.yaml").write_text("output: {resume: true}\n")
    if variable:
        monkeypatch.setenv(variable, "true")
    with pytest.raises(SystemExit) as stop:
        run(["predict", *words, "--print_config"])
    assert not stop.value.code
    assert yaml.safe_load(capsys.readouterr().out)["output"]["resume"] is True


def test_files_that_are_there_are_not_overwritten(checkpoint, images, capsys):
    predict(checkpoint, images)
    with pytest.raises(SystemExit):
        predict(checkpoint, images)
    assert "already exists" in capsys.readouterr().err


def coco_file(images, keypoints):
    content = {
        "images": [{"id": 10 + i, "file_name": name, "width": 80, "height": 60} for i, name in enumerate(PLACES)],
        "categories": [{"id": 7, "name": "thing", "keypoints": keypoints}],
        "annotations": [
            {
                "id": 100 + i,
                "image_id": 10 + i,
                "category_id": 7,
                "keypoints": [0, 0, 0, x, y, 2],
                "num_keypoints": 1,
                "bbox": [0, 0, 80, 60],
                "area": 4800,
                "iscrowd": 0,
            }
            for i, (x, y) in enumerate(PLACES.values())
        ],
    }
    path = images / "labels.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_results_are_evaluated_by_pycocotools(checkpoint, images):
    labels = coco_file(images, ["other", "spot"])
    predict(checkpoint, labels, "--output.format=coco")
    truth = COCO(str(labels))
    results = truth.loadRes("out/coco_results.json")
    assert sorted(result["image_id"] for result in results.anns.values()) == [10, 11, 12]
    evaluation = COCOeval(truth, results, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array([0.05, 0.05])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_coco_labels_are_a_data_set_of_their_own(checkpoint, images):
    predict(checkpoint, images, "--output.format=[coco_labels,csv]")
    data_set = COCO("out/coco_labels.json")
    (category,) = data_set.loadCats(data_set.getCatIds())
    assert category["keypoints"] == ["spot"]
    names = [image["file_name"] for image in data_set.loadImgs(data_set.getImgIds())]
    assert [str(Path("out", name).resolve()) for name in names] == [
        str(Path(images, name).resolve()) for name in PLACES
    ]
    annotations = data_set.loadAnns(data_set.getAnnIds())
    assert len(annotations) == 3
    for annotation, place in zip(annotations, read_csv("out/predictions.csv").values(), strict=True):
        assert annotation["keypoints"] == [*place, 2]
        assert annotation["num_keypoints"] == 1


def test_pre_labels_can_be_trained_on(checkpoint, images):
    predict(checkpoint, images, "--output.format=coco_labels")
    run(
        [
            "fit",
            "--data.train=out/coco_labels.json",
            "--data.image_size=[24, 32]",
            "--data.num_workers=0",
            "--trainer.fast_dev_run=true",
            "--trainer.accelerator=cpu",
            "--trainer.logger=false",
        ]
    )


def test_overlays_show_the_points_where_they_are(checkpoint, images):
    predict(checkpoint, images, "--output.overlays=true")
    drawn = np.asarray(Image.open("out/overlays/b/d.png"))
    x, y = (round(8 * value) for value in PLACES["b/d.png"])  # enlarged to at least 480 rows
    assert (drawn[y - 2 : y + 2, x - 2 : x + 2] == (230, 159, 0)).all(-1).any()


def test_overlays_stay_in_their_folder(checkpoint, images, tmp_path, caplog):
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    labels = tmp_path / "annotations" / "v1" / "val.json"
    labels.parent.mkdir(parents=True)
    listed = [{"id": 1, "file_name": "../../images/a.png"}, {"id": 2, "file_name": str(images / "b/d.png")}]
    labels.write_text(json.dumps({"images": listed}))
    predict(checkpoint, labels, "--output.overlays=true", "--data.outside_images=allow")
    predict(checkpoint, "images/../images/b/*", "--output.overlays=true", folder="second")
    assert {path: path.read_bytes() for path in images.rglob("*") if path.is_file()} == before
    drawn = {path.relative_to("out/overlays").as_posix() for path in Path("out/overlays").rglob("*.png")}
    assert drawn == {"images/a.png", f"{images.relative_to('/').as_posix()}/b/d.png"}
    assert len(list(Path("second/overlays").rglob("*.png"))) == 2


def test_each_image_has_its_overlay(checkpoint, images):
    for name in ("a.jpg", "a.PNG", "a.b.jpg", "a.b.png"):
        save(blob_image(*PLACES["a.png"]), images / name)
    predict(checkpoint, images, "--output.overlays=true")
    drawn = sorted(path.name for path in Path("out/overlays").glob("*.png"))
    assert drawn == ["a.PNG.png", "a.b.jpg.png", "a.b.png.png", "a.jpg.png", "a.png-2.png"]


def test_overlays_are_not_mixed_with_those_of_another_prediction(checkpoint, images):
    predict(checkpoint, images, "--output.overlays=true")
    with pytest.raises(SystemExit):
        predict(checkpoint, images, "--output.overlays=true", "--output.format=jsonl")
    predict(checkpoint, images, "--output.format=jsonl")


def test_links_are_followed_and_broken_ones_reported(checkpoint, images, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    save(blob_image(*PLACES["a.png"]), tmp_path / "elsewhere" / "e.png")
    (images / "link").symlink_to(tmp_path / "elsewhere")
    (images / "b" / "loop").symlink_to(images)
    predict(checkpoint, images)
    assert sorted(read_csv("out/predictions.csv")) == [*PLACES, "link/e.png"]
    (images / "broken.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SystemExit) as caught:
        predict(checkpoint, images, folder="second")
    assert caught.value.code == 1
    assert sorted(read_csv("second/predictions.csv")) == [*PLACES, "link/e.png"]


def test_every_frame_of_a_video_has_its_points(checkpoint, tmp_path):
    places = [(10.0 + 5 * index, 30.0) for index in range(12)]
    write_video(str(tmp_path / "v.mp4"), [blob_image(*place) for place in places], 10)
    predict(checkpoint, tmp_path / "v.mp4", "--output.overlays=true", "--data.batch_size=5")
    found = read_csv("out/predictions.csv")
    assert list(found) == [f"v.mp4#{index}" for index in range(12)]
    with Path("out/predictions.csv").open(newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == [str(index) for index in range(12)]
    for point, place in zip(found.values(), places, strict=True):
        assert point == pytest.approx(place, abs=0.5)  # the codec loses some
    assert len(list(read_frames("out/overlay.mp4"))) == 12


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def write_damaged(path, n_frames=12):
    """Write a video of blobs that move by 5 px a frame, the seventh of which cannot be decoded."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "yuvj420p"
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(blob_image(10.0 + 5 * number, 30.0), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        start, size = next((packet.pos, packet.size) for packet in file.demux() if packet.pts == 6 * packet.duration)
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)


def test_a_frame_that_cannot_be_decoded_loses_no_other(checkpoint, tmp_path, capsys):
    write_damaged(tmp_path / "v.mov")
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, "v.mov", "--output.overlays=true", "--output.format=[csv, coco_labels]")
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "1 frame could not be read:" in error
    assert "v.mov: frame 6 cannot be decoded" in error
    rows = rows_of("out/predictions.csv")
    assert [int(row["frame"]) for row in rows] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    for row in rows:
        assert float(row["x"]) == pytest.approx(10 + 5 * int(row["frame"]), abs=0.5)
    assert len(list(read_frames("out/overlay.mp4"))) == 12
    images = json.loads(Path("out/coco_labels.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert images[6]["file_name"] == "frames/v/000007.png"


def test_videos_and_images_of_a_folder_are_predicted_together(checkpoint, images, capsys):
    videos = {"b/v.MP4": 3, "w.mkv": 2}
    for name, n_frames in videos.items():
        path = images / name.lower()
        write_video(str(path), [blob_image(20.0 + 10 * number, 30.0) for number in range(n_frames)], Fraction(10))
        path.rename(images / name)
    (images / "sound.mp4").write_bytes(b"no video")
    words = ["--output.format=[csv, jsonl, coco_labels]", "--output.overlays=true"]
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, *words)
    assert stop.value.code == 1
    assert "1 video could not be read:" in capsys.readouterr().err
    expected = ["a.png", "b/c.jpg", "b/d.png", *(f"b/v.MP4#{number}" for number in range(3)), "w.mkv#0", "w.mkv#1"]
    rows = rows_of("out/predictions.csv")
    assert [row["image"] for row in rows] == expected
    assert [row["frame"] for row in rows] == ["", "", "", "0", "1", "2", "0", "1"]
    assert float(rows[4]["x"]) == pytest.approx(30, abs=0.5)
    records = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert len({record["id"] for record in records}) == 8
    drawn = {path.relative_to("out/overlays").as_posix() for path in Path("out/overlays").rglob("*.*")}
    assert drawn == {"a.png", "b/c.png", "b/d.png", "b/v.mp4", "w.mp4"}
    run(["convert", "out/coco_labels.json", "--output=yolo", "--to=yolo"])
    assert "8 images, 8 objects" in capsys.readouterr().out


def test_workers_share_the_videos(checkpoint, tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(f"videos/{number}.mp4", [blob_image(20.0 + 10 * number, 30.0)] * 3, Fraction(10))
    predict(checkpoint, "videos", "--data.num_workers=2", "--data.batch_size=2")
    found = read_csv("out/predictions.csv")
    assert list(found) == [f"{number}.mp4#{frame}" for number in range(3) for frame in range(3)]
    assert found["2.mp4#1"] == pytest.approx((40.0, 30.0), abs=0.5)


def test_frames_of_other_sizes_keep_them(tmp_path):
    for name, size in (("a.mp4", (60, 80)), ("b.mp4", (40, 64))):
        write_video(name, [blob_image(30.0, 20.0, size)] * 3, Fraction(10))
    predict(make_checkpoint(tmp_path), "*.mp4", "--output.format=jsonl")
    records = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [(record["height"], record["width"]) for record in records] == [(60, 80)] * 3 + [(40, 64)] * 3


def test_what_is_no_video_is_refused_before_anything_is_written(checkpoint, capsys):
    Path("v.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, "v.mp4")
    assert stop.value.code == 2
    assert "v.mp4: cannot be opened as a video" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_prediction_of_other_files_does_not_go_on(checkpoint, images, monkeypatch, capsys):
    read = unlabelled.read_image
    monkeypatch.setattr(unlabelled, "read_image", lambda path: read(path) if "a.png" in path else [][0])
    with pytest.raises(IndexError):
        predict(checkpoint, images, "--data.batch_size=1")
    monkeypatch.setattr(unlabelled, "read_image", read)
    save(blob_image(20.0, 20.0), images / "0.png")
    with pytest.raises(SystemExit) as stop:
        predict(checkpoint, images, "--resume")
    assert stop.value.code == 2
    assert "files have been added, removed or renamed since" in capsys.readouterr().err
    (images / "0.png").unlink()
    predict(checkpoint, images, "--resume")
    assert list(read_csv("out/predictions.csv")) == list(PLACES)


def test_a_video_is_resumed_at_its_frame(checkpoint, monkeypatch):
    write_video("v.mp4", [blob_image(10.0 + 5 * number, 30.0) for number in range(12)], Fraction(10))
    fit, seen = unlabelled._fit, []

    def interrupt(place, *others):
        seen.append(place[1])
        if len(seen) == 7:
            raise MemoryError("out of memory")
        return fit(place, *others)

    monkeypatch.setattr(unlabelled, "_fit", interrupt)
    with pytest.raises(MemoryError):
        predict(checkpoint, "v.mp4", "--data.batch_size=3")
    predict(checkpoint, "v.mp4", "--data.batch_size=3", "--resume")
    assert seen[7:] == list(range(3, 12))  # the second batch was read ahead, and not predicted
    assert list(read_csv("out/predictions.csv")) == [f"v.mp4#{number}" for number in range(12)]


def test_two_processes_write_what_one_writes(checkpoint, images, tmp_path):
    for number in range(2):
        save(blob_image(30.0 + number, 40.0), images / f"e{number}.png")
    predict(checkpoint, images)
    words = [
        sys.executable,
        "-m",
        "keypoint_detection",
        "predict",
        f"--ckpt_path={checkpoint}",
        "--trust=spot_detector",
        f"--data.predict={images}",
        "--output.folder=two",
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--data.batch_size=1",
        "--data.num_workers=0",
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path("two/predictions.csv").read_text() == Path("out/predictions.csv").read_text()


def test_a_calibrated_detector_writes_probability_and_spread(calibrated_checkpoint, images):
    predict(calibrated_checkpoint, images, "--output.format=[csv, jsonl]")
    detector = Predictor.from_checkpoint(calibrated_checkpoint)
    with Path("out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == len(records) == 3
    for row, record in zip(rows, records, strict=True):
        (expected,) = detector(images / row["image"])
        assert float(row["probability"]) == pytest.approx(expected.probability, abs=1e-4)
        assert float(row["spread"]) == pytest.approx(expected.spread, abs=1e-3)
        (point,) = record["points"]
        assert point["covariance"][0] == pytest.approx(expected.covariance[0], abs=2e-3)
        assert point["covariance"][1] == pytest.approx(expected.covariance[1], abs=2e-3)


def test_without_a_calibration_the_columns_are_empty_and_the_way_to_one_is_said(checkpoint, images, caplog):
    predict(checkpoint, images)
    with Path("out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert {(row["probability"], row["spread"]) for row in rows} == {("", "")}
    assert "kpd validate" in caplog.text


def test_weights_that_another_version_of_the_network_wrote_are_explained(checkpoint, images, capsys):
    stored = torch.load(checkpoint, weights_only=True)
    name = next(name for name, value in stored["state_dict"].items() if value.ndim == 4)
    stored["state_dict"][name] = torch.zeros(7, 3, 1, 1)
    torch.save(stored, "old.ckpt")
    with pytest.raises(SystemExit) as stopped:
        predict("old.ckpt", images)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"{name} has shape (7, 3, 1, 1)" in error
    assert "train again" in error
    with pytest.raises(ValueError, match=r"has shape \(7, 3, 1, 1\)"):
        Predictor.from_checkpoint("old.ckpt")


def test_the_number_of_points_is_said_at_the_end(checkpoint, images, caplog):
    with caplog.at_level("INFO"):
        predict(checkpoint, images)
        predict(checkpoint, images, "--output.score_threshold=1.0", folder="none")
    said = [record.message for record in caplog.records if record.message.startswith("Found ")]
    assert said == ["Found 3 points in 3 images.", "Found 0 points in 3 images."]


def test_pre_labels_are_opened_by_other_commands(checkpoint, images, capsys):
    predict(checkpoint, images, "--output.format=coco_labels")
    run(["convert", "out/coco_labels.json", "--output=yolo", "--to=yolo"])
    assert "3 images, 3 objects" in capsys.readouterr().out
    assert sum(path.is_file() for path in Path("yolo/images").rglob("*")) == 3
