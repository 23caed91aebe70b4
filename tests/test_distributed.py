"""Several processes give the numbers of one; the console script is run, because the launcher repeats its words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_discs

ROOT = Path(__file__).parents[1]
TINY = str(ROOT / "tests" / "conf" / "tiny.yaml")
TWO_PROCESSES = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


def kpd(folder: Path, *words: str) -> dict[str, float]:
    """Run the console script in a folder and read the metrics that it writes."""
    script = Path(sys.executable).with_name("kpd")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([script, *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    # What is to be said is said once, by the first process.
    assert "rank: 1" not in done.stderr
    assert "sync_dist" not in done.stderr
    (metrics,) = folder.glob(f"runs/*-{words[0]}/metrics.json")
    content = json.loads(metrics.read_text())
    return {**content["metrics"], "n_images": content["n_images"]}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Five images of which only the even ones have points: the second of two processes sees none."""
    path = write_discs(tmp_path_factory.mktemp("uneven"), 5, seed=3)
    content = json.loads(path.read_text())
    even = {image["id"] for image in content["images"][::2]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in even]
    assert len(content["annotations"]) == 2
    path.write_text(json.dumps(content))
    return path


def test_two_processes_measure_what_one_does(uneven, discs, tmp_path):
    for name in ("train", "one", "two"):
        (tmp_path / name).mkdir()
    kpd(tmp_path / "train", "fit", "--config", TINY, f"--data.train={discs}")
    (checkpoint,) = (tmp_path / "train").glob("runs/*/checkpoints/best.ckpt")
    words = [
        "test",
        f"--ckpt_path={checkpoint}",
        f"--data.test={uneven}",
        # Convolutions round differently in batches of other sizes.
        "--data.batch_size=1",
        "--data.num_workers=0",
    ]
    one = kpd(tmp_path / "one", *words, "--trainer.accelerator=cpu")
    two = kpd(tmp_path / "two", *words, *TWO_PROCESSES)
    assert one["n_images"] == two["n_images"] == 5
    assert set(one) == set(two)
    # All five images are shown, whichever process had them.
    for folder in ("one", "two"):
        (report,) = (tmp_path / folder).glob("runs/*-test/report.html")
        assert report.read_text().count("data:image/jpeg") == 5
    assert one["loss"] > 0
    assert one == two


def test_two_processes_train_and_validate_on_every_picture_once(discs, uneven, tmp_path):
    metrics = kpd(
        tmp_path, "fit", "--config", TINY, f"--data.train={discs}", f"--data.val={uneven}", "--data.batch_size=2",
        *TWO_PROCESSES,
    )  # fmt: skip
    assert metrics["n_images"] == 5
    assert metrics["loss"] > 0
