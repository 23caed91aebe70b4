import io

import pytest
from PIL import Image

from keypoint_detection.metrics.calibration import ReliabilityCurve
from keypoint_detection.plots import reliability_diagram

CURVES = [
    ReliabilityCurve(2.0, (0.1, 0.5), (0.0, 0.4), (10, 10)),
    ReliabilityCurve(8.0, (0.1, 0.5, 0.95), (0.1, 0.6, 0.97), (300, 40, 120)),
]


def test_every_threshold_has_a_line_and_a_name_with_its_error():
    (axes,) = reliability_diagram(CURVES).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["ideal", "within 2 px (ECE 0.100)", "within 8 px (ECE 0.014)"]
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert lines[1] == [[0.1, 0.0], [0.5, 0.4]]
    assert len(lines) == 3


@pytest.mark.parametrize("curves", [[], [ReliabilityCurve(2.0, (), (), ())], CURVES])
def test_the_figure_can_be_written(curves):
    file = io.BytesIO()
    reliability_diagram(curves).savefig(file, format="png")
    assert Image.open(file).size == (420, 420)
