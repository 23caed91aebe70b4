"""The documentation site: `sphinx-build -W docs site` makes it from these pages, the help, and the docstrings."""

import contextlib
import io
import os
from pathlib import Path

import keypoint_detection
from keypoint_detection.cli import COMMANDS, run
from keypoint_detection.commands.training_callbacks import CALLBACKS
from keypoint_detection.models import backbones

project = "kpd"
author = "the kpd maintainers"
version = release = keypoint_detection.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site"]  # where a reader may build them
html_theme = "furo"
html_title = "kpd"
html_show_sphinx = html_show_copyright = False
# Links of pages to each other's headings, as on a Git host.
myst_heading_anchors = 3
# Backticks in docstrings are code.
default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Links that leave docs/ work in a clone only.
suppress_warnings = ["myst.xref_missing"]

GENERATED = Path(__file__).parent / "generated"
PAGES = {"fit": ("--help", "--model.help", "--data.help", "--trainer.help"), "predict": ("--help", "--output.help")}
CLASSES = (
    ("Predictor", ":members: from_checkpoint, from_onnx, __call__, draw"),
    ("Result", ""),
    ("Point", ""),
    ("KeypointDetector", ":members: forward, detect"),
    ("KeypointsDataModule", ""),
    *((f"models.backbones.{name}", "") for name in backbones.__all__),
    *((f"{one.__module__.partition('.')[2]}.{one.__name__}", "") for one in CALLBACKS),
)


def read_help(command: str, option: str) -> str:
    """Return what a command says when it is asked for help."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            run([command, option])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"kpd {command} {option} failed") from end
    # Between an option and its value, argparse writes a backspace.
    return out.getvalue().strip().replace("\b", "")


def write_reference() -> None:
    """Write the pages that are made from the code: commands with their options, and the Python classes."""
    GENERATED.mkdir(exist_ok=True)
    os.environ["COLUMNS"] = "84"
    commands = ["# Commands", ""]
    for command, entry in COMMANDS.items():
        commands += [f"## kpd {command}", "", f"{entry.help[0].upper()}{entry.help[1:]}.", ""]
        for option in PAGES.get(command, ("--help",)):
            commands += [f"`kpd {command} {option}`:", "", "```text", read_help(command, option), "```", ""]
    (GENERATED / "commands.md").write_text("\n".join(commands), encoding="utf-8")
    classes = ["# Python classes", ""]
    for name, options in CLASSES:
        classes += [
            f"## {name.rpartition('.')[2]}",
            "",
            "```{eval-rst}",
            f".. autoclass:: keypoint_detection.{name}",
            f"   {options}",
            "```",
            "",
        ]
    (GENERATED / "classes.md").write_text("\n".join(classes), encoding="utf-8")


write_reference()
