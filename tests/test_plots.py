import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest
from PIL import Image
from random_measurement import measure_random_points

from keypoint_detection.metrics.calibration import ReliabilityCurve
from keypoint_detection.plots import as_svg, plot_cumulative_errors, plot_precision_recall, reliability_diagram

PLOTS = [plot_precision_recall, plot_cumulative_errors]


def texts_of(figure) -> list[str]:
    root = ElementTree.fromstring(as_svg(figure))
    return ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("plot", PLOTS)
def test_every_channel_has_a_panel_with_its_name_and_labelled_axes(plot):
    figure = plot(measure_random_points(["ear", "tail", "nose", "paw", "eye"]))
    assert len(figure.axes) == 5
    texts = texts_of(figure)
    for name in ("ear", "tail", "nose", "paw", "eye"):
        assert name in texts
    assert any("share of the labelled points" in text for text in texts)


@pytest.mark.parametrize("plot", PLOTS)
def test_names_are_shown_as_they_are(plot):
    names = ["$\\frac{a}$", "<b>&", "耳朵", "x\ny\x00\ud800", "a_b^c"]
    texts = texts_of(plot(measure_random_points(names)))
    for name in ("$\\frac{a}$", "<b>&", "耳朵", "x\ufffdy\ufffd\ufffd", "a_b^c"):
        assert name in texts


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_found_and_nothing_labelled_leave_empty_panels(plot):
    assert len(plot(measure_random_points(["a"], has_detections=False)).axes) == 1
    assert "no labelled point" in texts_of(plot(measure_random_points(["a"], has_truths=False)))


def test_a_line_a_threshold_encloses_the_average_precision():
    report = measure_random_points(["a"], n_images=20)
    (panel,) = plot_precision_recall(report).axes
    assert len(panel.lines) == len(report.thresholds_px)
    for line, expected in zip(panel.lines, report.channels[0].average_precision, strict=True):
        (x, y), area = line.get_data(), 0.0
        for index in range(1, len(x)):
            area += (x[index] - x[index - 1]) * y[index]
        assert area == pytest.approx(expected)
        assert area > 0


def test_errors_can_be_read_off_and_the_dotted_lines_are_explained():
    figure = plot_cumulative_errors(measure_random_points(["a"], n_images=20))
    (panel,) = figure.axes
    low, high = panel.get_xlim()
    assert [f"{tick:g}" for tick in panel.get_xticks() if low <= tick <= high] == ["0.2", "0.5", "1", "2", "5"]
    assert "thresholds" in texts_of(figure)


def test_the_users_own_settings_of_matplotlib_change_nothing_and_are_kept():
    report = measure_random_points(["a"])
    plain = as_svg(plot_precision_recall(report))
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30}):
        assert as_svg(plot_precision_recall(report)) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_a_report_without_measurements_is_refused():
    report = measure_random_points(["a"])._replace(measurements=None)
    with pytest.raises(ValueError, match="kpd validate"):
        plot_precision_recall(report)


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


def test_the_users_own_settings_do_not_change_a_reliability_diagram():
    plain = as_svg(reliability_diagram(CURVES))
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert as_svg(reliability_diagram(CURVES)) == plain


def test_the_legend_covers_no_marker_of_an_underconfident_detector():
    figure = reliability_diagram([ReliabilityCurve(2.0, (0.05, 0.3), (0.9, 0.95), (30, 20))])
    figure.savefig(io.BytesIO(), format="png")
    (axes,) = figure.axes
    box = axes.get_legend().get_window_extent()
    assert not any(box.contains(*axes.transData.transform(point)) for point in [(0.05, 0.9), (0.3, 0.95)])
