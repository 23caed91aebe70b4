import re
from types import SimpleNamespace

import pytest
import torch
from random_measurement import measure_random_points

from keypoint_detection.cli import run
from keypoint_detection.reporting.html_report import HtmlReport
from keypoint_detection.reporting.result_table import ResultTable


def write_report(folder, channels, *, is_global_zero=True, callbacks=(), **options):
    trainer = SimpleNamespace(
        is_global_zero=is_global_zero, loggers=[], callbacks=list(callbacks), log_dir=str(folder),
        default_root_dir=str(folder), state=SimpleNamespace(fn="test"), ckpt_path=None, precision="32-true",
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
