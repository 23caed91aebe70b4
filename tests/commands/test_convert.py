import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_discs

from keypoint_detection.cli import run
from keypoint_detection.conversion.formats import FORMATS
from keypoint_detection.data.coco_keypoints import read_coco

TINY = Path(__file__).parents[1] / "conf" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def count_images(path: str) -> int:
    return len(json.loads(Path(path).read_text())["images"])


def test_the_command_reports_what_it_wrote(discs, capsys):
    run(["convert", str(discs), "--output=out", "--to=yolo"])
    assert capsys.readouterr().out == (
        "out (YOLO-pose): 12 images, 1 of them without labels, 11 objects, 33 labelled points (0 occluded) of discs: "
        "red, left, right.\n"
    )
    assert Path("out/data.yaml").is_file()


def test_a_converted_file_is_what_training_reads(discs, capsys):
    run(["convert", str(discs), "--output=out", "--to=deeplabcut"])
    run(["convert", "out", "--output=labels.json"])
    before, after = read_coco(discs, coordinates="continuous"), read_coco("labels.json", coordinates="continuous")
    assert len(after.truths.points) == 33
    assert abs(after.truths.points - before.truths.points).max() < 0.01
    info = json.loads(Path("labels.json").read_text())["info"]
    assert len(info.pop("kpd_folder")) == 16
    assert info == {
        "description": "out, converted from DeepLabCut by kpd 0.1.0",
        "source_format": "deeplabcut",
        "coordinates": "continuous: (0, 0) is the outer corner of the top-left pixel, (0.5, 0.5) its centre",
    }


@pytest.mark.parametrize("name", ["coco", "sleap", "label_studio", "deeplabcut"])
@pytest.mark.parametrize("is_said", [False, True])
def test_a_folder_that_was_written_is_read_again(discs, name, is_said):
    run(["convert", str(discs), "--output=out", f"--to={name}"])
    run(["convert", "out", "--output=labels.json", *([f"--from={name}"] if is_said else [])])
    before, after = read_coco(discs, coordinates="continuous"), read_coco("labels.json", coordinates="continuous")
    assert len(after.truths.points) == 33
    assert abs(after.truths.points - before.truths.points).max() < 0.01


@pytest.mark.parametrize(
    ("names", "words", "message"),
    [
        (["b.json", "a.slp"], [], "folder: has 2 possible files: a.slp, b.json. Name one of them."),
        ([f"{n:02}.json" for n in range(12)], [], "08.json, 09.json and 2 more. Name one"),
        (["b.json", "c.json", "a.slp"], ["--from=coco"], "has 2 possible files: b.json, c.json."),
        (["b.json"], ["--from=sleap"], "folder: has no *.slp file; SLEAP is read from one."),
        (["b.txt"], [], "folder: its format is not recognised"),
    ],
)
def test_a_folder_without_one_file_to_read_lists_what_it_has(names, words, message, capsys):
    Path("folder").mkdir()
    for name in names:
        Path("folder", name).write_text("{}")
    with pytest.raises(SystemExit):
        run(["convert", "folder", "--output=out", *words])
    assert message in capsys.readouterr().err


def test_a_training_runs_on_converted_parts(discs, capsys):
    words = ["--val-fraction=0.25", "--test_fraction=0.25", "--seed=3", "--group_by=image"]
    run(["convert", str(discs), "--output=parts", *words])
    assert [count_images(f"parts/{part}.json") for part in ("train", "val", "test")] == [6, 3, 3]
    data = ["--data.train=parts/train.json", "--data.val=parts/val.json"]
    run(["fit", f"--config={TINY}", *data, "--trainer.fast_dev_run=true"])


def test_parts_of_a_data_set_stay_apart(discs, tmp_path):
    for name, seed in (("train", 0), ("val", 5)):
        write_discs(tmp_path / "set", 4, seed=seed).rename(tmp_path / "set" / f"{name}.json")
    run(["convert", "set", "--output=out", "--to=yolo"])
    assert [len(list(Path("out/images", part).glob("*.png"))) for part in ("train", "val")] == [4, 4]
    run(["convert", "out", "--output=back"])
    assert [count_images(f"back/{part}.json") for part in ("train", "val")] == [4, 4]


def test_whole_numbers_that_name_pixels_are_brought_to_centres(discs):
    run(["convert", str(discs), "--output=out.json", "--coordinates=pixel_index"])
    after, before = (read_coco(path, coordinates="continuous").truths.points for path in ("out.json", discs))
    difference = after - before
    assert difference.shape == (33, 2)
    assert abs(difference - 0.5).max() < 1e-4


