import csv
import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ground_truths import make_truths
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import nn

from keypoint_detection.cli import run
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.geometry import map_detections
from keypoint_detection.models.backbones import Backbone, Unet
from keypoint_detection.types import Batch, Maps

TINY = str(Path(__file__).parent / "conf" / "tiny.yaml")
SMALL = functools.partial(Unet, n_channels=4, n_downsampling_layers=2, n_resnet_blocks=1)


class Strided(Backbone):
    """A backbone whose features are four times coarser than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.out_channels, self.size_multiple = 4, 2, 4
        self.conv = nn.Conv2d(3, 2, 4, stride=4)

    def forward(self, images):
        return self.conv(images)


def make_batch(points: list[list[float]], size=(32, 48)) -> Batch:
    """One image with the points in one channel; the original image is twice as large as the input."""
    return Batch(
        images=torch.zeros(1, 3, *size, dtype=torch.uint8),
        truths=make_truths(torch.tensor(points).view(1, 1, -1, 2)),
        image_ids=torch.tensor([1]),
        input_to_image=torch.tensor([[[2.0, 0, 0], [0, 2.0, 0]]]),
        image_sizes=torch.tensor([[2 * size[0], 2 * size[1]]]),
    )


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (5, 3)])
@pytest.mark.parametrize(("backbone", "stride"), [(SMALL, 1), (Strided, 4)])
def test_any_size_gives_heatmaps_of_that_size(size, backbone, stride):
    detector = KeypointDetector(["a", "b"], backbone).eval()
    logits = detector(torch.zeros(2, 3, *size, dtype=torch.uint8))
    assert logits.shape == (2, 2, -(-size[0] // stride), -(-size[1] // stride))


def test_padding_does_not_move_the_picture():
    detector = KeypointDetector(["a"], SMALL).eval()
    image = torch.randint(0, 255, (1, 3, 40, 40), dtype=torch.uint8)
    whole, cut = detector(image), detector(image[..., :37, :37])
    assert cut.shape == (1, 1, 37, 37)
    # Far from the new border, beyond what the network sees, both are the same.
    torch.testing.assert_close(whole[..., :4, :4], cut[..., :4, :4], rtol=0, atol=1e-4)


def test_training_starts_at_two_percent():
    heatmaps = torch.sigmoid(KeypointDetector(["a"], SMALL).eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))
    assert heatmaps.mean().item() == pytest.approx(0.018, abs=0.02)
    assert KeypointDetector(["a"], SMALL).network.head.bias.tolist() == [-4]


def fit_one_step(detector: KeypointDetector, batch: Batch) -> None:
    """Train one step that changes nothing, so that what remains is where it started."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(detector, torch.utils.data.DataLoader([batch], batch_size=None))


def test_a_new_head_starts_from_the_share_of_keypoints_in_the_first_batch():
    batch = make_batch([[10.0, 20.0], [30.0, 8.0]])
    detector = KeypointDetector(["a"], SMALL, lr=1e-12, heatmap_sigma=1.5)
    fit_one_step(detector, batch)
    # The sum of a Gaussian over all cells is 2 pi sigma^2.
    share = torch.tensor(2 * 2 * torch.pi * 1.5**2 / (32 * 48))
    torch.testing.assert_close(detector.network.head.bias.detach(), torch.logit(share)[None], rtol=0, atol=1e-3)


def test_a_trained_head_and_one_without_points_start_as_they_are():
    nothing = make_batch([[10.0, 20.0]])
    nothing.visibility.zero_()
    untouched = KeypointDetector(["a"], SMALL, lr=1e-12)
    fit_one_step(untouched, nothing)
    assert untouched.network.head.bias.tolist() == pytest.approx([-4])
    trained = KeypointDetector(["a"], SMALL, lr=1e-12)
    nn.init.constant_(trained.network.head.bias, -1.5)
    fit_one_step(trained, make_batch([[10.0, 20.0]]))
    assert trained.network.head.bias.tolist() == pytest.approx([-1.5])


