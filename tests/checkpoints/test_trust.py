"""Checkpoints from strangers: whatever their settings name, nothing of it is imported or called."""

import copy
import functools
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from PIL import Image

from keypoint_detection import Predictor
from keypoint_detection.checkpoints.files import CheckpointError, read_checkpoint
from keypoint_detection.checkpoints.settings import read_settings
from keypoint_detection.checkpoints.trust import BASES, PACKAGES, UntrustedError, find_class, refuse_untrusted, trusting
from keypoint_detection.checkpoints.writing import write_checkpoint
from keypoint_detection.cli import run
from keypoint_detection.commands import training
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.parsing.arguments import find_class_names

TINY = str(Path(__file__).parents[1] / "conf" / "tiny.yaml")
TOUCH = "open('PWNED', 'w').close()"
# A module beside the checkpoint, whose import and whose classes leave a trace.
EVIL = f"""
import torch
from keypoint_detection.models.backbones import Unet
{TOUCH}
class Net(Unet):
    pass
class Optimizer(torch.optim.SGD):
    pass
def function(*args, **kwargs):
    {TOUCH}
"""


def named(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


ADAMW, STEP = "torch.optim.AdamW", "torch.optim.lr_scheduler.StepLR"
COMMAND = {"command": "touch PWNED"}
# (setting, value): what a stored setting may not be.
HOSTILE = [
    ("lr_scheduler", named("os.system", **COMMAND)),
    ("lr_scheduler", "os.system"),
    ("lr_scheduler", named("posix.system", **COMMAND)),
    ("lr_scheduler", named("subprocess.Popen", args="touch PWNED", shell=True)),
    ("lr_scheduler", named("subprocess.getoutput", cmd="touch PWNED")),
    ("lr_scheduler", named("builtins.exec", source=TOUCH)),
    ("lr_scheduler", named("builtins.open", file="PWNED", mode="w")),
    ("lr_scheduler", named("evil_module.function")),
    ("lr_scheduler", named("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.system")),
    ("lr_scheduler", named("torch.optim.lr_scheduler.LambdaLR", lr_lambda=["torch.hub.load"])),
    ("lr_scheduler", named("torch.optim.lr_scheduler.os.system", **COMMAND)),
    ("lr_scheduler", named("torch.utils.cpp_extension.subprocess.Popen", args="touch PWNED", shell=True)),
    ("lr_scheduler", named("webbrowser.open", url="file:///")),
    ("lr_scheduler", named(STEP, step_size=named("os.system", **COMMAND))),
    ("lr_scheduler", named(STEP, step_size=2, verbose=[named("pathlib.Path.touch", self="PWNED")])),
    ("optimizer", named("timeit.timeit", stmt=TOUCH)),
    ("optimizer", "timeit.timeit"),
    ("optimizer", named("evil_module.Optimizer")),
    ("optimizer", named("functools.partial", func="os.system")),
    ("optimizer", named("runpy.run_path", path_name="evil_module.py")),
    ("optimizer", named("pickle.load", file="evil.pkl")),
    ("optimizer", named("shutil.rmtree", path="boxes")),
    ("optimizer", named("torch.load", f="evil.pkl", weights_only=False)),
    ("optimizer", named("torch.utils.tensorboard.SummaryWriter", log_dir="PWNED")),
    ("optimizer", named("torch.testing._internal.common_utils.TestCase")),
    ("optimizer", named("keypoint_detection.checkpoints.files.write_checkpoint", content={}, path="PWNED")),
    ("optimizer", named("keypoint_detection.__main__.main")),
    ("optimizer", named("lightning.pytorch.cli.LightningCLI")),
    ("optimizer", named(ADAMW, betas=named("os.mkdir", path="PWNED"))),
    ("backbone", named("os.system", **COMMAND)),
    ("backbone", "os.system"),
    ("backbone", named("subprocess.getoutput", cmd="touch PWNED")),
    ("backbone", named("runpy.run_path", path_name="evil_module.py")),
    ("backbone", named("runpy.run_module", mod_name="evil_module")),
    ("backbone", named("torch.hub.load", repo_or_dir=".", model="net", source="local")),
    ("backbone", named("evil_module.Net")),
    ("backbone", "evil_module.Net"),
    ("backbone", named("evil_package.evil_module.Net")),
    ("backbone", named("importlib.import_module", name="evil_module")),
    ("backbone", named("antigravity.geohash")),
    ("backbone", named("this.s")),
    ("backbone", named("keypoint_detection.models.backbones.Unet", n_channels=named("os.system", **COMMAND))),
    ("backbone", named("keypoint_detection.cli.main")),
    ("backbone", named("keypoint_detection.models.backbones.encoders.torch.hub.load")),
    ("channels", {"class_path": "os.system", "init_args": COMMAND}),
    ("loss", named("os.system", **COMMAND)),
    ("init_from", named("os.system", **COMMAND)),
]
TRANSFORM = "torchvision.transforms.v2.{}".format
# The same for the settings of the data module.
HOSTILE_DATA = [
    ("augmentation", [named("os.system", **COMMAND)]),
    ("augmentation", ["os.system"]),
    ("augmentation", named("os.system", **COMMAND)),
    ("augmentation", [named(TRANSFORM("Lambda"), lambd="os.system")]),
    ("augmentation", [named(TRANSFORM("RandomApply"), transforms=[named("os.system", **COMMAND)])]),
    ("augmentation", [named("evil_module.Net")]),
    ("synthetic", named("os.system", **COMMAND)),
    ("train", named("os.system", **COMMAND)),
]
CALLBACK = "lightning.pytorch.callbacks.{}".format
# The same for the Trainer's settings, in the config.yaml of a run that is resumed.
HOSTILE_TRAINER = [
    ("callbacks", [named("os.system", **COMMAND)]),
    ("callbacks", ["evil_module.Net"]),
    ("callbacks", named("evil_module.Net")),
    ("callbacks", [named(CALLBACK("LambdaCallback"), on_fit_start="os.system")]),
    ("callbacks", [named(CALLBACK("LambdaCallback"), on_fit_start="evil_module.function")]),
    ("logger", named("subprocess.Popen", args="touch PWNED", shell=True)),
    ("logger", [named("evil_module.Net")]),
    ("strategy", named("os.system", **COMMAND)),
    ("strategy", named("lightning.pytorch.strategies.DDPStrategy", ddp_comm_hook="evil_module.function")),
    ("plugins", [named("evil_module.Net")]),
    ("plugins", "evil_module.Net"),
    ("profiler", named("cProfile.run", statement=TOUCH)),
    ("accelerator", named("evil_module.Net")),
]
# The modules that all of these name, by their first parts.
ROOTS = {name.partition(".")[0] for name in re.findall(r"[\w.]+\.\w+", str([HOSTILE, HOSTILE_DATA, HOSTILE_TRAINER]))}
names = [f"{setting}-{value}"[:70] for setting, value in [*HOSTILE, *HOSTILE_DATA]]


@pytest.fixture(autouse=True)
def _beside_an_evil_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evil_module.py").write_text(EVIL)
    Path("evil_package").mkdir()
    shutil.copy("evil_module.py", "evil_package")
    Path("tensorboard.py").write_text(EVIL)
    Path("new").mkdir()
    Image.new("RGB", (64, 48)).save("new/one.png")


@pytest.fixture(scope="module")
def run_folder(discs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(["fit", "--config", TINY, f"--data.train={discs}", f"--trainer.default_root_dir={folder}"])
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def content(run_folder):
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def leaves_no_trace():
    """Compare files and imported modules before and after."""
    before, modules = {*Path().rglob("*")}, {*sys.modules}
    yield
    new = {name.partition(".")[0] for name in {*sys.modules} - modules}
    # What kpd itself loads for the first time is not meant.
    assert new & ROOTS <= {package.partition(".")[0] for package in PACKAGES}
    assert {path for path in {*Path().rglob("*")} - before if path.name != "hostile.ckpt"} == set()


def change(content, group, setting, value):
    changed = {**content, group: {**copy.deepcopy(content[group]), setting: value}}
    path = Path("hostile.ckpt")
    write_checkpoint(changed, path)
    return str(path)


class ParserPerCommand(training.DetectorCLI):
    """The command line, whose parser takes a second to build and does not change when it refuses."""

    parsers: ClassVar[dict] = {}

    def setup_parser(self, *args):
        if self.command not in self.parsers:
            super().setup_parser(*args)
            self.parsers[self.command] = (self.parser, self._subcommand_parsers)
        self.parser, self._subcommand_parsers = self.parsers[self.command]


def refusal(capsys, words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(words)
    assert caught.value.code == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert rest == [rest[0]], "one sentence, and where to find the help"
    return first


@pytest.fixture
def parser_per_command(monkeypatch):
    monkeypatch.setattr(training, "run", functools.partial(training.run, cli_class=ParserPerCommand))


@pytest.mark.usefixtures("leaves_no_trace", "parser_per_command")
@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        *(("hyper_parameters", *one) for one in HOSTILE),
        *(("datamodule_hyper_parameters", *one) for one in HOSTILE_DATA),
    ],
    ids=names,
)
def test_what_a_stored_setting_may_not_name_is_refused_everywhere(group, setting, value, content, discs, capsys):
    path = change(content, group, setting, value)
    for words in (
        ["fit", f"--ckpt_path={path}"],
        ["validate", f"--ckpt_path={path}", f"--data.val={discs}"],
        ["test", f"--ckpt_path={path}", f"--data.test={discs}"],
        ["predict", f"--ckpt_path={path}", "--data.predict=."],
        ["export", f"--ckpt_path={path}"],
        ["suggest", f"--ckpt_path={path}", "--images=new", f"--labelled={discs}"],
    ):
        assert f"its setting {setting}" in refusal(capsys, words)
    for load in (
        read_checkpoint,
        Predictor.from_checkpoint,
        KeypointDetector.load_from_checkpoint,
        KeypointsDataModule.load_from_checkpoint,
    ):
        with pytest.raises(CheckpointError, match=f"its setting {setting}"):
            load(path)


def test_that_is_tried_with_at_least_forty_settings():
    assert len(HOSTILE) >= 40


# A function of a module that is not imported is a text like any other, until the schedule asks for a function.
HIDDEN = [
    ("hyper_parameters", "lr_scheduler", named("torch.optim.lr_scheduler.LambdaLR", lr_lambda="evil_module.function")),
    ("hyper_parameters", "lr_scheduler", named("torch.optim.lr_scheduler.LambdaLR", lr_lambda="runpy.run_path")),
    ("datamodule_hyper_parameters", "augmentation", [named(TRANSFORM("Lambda"), lambd="evil_module.function")]),
]


@pytest.mark.usefixtures("leaves_no_trace")
@pytest.mark.parametrize(("group", "setting", "value"), HIDDEN)
def test_a_function_among_the_arguments_is_not_imported(group, setting, value, content, capsys):
    path = change(content, group, setting, value)
    assert " names " in refusal(capsys, ["fit", f"--ckpt_path={path}"])
    module = KeypointDetector if group == "hyper_parameters" else KeypointsDataModule
    with pytest.raises(CheckpointError, match=" names "):
        module.load_from_checkpoint(path)


@pytest.mark.usefixtures("leaves_no_trace")
def test_initial_weights_come_from_trusted_checkpoints_only(content, discs, capsys):
    path = change(content, "hyper_parameters", "optimizer", named("timeit.timeit", stmt=TOUCH))
    words = ["fit", f"--data.train={discs}", "--config", TINY, f"--model.init_from={path}"]
    assert "its setting optimizer names timeit.timeit" in refusal(capsys, words)


@pytest.mark.parametrize(("setting", "value"), HOSTILE_TRAINER, ids=[f"{one}"[:70] for one in HOSTILE_TRAINER])
def test_the_config_of_a_resumed_run_names_only_what_is_trusted(setting, value, run_folder, capsys):
    shutil.copytree(run_folder, "runs/hostile")
    config = Path("runs/hostile/config.yaml")
    settings = yaml.safe_load(config.read_text())
    settings["trainer"][setting] = value
    config.write_text(yaml.safe_dump(settings))
    before, modules = {*Path().rglob("*")}, {*sys.modules}
    words = ["fit", "--ckpt_path=runs/hostile/checkpoints/last.ckpt", "--trainer.max_epochs=2"]
    assert " names " in refusal(capsys, words)
    assert {*Path().rglob("*")} == before
    assert "evil_module" not in {*sys.modules} - modules


def test_the_config_of_a_resumed_run_cannot_lift_the_rules_for_reading_checkpoints(run_folder):
    config = run_folder / "config.yaml"
    changed = Path("config.yaml")
    changed.write_text(config.read_text() + "\nweights_only: false\ntrust: [os]\n")
    assert {name.partition(".")[0] for name in read_settings(changed)} == {
        "seed_everything",
        "model",
        "data",
        "trainer",
    }


@pytest.mark.parametrize(
    "text",
    ["", "5", "[]", "trainer: 5", "a: [", "trainer: {callbacks: {}", "\0", "trainer: {bogus: 1}", "model: {1: 2}"],
)
def test_a_config_that_is_not_one_is_refused(text, run_folder, capsys):
    shutil.copytree(run_folder, "runs/broken")
    Path("runs/broken/config.yaml").write_text(text)
    assert "runs/broken/config.yaml" in refusal(capsys, ["fit", "--ckpt_path=runs/broken/checkpoints/last.ckpt"])


# --- what users do ---------------------------------------------------------------------------------------------------

MINE = """
import torch
from keypoint_detection.models.backbones import Unet
class Net(Unet):
    def __init__(self, n_channels: int = 4):
        super().__init__(n_channels, n_downsampling_layers=1, n_resnet_blocks=1)
class Momentum(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr, momentum=0.5)
"""


@pytest.fixture
def mine(discs, monkeypatch, capsys):
    """The checkpoint of a detector with a backbone and an optimiser of the user's own, whose module is not imported."""
    name = f"mine_{Path.cwd().name}".replace("-", "_")
    Path(f"{name}.py").write_text(MINE)
    monkeypatch.setattr("sys.path", [*sys.path])
    words = [f"--model.backbone={name}.Net", f"--model.optimizer={name}.Momentum", f"--data.val={discs}"]
    run(["fit", "--config", TINY, f"--data.train={discs}", *words])
    assert f"best.ckpt --trust={name} --data.test" in capsys.readouterr().out
    del sys.modules[name]
    sys.path.remove(str(Path.cwd()))
    (best,) = Path().glob("runs/*/checkpoints/best.ckpt")
    return name, best


def test_a_refusal_says_which_words_trust_a_module(mine, discs, capsys):
    name, best = mine
    test = ["test", f"--ckpt_path={best}", f"--data.test={discs}", "--trainer.accelerator=cpu"]
    assert f"add --trust={name};" in refusal(capsys, test)
    assert name not in sys.modules
    assert str(Path.cwd()) not in sys.path
    run([*test, f"--trust={name}"])
    assert name in sys.modules


@pytest.mark.parametrize("words", [["--trust={name}"], ["--trust=other", "--trust={name}"]])
def test_a_run_with_classes_of_the_users_own_is_resumed_with_one_flag(words, mine, capsys):
    name, best = mine
    resume = ["fit", f"--ckpt_path={best.with_name('last.ckpt')}", "--trainer.max_epochs=2"]
    assert f"--trust={name}" in refusal(capsys, resume)
    cli = run([*resume, *(word.format(name=name) for word in words)])
    assert cli.trainer.current_epoch == 2
    assert f"{type(cli.model.network.backbone).__module__}" == name


def test_classes_that_the_user_names_need_no_other_trust(mine, discs):
    name, best = mine
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"backbone": named(f"{name}.Net")}}))
    words = [f"--ckpt_path={best}", f"--data.test={discs}", f"--model.optimizer={name}.Momentum"]
    run(["test", "--config=mine.yaml", *words, "--trainer.accelerator=cpu"])


