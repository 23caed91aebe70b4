import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keypoint_detection.boxes import data_set
from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set

NAMES = [f"box_corner{i}" for i in range(4)] + [f"flap_corner{i}" for i in range(8)]


def small(folder: Path, **changes: int) -> SyntheticBoxes:
    return SyntheticBoxes(str(folder), **({"n_train": 3, "n_val": 2, "height": 64, "width": 80} | changes))


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "boxes"
    draw_data_set(SyntheticBoxes(str(folder), n_train=40, n_val=2, n_test=1, height=96, width=128))
    return folder


def test_files_are_where_they_are_said_to_be(tmp_path):
    files = draw_data_set(small(tmp_path / "a" / "boxes", n_val=0, n_test=1))
    assert files == (tmp_path / "a/boxes/train.json", None, tmp_path / "a/boxes/test.json")
    assert sorted(read_all(tmp_path / "a" / "boxes")) == [
        "images/test/000000.jpg",
        *(f"images/train/00000{i}.jpg" for i in range(3)),
        "synthetic.json",
        "test.json",
        "train.json",
    ]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["boxes"]  # no draft is left behind


def test_pycocotools_reads_every_split(drawn):
    coco_module = pytest.importorskip("pycocotools.coco")
    for split, count in (("train", 40), ("val", 2), ("test", 1)):
        coco = coco_module.COCO(str(drawn / f"{split}.json"))
        assert len(coco.imgs) == count
        (category,) = coco.loadCats(coco.getCatIds())
        assert category["name"] == "box"
        assert category["keypoints"] == NAMES
        for image in coco.imgs.values():
            with Image.open(drawn / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"]) == (128, 96)
            assert len(coco.getAnnIds(imgIds=image["id"])) <= 1


def test_annotations_follow_the_coco_format(drawn):
    content = json.loads((drawn / "train.json").read_text())
    assert content["info"]["options"]["seed"] == 0
    assert content["info"]["coordinates"].startswith("continuous")
    assert len(content["annotations"]) > 30
    flags_seen = set()
    for annotation in content["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(12, 3)
        is_labelled = points[:, 2] > 0
        assert annotation["num_keypoints"] == is_labelled.sum()
        assert (points[~is_labelled] == 0).all()
        assert ((points[:, :2] >= 0) & (points[:, :2] <= (128, 96))).all()
        left, top, width, height = annotation["bbox"]
        assert left >= 0
        assert top >= 0
        assert left + width <= 128
        assert top + height <= 96
        assert 0.1 * width * height < annotation["area"] <= width * height
        seen = points[points[:, 2] == 2, :2]
        assert (seen >= np.array([left, top]) - 1).all()
        assert (seen <= np.array([left + width, top + height]) + 1).all()
        flags_seen |= set(points[:, 2].tolist())
    assert flags_seen == {0, 1, 2}


def test_skeleton_joins_the_opening_and_goes_round_each_flap(drawn):
    skeleton = json.loads((drawn / "train.json").read_text())["categories"][0]["skeleton"]
    named = {frozenset((NAMES[a - 1], NAMES[b - 1])) for a, b in skeleton}
    assert len(skeleton) == len(named) == 16
    for edge in (
        ("box_corner3", "box_corner0"),
        ("box_corner0", "flap_corner0"),
        ("flap_corner0", "flap_corner1"),
        ("flap_corner1", "box_corner1"),
        ("box_corner3", "flap_corner6"),
        ("flap_corner7", "box_corner0"),
    ):
        assert frozenset(edge) in named


def test_same_options_give_the_same_bytes(tmp_path):
    draw_data_set(small(tmp_path / "a"))
    draw_data_set(small(tmp_path / "b"))
    first, second = read_all(tmp_path / "a"), read_all(tmp_path / "b")
    assert len(first) == 8
    assert first == second


def test_more_images_change_none_and_another_seed_changes_all(tmp_path):
    for name, changes in (("few", {}), ("many", {"n_train": 5, "n_val": 0}), ("other", {"seed": 1})):
        draw_data_set(small(tmp_path / name, **changes))
    few, many, other = (
        {k: v for k, v in read_all(tmp_path / n).items() if "train/" in k} for n in ("few", "many", "other")
    )
    assert (len(few), len(many)) == (3, 5)
    for name in few:
        assert few[name] == many[name]
        assert few[name] != other[name]
    labels = [json.loads((tmp_path / name / "train.json").read_text())["annotations"] for name in ("few", "many")]
    assert labels[0] == labels[1][: len(labels[0])]


def test_no_image_is_in_two_splits(tmp_path):
    draw_data_set(small(tmp_path / "a", n_train=3, n_val=3, n_test=3))
    contents = [content for name, content in read_all(tmp_path / "a").items() if name.endswith(".jpg")]
    assert len(contents) == len(set(contents)) == 9


def test_global_random_state_is_left_alone(tmp_path):
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    draw_data_set(small(tmp_path / "a"))
    assert np.random.random() == expected  # noqa: NPY002


def test_second_call_draws_nothing(tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        files = draw_data_set(small(tmp_path / "a"))
        monkeypatch.setattr(data_set, "draw_split", None)  # calling it would raise
        assert draw_data_set(small(tmp_path / "a")) == files
    assert len(caplog.messages) == 2
    assert "Drew 3 train + 2 val images of 64 x 80" in caplog.messages[0]
    assert "nothing to draw" in caplog.messages[1]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "a").mkdir()
    assert draw_data_set(small(tmp_path / "a")).train.is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 4}, "n_train 3 instead of 4"),
        ({"seed": 9}, "seed 0 instead of 9"),
        ({"width": 96}, "width 80 instead"),
    ],
)
def test_data_set_with_other_options_is_never_overwritten(tmp_path, changes, message):
    draw_data_set(small(tmp_path / "a"))
    before = read_all(tmp_path / "a")
    with pytest.raises(FileExistsError, match=message):
        draw_data_set(small(tmp_path / "a", **changes))
    assert read_all(tmp_path / "a") == before


