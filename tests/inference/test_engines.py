import json

import pytest

from keypoint_detection.inference.engines import read_metadata
from keypoint_detection.types import DataError

WRITTEN = {
    "channels": ["nose", "tail"],
    "coordinates": "continuous",
    "score_threshold": 0.1,
    "best_f1": None,
    "calibration": {"thresholds_px": [2, 4.0]},
    "outputs": ["points", "scores"],
}


def test_metadata_as_written_are_read() -> None:
    read = read_metadata(json.dumps(WRITTEN), "a.onnx")
    assert read == (["nose", "tail"], "continuous", 0.1, None, (2, 4.0), ["points", "scores"])


def test_files_of_earlier_versions_need_no_calibration() -> None:
    old = {key: value for key, value in WRITTEN.items() if key not in ("calibration", "outputs")}
    assert read_metadata(json.dumps(old), "a.onnx").thresholds_px == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", '"channels"', "[" * 100_000, json.dumps({**WRITTEN, "calibration": [1]})]
    + [
        json.dumps({key: value for key, value in WRITTEN.items() if key != lacking})
        for lacking in ("channels", "best_f1")
    ],
)
def test_what_is_no_metadata_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"a\.onnx was not written by `kpd export`"):
        read_metadata(text, "a.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("channels", value) for value in (5, [], [1], ["a", "a"], {"a": 1}, "nose", None, [["a"]])),
        *(("channels", value) for value in ([str(n) for n in range(20_000)],)),
        *(("coordinates", value) for value in ("polar", None, 1, ["continuous"], {})),
        *(("score_threshold", value) for value in ("0.1", None, True, -1, 2, float("nan"), [0.1])),
        *(("best_f1", value) for value in ("0.1", False, 10**400, float("inf"))),
        *(("outputs", value) for value in ("points", [1], None)),
    ],
)
def test_changed_metadata_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"a\.onnx: its metadata has been changed .*{key}"):
        read_metadata(json.dumps({**WRITTEN, key: value}), "a.onnx")


@pytest.mark.parametrize("value", [5, "2", [None], [float("inf")], [-1], [1] * 2000, {"a": 1}])
def test_changed_distances_are_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"a\.onnx: its metadata has been changed .*thresholds_px"):
        read_metadata(json.dumps({**WRITTEN, "calibration": {"thresholds_px": value}}), "a.onnx")