def test_the_name_of_a_file_is_not_a_class_that_the_user_names():
    Path("weights.pt").touch()
    Path("net.yaml").write_text("class_path: mine.Net2\ninit_args: {pretrained: weights.pt}\n")
    Path("all.yaml").write_text(
        "ckpt_path: best.ckpt\ndata: {predict: val.json, augmentation: [{class_path: mine.Flip}]}\n"
        "model: {init_from: os.remove, lr_scheduler: {class_path: a.B, init_args: {lr_lambda: mine.function}}}\n"
    )
    words = [
        *("predict", "--ckpt_path=os.system-1.ckpt", "--ckpt_path", "os.system", "--data.predict=os.mkdir"),
        *("--model.init_from=os.remove", "--data.train=labels.json", "--trainer.default_root_dir=runs/os.rmdir"),
        *("--model.backbone", "mine.Net", '--trainer.callbacks=[{"class_path": "mine.Callback"}]'),
        *("--model.backbone=net.yaml", "--config", "all.yaml"),
    ]
    variables = {"KPD_PREDICT__CKPT_PATH": "os.system", "KPD_FIT__MODEL__OPTIMIZER": "mine.Momentum", "PATH": "os.path"}
    assert {name for name in find_class_names(words, variables) if "/" not in name} == {
        *("mine.Net", "mine.Callback", "mine.Net2", "mine.Flip", "a.B", "mine.function", "mine.Momentum")
    }


