from pathlib import Path

import pytest
from metrics.runs import write_folds, write_run

from keypoint_detection.metrics.comparison import compare, has_repeated_images
from keypoint_detection.metrics.pooling import find_runs, pool
from keypoint_detection.types import DataError

IMAGES = range(11)


def found(*folders: Path):
    return find_runs([str(folder) for folder in folders]).runs


def compared(folder: Path, error="error_px/mean"):
    runs = found(folder)
    assert has_repeated_images(runs)
    return compare(runs, error, 100, seed=0)


def write_seeds(folder: Path, config: str, shifts=(0.0, 2.0), **about) -> None:
    for seed, shift in enumerate(shifts):
        write_run(folder / str(seed), IMAGES, None, f"seed_everything: {seed}\n{config}", shift, seed=seed, **about)


def test_settings_are_named_by_what_differs_and_their_seeds_are_pooled(tmp_path: Path) -> None:
    for lr, shift in ((0.001, 30.0), (0.0003, 0.0)):
        for seed in (0, 1):
            config = f"seed_everything: {seed}\nmodel: {{lr: {lr}, loss: bce}}\ntrainer: {{logger: {{name: {seed}}}}}"
            write_run(tmp_path / f"{lr}-{seed}", IMAGES, None, config, shift, seed=seed)
    comparison = compared(tmp_path)
    assert [(one.name, one.settings, one.n_trainings) for one in comparison.settings] == [
        ("model.lr=0.0003", {"model.lr": 0.0003}, 2),
        ("model.lr=0.001", {"model.lr": 0.001}, 2),
    ]
    assert comparison.n_images == 11
    assert comparison.lead is not None
    assert 0 < comparison.lead.low < comparison.lead.value < comparison.lead.high


def test_the_numbers_are_those_of_the_runs_averaged_over_seeds(tmp_path: Path) -> None:
    write_seeds(tmp_path, "model: {}")
    comparison = compared(tmp_path)
    assert comparison.lead is None
    [only] = comparison.settings
    assert only.name == "all runs"
    alone = [pool(found(tmp_path / seed)).as_scalars() for seed in ("0", "1")]
    assert alone[0]["error_px/mean"] != pytest.approx(alone[1]["error_px/mean"])
    for name in ("error_px/mean", "error_px/median", "mAP", "detection_rate"):
        estimate = only.estimates[name]
        assert estimate.value == pytest.approx((alone[0][name] + alone[1][name]) / 2)
        assert estimate.low <= estimate.value <= estimate.high


def test_equal_settings_cannot_be_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", IMAGES, None, "data: {augment: true}")
    write_run(tmp_path / "b", IMAGES, None, "data: {augment: false}")
    lead = compared(tmp_path).lead
    assert lead == (0, 0, 0)


def test_parameters_of_another_class_are_not_differences_of_their_own(tmp_path: Path) -> None:
    backbones = {
        "a": "{class_path: some.Unet, init_args: {n_channels: 8}}",
        "b": "{class_path: some.Unet, init_args: {n_channels: 16}}",
        "c": "{class_path: some.Timm, init_args: {encoder: resnet18, depth: 4}}",
    }
    for name, backbone in backbones.items():
        write_run(tmp_path / name, IMAGES, None, f"model: {{backbone: {backbone}}}")
    names = {one.runs[0].folder.name: one.name for one in compared(tmp_path).settings}
    assert names == {
        "a": "model.backbone=Unet\nmodel.backbone.n_channels=8",
        "b": "model.backbone=Unet\nmodel.backbone.n_channels=16",
        "c": "model.backbone=Timm",
    }


def test_the_folds_of_each_setting_are_pooled_first(tmp_path: Path) -> None:
    for lr in (1, 2):
        for fold in write_folds(tmp_path / str(lr)):
            text = f"model: {{lr: {lr}}}\ndata: {{fold: {fold.name[-1]}}}"
            (fold / "config.yaml").write_text(text)
    comparison = compare(found(tmp_path / "1", tmp_path / "2"), "error_px/mean", 5, seed=0)
    assert [(one.name, one.n_trainings, len(one.runs)) for one in comparison.settings] == [
        ("model.lr=1", 1, 3),
        ("model.lr=2", 1, 3),
    ]
    assert comparison.n_images == 11


@pytest.mark.parametrize(
    ("images", "about", "text"),
    [
        (range(5), {}, r"a measured 11 images and .*b 5, of which 5 are the same; settings are compared on the same"),
        (IMAGES, {"n_train_images": None}, "is a training run, and .*b only measures a checkpoint"),
        (IMAGES, {"sha256": "1" * 64, "file": "other.json"}, "has the held-out images train.json, .*b has other.json"),
        (IMAGES, {"lr": 1}, "measured the same images, 14 of 14 .*both have the same split"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, images, about, text) -> None:
    write_run(tmp_path / "a", IMAGES, None, "model: {lr: 1}")
    write_run(tmp_path / "b", images, None, f"model: {{lr: {about.pop('lr', 2)}}}", **about)
    with pytest.raises(DataError, match=text):
        compared(tmp_path)


def test_a_config_without_settings_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", IMAGES)
    write_run(tmp_path / "b", IMAGES, None, "")
    with pytest.raises(DataError, match=r"b/config\.yaml has no settings; .* Leave the run out"):
        compared(tmp_path)


def test_measurements_of_several_checkpoints_are_trainings_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, IMAGES, n_train_images=None, checkpoint=f"{name}.ckpt")
    [only] = compared(tmp_path).settings
    assert only.n_trainings == 2