def test_normalisation_is_part_of_the_model():
    detector = KeypointDetector(["a"], Strided)
    seen = []
    detector.network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    detector(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    mean, std = torch.tensor(Backbone.pixel_mean), torch.tensor(Backbone.pixel_std)
    torch.testing.assert_close(seen[0][0, :, 0, 0], (1 - mean) / std)


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        (None, "at least one channel"),
        ([], "at least one channel"),
        ({}, "at least one channel"),
        ({"a": []}, "channel 'a' collects"),
        (["a", "b", "a"], "'a' more than once"),
    ],
)
def test_impossible_channels_are_refused(channels, text):
    with pytest.raises(ValueError, match=text):
        KeypointDetector(channels, SMALL)


def test_a_list_of_channels_means_one_a_type():
    assert KeypointDetector(["a", "b"], SMALL).channels == {"a": ["a"], "b": ["b"]}


@pytest.mark.parametrize("loss", ["bce", "mse", "focal"])
def test_one_picture_can_be_learned_by_heart(loss):
    torch.manual_seed(0)
    detector = KeypointDetector(["a"], SMALL, lr=0.01, loss=loss, lr_scheduler="constant")
    detector.log = detector.log_dict = lambda *args, **kwargs: None
    batch = make_batch([[10.3, 20.6], [30.0, 8.5]])
    batch.images[0, :, 18:23, 8:13] = 255
    batch.images[0, :, 6:11, 28:33] = 128
    optimizer = detector.configure_optimizers()
    for _ in range(150):
        optimizer.zero_grad()
        detector.training_step(batch, 0).backward()
        optimizer.step()
    found = detector.detect(detector.network(batch.images))
    points = sorted(found.points[0, 0, :2].tolist())
    assert points[0] == pytest.approx([10.3, 20.6], abs=0.5)
    assert points[1] == pytest.approx([30.0, 8.5], abs=0.5)
    assert found.scores[0, 0, 1] > 5 * found.scores[0, 0, 2]


def test_errors_are_in_pixels_of_the_original_picture():
    detector = KeypointDetector(["a"], SMALL)
    truth = make_batch([[10.0, 20.0]])
    detector.trainer = SimpleNamespace(state=SimpleNamespace(fn="test"), sanity_checking=False)
    heatmaps = detector.codec.encode(torch.tensor([[[[13.0, 24.0]]]]), torch.full((1, 1, 1), 2), (32, 48))
    detector.network.forward = lambda images: Maps(torch.logit(heatmaps, eps=1e-6))
    predictions = detector.test_step(truth, 0)
    assert predictions.detections_input.points[0, 0, 0].tolist() == pytest.approx([13, 24], abs=0.05)
    in_image = map_detections(predictions.detections_input, truth.input_to_image)
    assert in_image.points[0, 0, 0].tolist() == pytest.approx([26, 48], abs=0.1)
    report = detector.test_metrics.compute()
    assert report.overall.error_px_mean == pytest.approx(10, abs=0.1)  # 3 and 4 input pixels, doubled


def round_trip(detector: KeypointDetector, path) -> KeypointDetector:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint(path, weights_only=True)
    return KeypointDetector.load_from_checkpoint(path, map_location="cpu", weights_only=True)


def test_a_model_made_in_python_is_rebuilt_from_its_checkpoint(tmp_path):
    optimizer = functools.partial(torch.optim.SGD, momentum=0.9)
    detector = KeypointDetector({"ab": ["a", "b"]}, SMALL, lr=0.5, optimizer=optimizer, ap_thresholds_px=(3.0,))
    first = round_trip(detector, tmp_path / "a.ckpt")
    second = round_trip(first, tmp_path / "b.ckpt")
    image = torch.randint(0, 255, (1, 3, 16, 16), dtype=torch.uint8)
    for loaded in (first, second):
        assert loaded.channels == {"ab": ["a", "b"]}
        assert loaded.network.backbone.init_args == detector.network.backbone.init_args
        assert loaded.lr == 0.5
        made = loaded.optimizer(loaded.parameters(), loaded.lr)
        assert isinstance(made, torch.optim.SGD)
        assert made.param_groups[0]["momentum"] == 0.9
        torch.testing.assert_close(loaded.eval()(image), detector.eval()(image))


def test_what_cannot_be_named_in_a_checkpoint_is_left_out_with_a_warning(tmp_path, caplog):
    detector = KeypointDetector(["a"], SMALL, optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr))
    assert "A checkpoint cannot hold optimizer" in caplog.text
    loaded = round_trip(detector, tmp_path / "a.ckpt")
    assert isinstance(loaded.optimizer(loaded.parameters(), 0.1), torch.optim.AdamW)