def test_foreign_and_incomplete_folders_are_never_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"did not draw .* Give another folder"):
        draw_data_set(small(tmp_path / "photos"))
    assert read_all(tmp_path / "photos") == {"holiday.jpg": b"precious"}
    files = draw_data_set(small(tmp_path / "a"))
    files.val.unlink()
    with pytest.raises(FileExistsError, match=r"incomplete, missing .*val\.json"):
        draw_data_set(small(tmp_path / "a"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="did not draw"):
        draw_data_set(small(tmp_path / "file"))


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_set, "describe_silhouette", stop)
    with pytest.raises(KeyboardInterrupt):
        draw_data_set(small(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_several_that_start_together_share_one_data_set(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: draw_data_set(small(tmp_path / "a")), range(4)))
    assert len(files) == 4
    assert len(set(files)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len(read_all(tmp_path / "a")) == 8


def test_loser_of_the_race_against_other_options_says_so(tmp_path, monkeypatch):
    def slow_split(folder: Path, *_args: object) -> None:
        folder.joinpath("drawn").touch()
        monkeypatch.undo()
        draw_data_set(small(tmp_path / "a", seed=5))  # another process finishes first

    monkeypatch.setattr(data_set, "draw_split", slow_split)
    with pytest.raises(FileExistsError, match="seed 5 instead of 0"):
        draw_data_set(small(tmp_path / "a", n_val=0))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nonsense_options_are_refused():
    with pytest.raises(ValueError, match="64 pixels or more, found 63 x 224"):
        SyntheticBoxes(height=63)
    with pytest.raises(ValueError, match="n_train of 1 or more"):
        SyntheticBoxes(n_train=0)


def test_options_parse_from_a_command_line():
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SyntheticBoxes)
    parsed = parser.parse_args(["--n_train=7", "--folder=x"])
    assert (parsed.n_train, parsed.folder) == (7, "x")
    with pytest.raises(ArgumentError, match="n_train"):
        parser.parse_args(["--n_train=0"])