def test_names_that_only_python_takes_for_names_are_names(content, capsys):
    Path("evil·x.py").write_text(EVIL)
    sys.path.insert(0, ".")
    for group, setting, value in (
        ("datamodule_hyper_parameters", "augmentation", [named(TRANSFORM("Lambda"), lambd="evil·x.function")]),
        ("hyper_parameters", "backbone", "evil·x.Net"),
    ):
        path = change(content, group, setting, value)
        assert " names evil·x" in refusal(capsys, ["fit", f"--ckpt_path={path}"])
        with pytest.raises(CheckpointError, match="names evil·x"):
            (KeypointDetector if setting == "backbone" else KeypointsDataModule).load_from_checkpoint(path)
    sys.path.remove(".")
    assert "evil·x" not in sys.modules
    assert not Path("PWNED").exists()


def test_python_trusts_modules_that_it_has_imported_or_is_told_to(mine, monkeypatch):
    name, best = mine
    monkeypatch.syspath_prepend(".")
    with pytest.raises(CheckpointError, match=f"import {name} first"):
        Predictor.from_checkpoint(best)
    assert name not in sys.modules
    assert Predictor.from_checkpoint(best, trust=[name]).channels == ["red", "left", "right"]
    # Imported by now.
    assert Predictor.from_checkpoint(best).channels == ["red", "left", "right"]
    detector = KeypointDetector.load_from_checkpoint(best)
    assert type(detector.network.backbone).__module__ == name