def test_shares_of_a_side_are_not_taken_for_pixels(discs, capsys):
    content = json.loads(discs.read_text())
    for annotation in content["annotations"]:
        annotation["keypoints"] = [v if i % 3 == 2 else v / 1000 for i, v in enumerate(annotation["keypoints"])]
    shares = discs.with_name("shares.json")
    shares.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        run(["convert", str(shares), "--output=out", "--to=yolo"])
    assert stop.value.code == 2
    assert "they look like fractions of the sides" in capsys.readouterr().err
    assert not Path("out").exists()


def test_categories_are_chosen_by_name(discs, tmp_path):
    content = json.loads(discs.read_text())
    content["categories"].insert(0, {"id": 2, "name": "dot", "keypoints": ["dot"]})
    content["annotations"].append({"id": 1, "image_id": 10, "category_id": 2, "keypoints": [1, 2, 2]})
    both = discs.with_name("both.json")
    both.write_text(json.dumps(content))
    run(["convert", str(both), "--output=out.json", "--categories=[discs]"])
    assert len(read_coco("out.json", coordinates="continuous").truths.points) == 33
    assert [one.name for one in read_coco("out.json", coordinates="continuous").keypoint_types] == [
        "red",
        "left",
        "right",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--output=out"], "nowhere: no such file or folder"),
        (["nowhere", "--from=yolo", "--output=out"], "nowhere: no such file or folder"),
        (["DISCS", "--output=out", "--to=dlc"], "expected one of coco, cvat, deeplabcut"),
        (["DISCS"], "output"),
        (["DISCS", "--output=out", "--val_fraction=1.5"], "val_fraction"),
        (["DISCS", "--output=out.json", "--val_fraction=0.2"], "give a folder: train.json and so on"),
        (["DISCS", "--output=out", "--to=deeplabcut", "--val_fraction=0.2"], "has no separate validation part"),
        (["DISCS", "--output=out", "--categories=[rat]"], "no category 'rat'; there are discs"),
        (["DISCS", "--output=out", "--from=cvat"], "not valid XML"),
        (["DISCS", "--output=out", "--from=blender"], "has no list 'dataset'"),
        (["DISCS", "--output=out", "--from=label_studio"], "is not a list of tasks"),
        (
            ["DISCS", "--output=out", "--image_root=nowhere"],
            "found nearby; if they are elsewhere, give their folder with --image_root",
        ),
        (["DISCS", "--output=photo.png/out.json"], "photo.png is a file); give another --output."),
        (["DISCS", "--output=photo.png/out", "--to=yolo"], "photo.png is a file); give another --output."),
        (["DISCS", "--outptu=out"], "Did you mean --output"),
        (["photo.png", "--output=out"], "its format is not recognised"),
    ],
)
def test_mistakes_are_answered_with_exit_code_two(discs, words, message, capsys):
    Path("photo.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        run(["convert", *(word.replace("DISCS", str(discs)) for word in words)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_report_names_the_categories_that_are_labelled(discs, capsys):
    content = json.loads(discs.read_text())
    content["categories"] += [{"id": 2 + n, "name": f"unused{n}", "keypoints": ["a", "b"]} for n in range(50)]
    many = discs.with_name("many.json")
    many.write_text(json.dumps(content))
    run(["convert", str(many), "--output=out.json"])
    assert capsys.readouterr().out.endswith(" points (0 occluded) of discs: red, left, right.\n")
    assert len(json.loads(Path("out.json").read_text())["categories"]) == 51


def test_the_console_script_converts_without_lightning(discs):
    code = (
        "import sys\n"
        "from keypoint_detection.cli import run\n"
        f"run(['convert', {str(discs)!r}, '--output=out.slp'])\n"
        "print(sorted({'lightning', 'wandb', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stderr
    assert Path("out.slp").is_file()


def test_the_help_says_which_formats_there_are(capsys):
    with pytest.raises(SystemExit):
        run(["convert", "--help"])
    text = capsys.readouterr().out
    assert {"coco", "blender"} < set(FORMATS)
    assert all(name in text for name in FORMATS)


def test_images_without_labels_are_counted(discs, capsys):
    content = json.loads(discs.read_text())
    empty = content["images"][0]["id"]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != empty]
    discs.write_text(json.dumps(content))
    n_empty = len({one["id"] for one in content["images"]} - {one["image_id"] for one in content["annotations"]})
    run(["convert", str(discs), "--output=out.json"])
    assert f" images, {n_empty} of them without labels, " in capsys.readouterr().out
