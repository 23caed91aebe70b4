"""What `kpd fit` says of labels before it trains."""

import json
import logging

import pytest

from keypoint_detection.cli import run

TINY = "tests/conf/tiny.yaml"


def warnings_of(caplog, config, *words):
    with caplog.at_level(logging.WARNING):
        run(["fit", f"--config={config}", "--trainer.fast_dev_run=true", *words])
    return [record.getMessage() for record in caplog.records if record.name.endswith("label_warnings")]


def test_images_in_both_parts_and_types_without_points_are_said(discs, tmp_path, caplog, pytestconfig):
    content = json.loads(discs.read_text())
    content["categories"][0]["keypoints"].append("tail")
    for annotation in content["annotations"]:
        annotation["keypoints"] += [0, 0, 0]
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(content))
    config = pytestconfig.rootpath / TINY
    words = [f"--data.train={labels}", f"--data.val={labels}", f"--data.image_root={discs.parent}"]
    messages = warnings_of(caplog, config, *words)
    assert len(messages) == 2
    assert ": 1 channel has no labelled points" in messages[0]
    assert "tail" in messages[0]
    assert "images are trained on and validated on" in messages[1]


def test_types_without_points_can_be_learned_if_only_the_validation_lacks_them(discs, tmp_path, caplog, pytestconfig):
    content = json.loads(discs.read_text())
    for annotation in content["annotations"]:
        annotation["keypoints"][3:6] = [0, 0, 0]
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(content))
    words = [f"--data.train={discs}", f"--data.val={labels}", f"--data.image_root={discs.parent}"]
    (message,) = [one for one in warnings_of(caplog, pytestconfig.rootpath / TINY, *words) if "labelled points" in one]
    assert "1 channel has no labelled points, so nothing can be measured: left" in message


def test_points_too_close_to_tell_apart_are_said(discs, caplog, pytestconfig):
    config = pytestconfig.rootpath / TINY
    words = [f"--data.train={discs}", "--model.channels={disc: [red, left, right]}", "--model.min_distance_px=100"]
    (message,) = warnings_of(caplog, config, *words)
    assert "closer in the network's input than model.min_distance_px, 100" in message


@pytest.mark.parametrize(
    ("pairs", "said"), [("[]", True), ("[[left, right]]", False), ("[[left, red]]", False), ("null", False)]
)
def test_left_and_right_that_do_not_swap_are_said(discs, caplog, pytestconfig, pairs, said):
    words = [f"--data.train={discs}", f"--data.flip_pairs={pairs}"]
    messages = warnings_of(caplog, pytestconfig.rootpath / TINY, *words)
    assert any("set data.flip_pairs: [[left, right]]" in one for one in messages) == said


def test_clean_labels_are_passed_over_in_silence(discs, caplog, pytestconfig):
    assert warnings_of(caplog, pytestconfig.rootpath / TINY, f"--data.train={discs}") == []


def test_images_with_too_many_points_are_said_in_the_same_words_by_every_command(
    discs, tmp_path, caplog, pytestconfig, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = pytestconfig.rootpath / TINY
    with caplog.at_level(logging.WARNING):
        words = ["--model.max_keypoints=1", "--model.channels={all: [red, left, right]}"]
        run(["fit", f"--config={config}", f"--data.train={discs}", f"--data.val={discs}", *words])
        (checkpoint,) = tmp_path.glob("**/checkpoints/best.ckpt")
        run(["validate", f"--ckpt_path={checkpoint}", f"--data.val={discs}", "--data.num_workers=0"])
        run(["test", f"--ckpt_path={checkpoint}", f"--data.test={discs}", "--data.num_workers=0"])
    said = [record.getMessage() for record in caplog.records if "max_keypoints" in record.getMessage()]
    assert len(said) == 3
    assert len(set(said)) == 1
    assert said[0].startswith(f"{discs}: ")
    assert "images have more points of a channel than model.max_keypoints, 1:" in said[0]
    assert "Set --model.max_keypoints=3. E.g. image " in said[0]
    assert said[0].endswith(" points of channel 'all'. `kpd check` lists them.")


@pytest.mark.parametrize(
    ("words", "said"), [([], True), (["--model.flip_test=false"], False), (["--data.flip_pairs=null"], False)]
)
def test_channels_that_no_mirror_maps_to_each_other_are_said(discs, caplog, pytestconfig, words, said):
    channels = "--model.channels={a: [left, red], b: [right]}"
    words = [f"--data.train={discs}", channels, "--data.flip_pairs=[[left, right]]", *words]
    messages = warnings_of(caplog, pytestconfig.rootpath / TINY, *words)
    start = (
        "Heatmaps are not averaged with those of mirrored images: according to data.flip_pairs, channel 'a' becomes "
        "red, right"
    )
    assert any(one.startswith(start) for one in messages) == said


def test_frames_of_one_video_in_both_files_are_said(discs, tmp_path, caplog, pytestconfig):
    content = json.loads(discs.read_text())
    for name, is_in in (("train", lambda index: index % 3), ("val", lambda index: not index % 3)):
        images = [one for index, one in enumerate(content["images"]) if is_in(index)]
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, "images": images, "annotations": [
            one for one in content["annotations"] if one["image_id"] in {image["id"] for image in images}
        ]}))  # fmt: skip
    words = [f"--data.{name}={tmp_path}/{name}.json" for name in ("train", "val")]
    (message,) = warnings_of(
        caplog, pytestconfig.rootpath / TINY, *words, f"--data.image_root={discs.parent}", "--model.channels=[red]"
    )
    assert "4 of 4 val images have names that differ from those of train images only in a running number" in message
    assert "images/0*" in message
    assert "whose images lie between those of train" in message
