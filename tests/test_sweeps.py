"""Sweeps: command lines as the agent of Weights & Biases builds them, read by our parser."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from keypoint_detection.commands.detector_cli import DetectorCLI
from keypoint_detection.commands.training import run
from keypoint_detection.parsing.arguments import prepare_words

UNET = "keypoint_detection.models.backbones.Unet"

Parse = Callable[..., Namespace]


def agent_words(parameters: dict[str, Any]) -> list[str]:
    """The words that stand for `${args}` in the command of a sweep."""
    words = create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})["args"]
    assert len(words) == len(parameters)
    return list(words)


class ParsingCLI(DetectorCLI):
    """Parse the words of `kpd fit` without making or running anything."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture(scope="module")
def parse() -> Parse:
    cli = run(["fit", "--data.train=train.json"], ParsingCLI)

    def parse_words(words: list[str]) -> Namespace:
        cli.parse_arguments(cli.parser, ["fit", "--data.train=train.json", *words])
        config = cli.config.fit
        assert isinstance(config, Namespace)
        return config

    return parse_words


PARAMETERS = [
    ({"model.lr": 1e-05}, {"model.lr": 1e-05}),
    ({"model.heatmap_sigma": 3}, {"model.heatmap_sigma": 3.0}),
    ({"data.batch_size": 16.0}, {"data.batch_size": 16}),
    ({"trainer.max_epochs": 3.0}, {"trainer.max_epochs": 3}),
    # All batches and one batch are different things.
    ({"trainer.limit_val_batches": 1.0}, {"trainer.limit_val_batches": 1.0}),
    ({"trainer": {"limit_val_batches": 1.0}}, {"trainer.limit_val_batches": 1.0}),
    ({"trainer.limit_val_batches": 1}, {"trainer.limit_val_batches": 1}),
    ({"trainer.logger.version": "1.0"}, {"trainer.logger.init_args.version": "1.0"}),
    ({"data.augment": False}, {"data.augment": False}),
    ({"data.augment": True}, {"data.augment": True}),
    ({"data.num_workers": None}, {"data.num_workers": None}),
    ({"data.image_root": None}, {"data.image_root": None}),
    ({"trainer.gradient_clip_val": None}, {"trainer.gradient_clip_val": None}),
    ({"trainer.precision": "16-mixed"}, {"trainer.precision": "16-mixed"}),
    ({"data.image_size": [64.0, 96]}, {"data.image_size": (64, 96)}),
    ({"data.image_size": None}, {"data.image_size": None}),
    ({"model.ap_thresholds_px": [2, 4.5]}, {"model.ap_thresholds_px": (2.0, 4.5)}),
    ({"data.flip_pairs": [["left", "right"]]}, {"data.flip_pairs": [("left", "right")]}),
    ({"model.channels": ["no", "on", "1"]}, {"model.channels": ["no", "on", "1"]}),
    ({"model.channels": {"on": ["it's", "no"], "c": ["d"]}}, {"model.channels": {"on": ["it's", "no"], "c": ["d"]}}),
    ({"model": {"lr": 1e-05, "oks_sigmas": None}}, {"model.lr": 1e-05, "model.oks_sigmas": None}),
    ({"model.backbone.width": 8.0}, {"model.backbone.init_args.width": 8}),
    (
        {"model.backbone": "Unet", "model.backbone.n_channels": 8},
        {"model.backbone.class_path": UNET, "model.backbone.init_args.n_channels": 8},
    ),
    (
        {"model.backbone.n_channels": 8, "model.backbone": "Unet"},
        {"model.backbone.class_path": UNET, "model.backbone.init_args.n_channels": 8},
    ),
    (
        {"model.backbone": {"class_path": "Unet", "init_args": {"n_channels": 8.0}}},
        {"model.backbone.class_path": UNET, "model.backbone.init_args.n_channels": 8},
    ),
    (
        {"model.optimizer": "SGD", "model.optimizer.momentum": 0.9},
        {"model.optimizer.class_path": "torch.optim.SGD", "model.optimizer.init_args.momentum": 0.9},
    ),
]