def test_a_module_in_the_working_folder_replaces_nothing_that_is_looked_for(discs):
    run(["fit", "--config", TINY, f"--data.train={discs}", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=a"])
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize("word", ["--trust=", "--trust", "--trust=a/b", "--trust=mine.py "])
def test_trust_is_given_to_modules(word, capsys):
    with pytest.raises(SystemExit) as caught:
        run(["predict", word])
    assert caught.value.code == 2
    assert "--trust=my_module is expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        "os.system",
        ["os.system", "data.json"],
        {"folder": "os.system"},
        named("keypoint_detection.models.backbones.Unet", title="my.data"),
        named("torchvision.transforms.v2.RandomRotation", fill="weights.pt"),
    ],
)
def test_texts_that_look_like_names_are_left_alone(value):
    refuse_untrusted({"train": value, "channels": value}, "a.ckpt")


def test_trust_covers_a_module_and_what_is_below_it():
    with trusting(["mine"]):
        refuse_untrusted({"a": named("mine.net.Net")}, "a.ckpt")
        with pytest.raises(UntrustedError, match="--trust=mine_too"):
            refuse_untrusted({"a": named("mine_too.Net")}, "a.ckpt")
    with pytest.raises(UntrustedError, match="--trust=mine;"):
        refuse_untrusted({"a": named("mine.Net")}, "a.ckpt")


def test_every_base_class_is_where_it_is_said_to_be():
    for name in BASES:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), attribute), type)


def test_classes_are_found_without_the_name_of_a_function_or_a_missing_one():
    assert find_class("torch.optim.AdamW") is torch.optim.AdamW
    with pytest.raises(UntrustedError, match="there is no class"), trusting(["mine", "json"]):
        find_class("json.dumps")
