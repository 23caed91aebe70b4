import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from grouping_detector import image_of_objects, make_grouping_checkpoint
from PIL import Image
from random_measurement import measure_random_points

from keypoint_detection.cli import run
from keypoint_detection.reporting.html_report import HtmlReport
from keypoint_detection.reporting.result_table import ResultTable

HOSTILE = "<script>alert('x')</script> & \"耳朵\""


class Reader(HTMLParser):
    """Read a page back: its tags, what is not closed, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def write_report(folder, channels, *, is_global_zero=True, ckpt_path=None, callbacks=(), **options):
    trainer = SimpleNamespace(
        is_global_zero=is_global_zero, loggers=[], callbacks=list(callbacks), log_dir=str(folder),
        default_root_dir=str(folder), state=SimpleNamespace(fn="test"), ckpt_path=ckpt_path, precision="32-true",
        strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1, fast_dev_run=False,
    )  # fmt: skip
    report = measure_random_points(channels, **options)
    module = SimpleNamespace(channels={name: [name] for name in channels}, report=report, hparams={"lr": 0.1})
    for callback in (*callbacks, HtmlReport()):
        callback.on_test_end(trainer, module)
    path = folder / "report.html"
    return path.read_text() if path.is_file() else None


def test_names_are_escaped_and_nothing_is_fetched(tmp_path):
    page = write_report(tmp_path, ["<b>&", "耳朵"])
    assert "<b>&" not in page
    assert page.count("&lt;b&gt;&amp;") > 1
    assert page.count("耳朵") > 1
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]{1,20})', page)
    assert len(sources) == 2
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in page


def test_text_stays_text_wherever_it_stands(tmp_path):
    reader = Reader(write_report(tmp_path, [HOSTILE], ckpt_path=HOSTILE))
    assert reader.open == []
    assert "table" in reader.tags
    assert "script" not in reader.tags
    # A row in two tables; the channel and its type; the checkpoint.
    assert "".join(reader.text).count(HOSTILE) == 5


def test_half_a_surrogate_pair_does_not_keep_a_page_from_being_written(tmp_path):
    assert "a?b.ckpt" in write_report(tmp_path, ["ear"], ckpt_path="a\ud800b.ckpt")


def test_the_last_row_of_each_table_is_the_total(tmp_path):
    page = write_report(tmp_path, ["ear", "nose"])
    assert re.findall(r'<tr class="total"><th scope="row">([^<]*)', page) == ["overall"] * 2


@pytest.mark.parametrize(
    ("n_channels", "options"),
    [(1, {"has_detections": False}), (1, {"has_truths": False}), (1, {"n_images": 1}), (40, {})],
)
def test_odd_measurements_have_a_page_too(tmp_path, n_channels, options):
    page = write_report(tmp_path, [f"channel {index}" for index in range(n_channels)], **options)
    assert page.count('<th scope="row">channel ') == 2 * n_channels
    assert page.count("<figure>") == 2


def test_intervals_are_those_of_the_table_which_says_where_the_page_is(tmp_path, capsys):
    page = write_report(tmp_path, ["ear"], callbacks=[ResultTable(n_resamples=10)])
    assert len(re.findall(r"<small>\d", page)) > 10
    assert f"{tmp_path}/report.html" in capsys.readouterr().out


def test_of_several_processes_only_the_first_writes(tmp_path):
    assert write_report(tmp_path, ["ear"], is_global_zero=False) is None


def test_the_command_writes_it_with_the_worst_images_and_the_config(checkpoint, discs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = discs.read_text().replace('"red"', '"spot"')
    (discs.parent / "spots.json").write_text(text)
    words = ["--trainer.accelerator=cpu", "--data.num_workers=0", f"--data.test={discs.parent / 'spots.json'}"]
    run(["test", f"--ckpt_path={checkpoint}", *words])
    (path,) = tmp_path.glob("runs/*-test/report.html")
    page = path.read_text()
    assert page.count("data:image/jpeg") == 8
    assert "images/0-" in page
    for expected in (str(checkpoint), "spots.json", "SHA-256", "batch_size:", "64 × 48 px"):
        assert expected in page
    assert str(path.relative_to(tmp_path)) in capsys.readouterr().out


def test_objects_are_described_in_words_with_intervals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = [((35.0, 10.0), [(20.5, 15.5), (50.5, 15.5)]), ((40.0, 50.0), [(35.5, 40.5), (65.5, 42.5)])]
    Image.fromarray(image_of_objects(objects)).save("0.png")
    annotations = [
        {"id": number, "image_id": 0, "category_id": 1, "keypoints": [*left, 2, *right, 2]}
        for number, (_, (left, right)) in enumerate(objects)
    ]
    images = [{"id": 0, "file_name": "0.png", "height": 60, "width": 80}]
    categories = [{"id": 1, "name": "thing", "keypoints": ["a", "b"]}]
    Path("test.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    run(["test", f"--ckpt_path={make_grouping_checkpoint(tmp_path)}", "--data.test=test.json", "--data.num_workers=0"])
    (path,) = Path("runs").glob("*/report.html")
    text = path.read_text(encoding="utf-8")
    for label, number in (
        ("right points that are in the right object", "1.000 (1.000–1.000)"),
        ("AP of objects, at least half of the points within 2 px", "1.000 (1.000–1.000)"),
        ("AP of objects, all points within 8 px", "1.000 (1.000–1.000)"),
    ):
        assert f'<th scope="row">{label}</th><td>{number}</td>' in text