class Objects(Strided):
    """A backbone that is given an object and any other arguments."""

    def __init__(self, activation: nn.Module | None = None, **others: int) -> None:
        super().__init__()
        self.activation = activation or nn.ReLU()
        self.others = others


def test_what_no_checkpoint_can_hold_is_left_out_of_it_with_a_warning(tmp_path, caplog):
    detector = KeypointDetector(["a"], lambda: Objects(nn.Tanh(), depth=3))
    assert "argument activation of the backbone is a Tanh" in caplog.text
    assert detector.hparams["backbone"]["init_args"] == {"depth": 3}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]["channels"] == ["a"]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_that_rounds_the_ground_truth_is_refused(precision):
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    loader = torch.utils.data.DataLoader([make_batch([[10.0, 20.0]])], batch_size=None)
    with pytest.raises(MisconfigurationException, match="but the ground truth too"):
        trainer.fit(KeypointDetector(["a"], SMALL), loader)


def test_images_that_would_be_mostly_padding_are_refused():
    detector = KeypointDetector(["a"], functools.partial(Unet, n_channels=2, n_downsampling_layers=6)).eval()
    with pytest.raises(ValueError, match=r"images of 20x30 .*padded to 64x64"):
        detector(torch.zeros(1, 3, 20, 30, dtype=torch.uint8))
    assert detector(torch.zeros(1, 3, 40, 40, dtype=torch.uint8)).shape == (1, 1, 40, 40)


def test_the_names_of_logged_metrics_are_known_before_they_are_measured():
    names = KeypointDetector(["a", "b"], SMALL).logged_names()
    assert {"val/mAP", "val/AP/b/d=4", "val/error_px/median", "val/loss", "train/loss", "train/loss/a"} < names


def test_the_map_that_may_choose_the_best_checkpoint_is_averaged_with_those_before(
    discs, tmp_path, monkeypatch, recwarn
):
    monkeypatch.chdir(tmp_path)
    chosen_by = "{class_path: BestCheckpoint, init_args: {monitor: val/mAP_smoothed}}"
    words = ["fit", "--config", TINY, f"--data.train={discs}", f"--data.val={discs}", "--model.lr_scheduler=constant"]
    words += [f"--trainer.callbacks=[{chosen_by}]"]

    def train(folder: str, *others: str) -> tuple[list[float], list[float], Path]:
        logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"]
        cli = run([*words, *logger, f"--trainer.default_root_dir={folder}", *others])
        (log,) = Path(folder).rglob("metrics.csv")
        with log.open() as file:
            rows = [row for row in csv.DictReader(file) if row["val/mAP"]]
        (best,) = (one for one in cli.trainer.checkpoint_callbacks if one.monitor == "val/mAP_smoothed")
        plain, smoothed = ([float(row[name]) for row in rows] for name in ("val/mAP", "val/mAP_smoothed"))
        assert float(best.best_model_score) == pytest.approx(max(smoothed))
        return plain, smoothed, Path(best.best_model_path)

    plain, smoothed, best = train("whole", "--trainer.max_epochs=6")
    assert len(plain) == 6
    assert len(set(plain)) > 2
    expected = plain[:1]
    for value in plain[1:]:
        expected.append(0.6 * expected[-1] + 0.4 * value)
    assert smoothed == pytest.approx(expected, abs=1e-6)
    assert torch.load(best, weights_only=True)["validation"]["epoch"] == 1 + smoothed.index(max(smoothed))
    _, _, first = train("parts", "--trainer.max_epochs=3")
    last = first.with_name("last.ckpt")
    shutil.rmtree(Path("parts") / "lightning_logs")
    _, later, _ = train("parts", "--trainer.max_epochs=6", f"--ckpt_path={last}")
    assert later == pytest.approx(expected[3:], abs=1e-6)
    assert not [one for one in recwarn if "monitored key" in str(one.message)]
    # The last validation counts, although it comes before the next one is due.
    by_step = ["--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"]
    plain, smoothed, _ = train("steps", "--trainer.max_epochs=2", "--trainer.max_steps=5", *by_step)
    assert len(plain) == 3
    assert smoothed[-1] == pytest.approx(0.6 * smoothed[1] + 0.4 * plain[-1], abs=1e-6)
    assert smoothed[-1] != smoothed[1]
