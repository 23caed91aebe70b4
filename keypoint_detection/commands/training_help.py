"""The help of `kpd fit`, `validate`, `test` and `predict`: the most used options first, others on pages."""

from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any

from keypoint_detection.parsing.arguments import ENVIRONMENT_PREFIX
from keypoint_detection.parsing.help import TRUST_HELP
from keypoint_detection.parsing.internals import reword_options, show_options

HELP = ("-h", "--help")
DESCRIPTIONS = {
    "fit": "Train a detector on a COCO keypoint file, validating as it goes.",
    "validate": "Measure a checkpoint on the validation images, and calibrate its scores on them.",
    "test": "Measure a checkpoint on a COCO keypoint file.",
    "predict": "Find the points in images, folders and videos, and write them to files.",
}
EXAMPLES = {
    "fit": "kpd fit --data.train=train.json --data.image_size='[256, 256]'\n  kpd fit --config base.yaml",
    "validate": "kpd validate --ckpt_path=best.ckpt --data.val=val.json",
    "test": "kpd test --ckpt_path=best.ckpt --data.test=test.json",
    "predict": "kpd predict --ckpt_path=best.ckpt --data.predict=frames/",
}
# The groups of options that the help of a command shows.
SHOWN = {
    "fit": ("data", "model"),
    "validate": ("data", "model"),
    "test": ("data", "model"),
    "predict": ("output", "data"),
}
TITLES = {
    "data": "Options of the data",
    "model": "Options of the detector",
    "trainer": "Options of Lightning's Trainer: length, devices, precision, callbacks, logger",
}
PAGES = {
    "data": "what is read, and how",
    "model": "network, optimiser, loss, detection",
    "trainer": "length, devices, precision, callbacks, logger",
}
TEXTS = {
    "config": "YAML file with any of these options; flags and files given after it take precedence",
    "seed_everything": "seed of the initial network and of everything drawn at random; true: another one every time",
    "weights_only": SUPPRESS,
    "return_predictions": SUPPRESS,
    "verbose": SUPPRESS,
}
CHECKPOINT = {
    "fit": "checkpoint of an interrupted training run to resume, runs/…/checkpoints/last.ckpt",
    "others": "checkpoint of a trained detector, a path or wandb://entity/project/name:alias; required",
}


def describe_command(parser: Any, command: str) -> None:
    """Replace Lightning's wording with this package's, in the help and in commented configs."""
    parser.description = DESCRIPTIONS[command]
    reword_options(parser, {**TEXTS, "ckpt_path": CHECKPOINT.get(command, CHECKPOINT["others"])}, TITLES)


def show_help(parser: Any, command: str, words: Sequence[str]) -> None:
    """Show the help page that the words ask for, and exit; do nothing if they ask for none.

    Args:
        parser: of the command.
        command: its name.
        words: those after it.

    Raises:
        SystemExit: help was shown (0).
    """
    pages = [name for name in parser.groups if f"--{name}.help" in words]
    if pages:
        parser.description = f"Options of `kpd {command}`: {PAGES[pages[0]]}." if pages[0] in PAGES else None
        show_options(parser, pages, usage=f"kpd {command} [--{pages[0]}.OPTION=VALUE …]", epilog=None)
    elif any(word in HELP for word in words):
        usage = f"kpd {command} [--config FILE.yaml] [--OPTION=VALUE …]"
        parser.description += f"\n\n  {EXAMPLES[command]}"
        show_options(parser, ["", command, *SHOWN[command]], usage=usage, epilog=_name_pages(command))


def _name_pages(command: str) -> str:
    pages = {f"--{name}.help": text for name, text in PAGES.items() if name not in SHOWN[command]}
    pages["--model.backbone.help Unet"] = "the options of a class"
    lines = (f"  kpd {command} {flag:29}{text}" for flag, text in pages.items())
    variable = f"{ENVIRONMENT_PREFIX}_{command}__data__batch_size".upper()
    return (
        f"{TRUST_HELP}\n\nMore help:\n" + "\n".join(lines) + f"\n\nEnvironment variables set options too: {variable}=8 "
        "is --data.batch_size=8."
    )
