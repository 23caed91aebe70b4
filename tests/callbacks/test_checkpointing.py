"""Which state of a training is kept as the best."""

from pathlib import Path

import torch

from keypoint_detection.cli import run

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")


def test_of_equally_good_states_the_latest_is_kept(discs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Nothing is found within a hundredth of a pixel, so that every validation ends with an mAP of 0.
    words = ["--model.ap_thresholds_px=[0.01]", "--trainer.max_epochs=3"]
    run(["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", *words])
    (path,) = Path("runs").glob("*/checkpoints/best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    (state,) = [state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint")]
    assert state["best_model_score"] == 0
    assert checkpoint["epoch"] == 2
