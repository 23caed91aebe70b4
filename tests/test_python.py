"""The package as it is used from Python: what docs/how-to/python.md says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

import keypoint_detection
from keypoint_detection import KeypointDetector, KeypointsDataModule, Predictor
from keypoint_detection.models.backbones import Unet

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "python.md"
QUICK = {"fast_dev_run": True, "logger": False, "accelerator": "cpu", "enable_progress_bar": False}


def test_every_public_class_is_there_and_loaded_late():
    assert len(keypoint_detection.__all__) == 6
    for name in set(keypoint_detection.__all__) - {"__version__"}:
        assert getattr(keypoint_detection, name).__name__ == name
    assert set(keypoint_detection.__all__) <= set(dir(keypoint_detection))
    code = (
        "import sys, keypoint_detection; before = 'torch' in sys.modules; "
        "from keypoint_detection import Point, Result; "
        "print(before, 'torch' in sys.modules, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False False\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        keypoint_detection.Detector  # noqa: B018


@pytest.fixture
def ears(discs, tmp_path, monkeypatch):
    """The folder that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(discs.parent, "data")
    content = json.loads(discs.read_text())
    content["categories"][0]["keypoints"] = ["nose", "left_ear", "right_ear"]
    Path("data/train.json").write_text(json.dumps(content))
    shutil.copy(next(Path("data/images").iterdir()), "image.jpg")


@pytest.mark.usefixtures("ears")
def test_the_training_of_the_page_runs_with_a_plain_trainer():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (code,) = (block for block in blocks if "trainer.fit" in block)
    assert len(code.splitlines()) <= 12
    names: dict[str, object] = {}
    code = code.replace("max_steps=1000", "max_steps=2, accelerator='cpu'").replace("(256, 256)", "(32, 32)")
    exec(code, names)
    assert names["trainer"].global_step == 2
    assert names["data"].channels == {"left_ear": ["left_ear"], "right_ear": ["right_ear"]}
    assert Predictor.from_checkpoint("ears.ckpt").channels == ["left_ear", "right_ear"]


@pytest.mark.usefixtures("ears")
def test_data_that_was_set_up_before_takes_the_channels_of_the_model():
    data = KeypointsDataModule(train="data/train.json", image_size=(32, 32), num_workers=0)
    data.setup("fit")
    Trainer(**QUICK).fit(KeypointDetector(channels={"ear": ["left_ear", "right_ear"]}, backbone=Unet), data)
    assert data.channels == {"ear": ["left_ear", "right_ear"]}


@pytest.mark.usefixtures("ears")
def test_other_channels_of_the_data_are_refused_with_both_lists():
    data = KeypointsDataModule(train="data/train.json", image_size=(32, 32), num_workers=0, channels=["nose"])
    with pytest.raises(MisconfigurationException, match=r"channels \['nose'\].*left_ear.*on the model only"):
        Trainer(**QUICK).fit(KeypointDetector(channels=["left_ear"], backbone=Unet), data)


def test_a_model_without_channels_says_what_to_give():
    with pytest.raises(ValueError, match="at least one channel is expected"):
        KeypointDetector()
