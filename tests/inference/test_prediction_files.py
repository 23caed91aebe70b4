import json

from keypoint_detection.inference.prediction_files import write_predictions


def point(channel, x, score):
    return {"channel": channel, "x": x, "y": 1.0, "score": score}


def test_types_of_one_channel_take_its_detections_in_turn(tmp_path):
    points = [point("corner", 10.0 * n, 1 - n / 10) for n in range(1, 4)] + [point("top", 5.0, 0.5)]
    record = {"name": "a.png", "id": 3, "height": 10, "width": 50, "points": points}
    channels = {"corner": ["c0", "c1"], "top": ["top"]}
    write_predictions(lambda: [record], tmp_path / "r.json", "coco", channels, None, {})
    first, second = json.loads((tmp_path / "r.json").read_text())
    assert first["keypoints"] == [10.0, 1.0, 2, 20.0, 1.0, 2, 5.0, 1.0, 2]
    assert second["keypoints"] == [30.0, 1.0, 2, 0, 0, 0, 0, 0, 0]
    assert first["score"] > second["score"]


def test_an_image_without_points_is_labelled_empty(tmp_path):
    record = {"name": "a.png", "id": 3, "height": 10, "width": 50, "points": []}
    write_predictions(
        lambda: [record],
        tmp_path / "l.json",
        "coco_labels",
        {"a": ["person/a"]},
        None,
        {3: str(tmp_path / "images" / "a.png")},
    )
    content = json.loads((tmp_path / "l.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["images/a.png"]
    assert content["annotations"] == []
