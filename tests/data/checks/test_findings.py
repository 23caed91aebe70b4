"""Findings are sentences that are right for one and for several, in text and in JSON."""

import json

import pytest
from data.checks.sets import DEMANDS, draw, edit, run_audit, write_set
from data.checks.test_audit import only

from keypoint_detection.data.checks.audit_report import describe_audit, format_audit
from keypoint_detection.data.checks.findings import SUMMARIES, Finding, findings_of_problems
from keypoint_detection.data.problems import Problems

N = 12


@pytest.fixture
def path(tmp_path):
    return write_set(tmp_path / "set", {f"{number:02}.png": draw(number) for number in range(N)})


def crowd(content, n):
    for index in range(n):
        extra = {"image_id": index, "category_id": 1, "keypoints": [70, 50, 2, 70, 20, 2]}
        content["annotations"].append({**extra, "id": 50 + index})


def miscount(content, n):
    for entry in content["annotations"][:n]:
        entry["num_keypoints"] = 7


def move_outside(content, n):
    for entry in content["annotations"][:n]:
        entry["keypoints"][:2] = [500, 10]


def bring_close(content, n):
    for entry in content["annotations"][:n]:
        content["annotations"].append({**entry, "id": 50 + entry["id"], "keypoints": [11, 10, 2, 0, 0, 0]})


def drop_channels(content, n):
    for entry in content["annotations"]:
        entry["keypoints"] = [0] * (3 * n) + entry["keypoints"][3 * n :]


def keep_few(content, n):
    for entry in content["annotations"][1:]:
        entry["keypoints"] = [0] * (3 * n) + entry["keypoints"][3 * n :]


def name_no_size(content, n):
    for entry in content["images"][:n]:
        del entry["height"]


def name_no_image(content, n):
    for entry in content["annotations"][:n]:
        entry["image_id"] = 900


@pytest.mark.parametrize(
    ("change", "kind", "one", "many"),
    [
        (crowd, "max_keypoints", "image has more points of a channel than model.max_keypoints, 1:", "images have more"),
        (miscount, "num_keypoints", "annotation has a num_keypoints", "annotations have a num_keypoints"),
        (move_outside, "outside", "of 24 labelled points is outside its image and is", "of 24 labelled points are"),
        (bring_close, "min_distance", "pair of points of one channel is closer", "pairs of points of one channel are"),
        (drop_channels, "empty_channel", "channel has no labelled points", "channels have no labelled points"),
        (keep_few, "few_points", "channel has fewer than 10 labelled points: nose (1)", "channels have fewer than 10"),
        (name_no_size, "size_unknown", "image has no height and width", "images have no height and width"),
        (name_no_image, "image", "annotation has an unknown image", "annotations have an unknown image"),
    ],
)
def test_the_words_agree_with_the_count(path, change, kind, one, many):
    original = path.read_text()
    for n, text in ((1, one), (2, many)):
        path.write_text(original)
        edit(path, lambda content, n=n: change(content, n))
        requirements = DEMANDS._replace(max_keypoints=1 if change is crowd else 20)
        audit = run_audit(path, requirements)
        finding = only(audit, kind)
        assert finding.count == n
        assert finding.summary.startswith(text)
        assert f"{n:>7}  {text}" in format_audit(audit)
        (said,) = [entry for entry in describe_audit(audit)["findings"] if entry["kind"] == kind]
        assert (said["count"], said["summary"]) == (n, finding.summary)


@pytest.mark.parametrize(("n", "text"), [(1, "of 12 image files is missing"), (2, "of 12 image files are missing")])
def test_missing_files_are_counted_in_words(path, n, text):
    for number in range(n):
        path.with_name(f"{number:02}.png").unlink()
    assert only(run_audit(path), "image_file").summary.startswith(text)


def test_a_finding_is_a_sentence_in_running_text():
    finding = Finding("warning", "few_points", "train.json", 1, "channel has fewer than 10 labelled points: a (3).")
    assert finding.sentence == "train.json: 1 channel has fewer than 10 labelled points: a (3)."
    assert json.loads(json.dumps(finding.as_dict(3)))["count"] == 1


@pytest.mark.parametrize("kind", SUMMARIES)
def test_problems_of_a_file_are_described_in_both_numbers(kind):
    one, two = Problems(), Problems()
    for problems in (one, two, two):
        problems.add(kind, "an example")
    ((first,), (second,)) = (findings_of_problems("data.json", problems) for problems in (one, two))
    assert (first.count, second.count) == (1, 2)
    assert first.summary != second.summary
    assert first.kind == second.kind == kind.replace(" ", "_")