@pytest.mark.parametrize(("parameters", "expected"), PARAMETERS, ids=[str(entry[0]) for entry in PARAMETERS])
def test_parameter_of_a_sweep_arrives(parse: Parse, parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    config = parse(agent_words(parameters))
    found = {name: config[name] for name in expected}
    assert found == expected
    # 1, 1.0 and True are equal in Python.
    assert [name for name, value in expected.items() if not isinstance(found[name], type(value))] == []


REFUSED = [
    ({"model.learning_rate": 0.1}, "unrecognized arguments: --model.learning_rate", "--model.lr"),
    ({"model.backbone.widht": 8}, "'widht' is not accepted", "Did you mean width?"),
    ({"model.backbone": "Unett"}, "no class called Unett", "Unet"),
    ({"data.batch_size": 16.5}, "16.5", "int_uniform"),
    ({"model.channels": [["a", "b"], ["c"]]}, "model.channels", "Give a mapping like {corner: [corner0"),
    ({"data.flip_pairs": ["left_ear", "right_ear"]}, "data.flip_pairs", "[[left_ear, right_ear], [left_eye"),
    ({"model.loss": "l1"}, "model.loss", "focal"),
]


@pytest.mark.parametrize(("parameters", "problem", "way_out"), REFUSED, ids=[str(entry[0]) for entry in REFUSED])
def test_wrong_parameter_of_a_sweep_is_refused_with_the_way_out(
    parse: Parse,
    capsys: pytest.CaptureFixture[str],
    parameters: dict[str, Any],
    problem: str,
    way_out: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(agent_words(parameters))
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert problem in message
    assert way_out in message


def test_arguments_without_hyphens_are_refused_with_the_way_out(
    parse: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["model.lr=0.1"])
    assert stopped.value.code == 2
    assert "the `command` of a sweep passes them as ${args}" in capsys.readouterr().err


def test_sweep_wins_over_config_file_and_config_file_over_signature(parse: Parse, tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump({"model": {"lr": 0.5, "heatmap_sigma": 5.0}, "data": {"batch_size": 3}}))
    config = parse(["--config", str(path), *agent_words({"model.lr": 0.25})])
    assert (config.model.lr, config.model.heatmap_sigma, config.data.batch_size) == (0.25, 5.0, 3)
    assert config.model.score_threshold == 0.01


def test_yaml_and_separate_values_are_left_to_the_parser() -> None:
    words = ["--model.channels={corner: [a, b]}", "--model.lr", "16.0", "--data.image_size=[64, oops"]
    assert prepare_words(words) == words


# --- the sweeps that users copy --------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def draws(parameter: dict[str, Any]) -> list[Any]:
    """What a sweep may draw for a parameter: its values, or the ends of its range."""
    ends = parameter.get("values", [parameter.get("min"), parameter.get("max")])
    assert len(ends) >= 2
    assert None not in ends
    return list(ends)


def test_there_are_five_sweeps() -> None:
    assert [path.stem for path in SWEEPS] == ["bayes", "folds", "grid", "hyperband", "learning_curve"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_draw_of_a_sweep_is_accepted(parse: Parse, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    assert sweep["project"]
    assert sweep["metric"] == {"name": "val/mAP", "goal": "maximize"}
    assert sweep["command"][:3] == ["${env}", "kpd", "fit"]
    assert sweep["command"][-1] == "${args}"
    options = {name: draws(parameter) for name, parameter in sweep["parameters"].items()}
    for index in range(max(len(values) for values in options.values())):
        parameters = {name: values[min(index, len(values) - 1)] for name, values in options.items()}
        config = parse([*sweep["command"][3:-1], *agent_words(parameters)])
        simple = {name: value for name, value in parameters.items() if not name.startswith("model.backbone")}
        assert len(simple) >= 1
        assert {name: config[name] for name in simple} == simple


def test_the_folds_of_the_sweep_take_no_validation_file(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load((ROOT / "configs" / "sweeps" / "folds.yaml").read_text())
    data = parse([*sweep["command"][3:-1], *agent_words({"data.fold": 4})]).data
    assert (data.val, data.n_folds, data.fold) == (None, 5, 4)


def test_the_backbone_of_the_search_comes_with_its_options(parse: Parse) -> None:
    sweep = yaml.safe_load((ROOT / "configs" / "sweeps" / "bayes.yaml").read_text())
    backbones = sweep["parameters"]["model.backbone"]["values"]
    for backbone in backbones:
        parsed = parse(agent_words({"model.backbone": backbone})).model.backbone
        assert parsed.class_path.endswith(f".{backbone['class_path']}")
        assert {name: parsed.init_args[name] for name in backbone["init_args"]} == backbone["init_args"]
    assert len(backbones) == 3
