"""The documentation site: `sphinx-build -W docs site` makes it from these pages, the help, and the docstrings."""

import ast
import contextlib
import io
import os
import re
from pathlib import Path
from xml.sax.saxutils import escape

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, for which Sphinx brings it
    import tomli as tomllib

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

DOCS = Path(__file__).parent
GENERATED = DOCS / "generated"
# What has a help of its own, for the page of options.
OPTIONS = {
    "The data": ("fit", "--data.help"),
    "The model": ("fit", "--model.help"),
    **{
        f"The backbone {name}": ("fit", f"--model.backbone.help={name}")
        for name in sorted(backbones.__all__)
        if name != "Backbone"
    },
    "The trainer": ("fit", "--trainer.help"),
    "The predictions": ("predict", "--output.help"),
}
CLASSES = (
    ("Predictor", ":members: from_checkpoint, from_onnx, __call__, draw"),
    ("Result", ""),
    ("Point", ""),
    ("KeypointDetector", ":members: forward, detect"),
    ("KeypointsDataModule", ""),
    *((f"models.backbones.{name}", "") for name in backbones.__all__),
    *((f"{one.__module__.partition('.')[2]}.{one.__name__}", "") for one in CALLBACKS),
)
# Of the drawing of layers, in pixels.
WIDTH, ROW, GAP, NAME_X, TEXT_X = 900, 20, 10, 40, 190


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


def quote(command: str, option: str, text: str) -> list[str]:
    """Return the lines of a page that show what a command says."""
    return ["", f"`kpd {command} {option}`:", "", "```text", text, "```", ""]


def shorten_help(text: str) -> str:
    """Leave out the options of the data and the model, which have a page."""
    return "\n\n".join(part for part in text.split("\n\n") if not re.search(r"^  --(data|model)\.", part, re.M))


def write_reference() -> None:
    """Write the pages that are made from the code: commands, their options, and the Python classes."""
    GENERATED.mkdir(exist_ok=True)
    os.environ["COLUMNS"] = "84"
    commands = ["# Commands", ""]
    for command, entry in COMMANDS.items():
        text = read_help(command, "--help")
        commands += [f"## kpd {command}", "", f"{entry.help[0].upper()}{entry.help[1:]}."]
        commands += quote(command, "--help", shorten_help(text))
        if shorten_help(text) != text:
            commands += ["And the [options of the data and the model](options.md).", ""]
    options = ["# Options", ""]
    for title, (command, option) in OPTIONS.items():
        options += [f"## {title}", *quote(command, option, read_help(command, option))]
    classes = ["# Python classes", ""]
    for name, members in CLASSES:
        directive = [f".. autoclass:: keypoint_detection.{name}", f"   {members}"]
        classes += [f"## {name.rpartition('.')[2]}", "", "```{eval-rst}", *directive, "```", ""]
    for name, lines in {"commands": commands, "options": options, "classes": classes}.items():
        (GENERATED / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def draw_layers() -> str:
    """Draw the layers of the package as an SVG: a box for each, with its modules and what they are for."""
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    parts, top = [], GAP
    for layer in layers:
        names = [name.strip() for name in layer.split("|")]
        height = ROW * len(names) + GAP
        parts.append(f'<rect x="{NAME_X - 12}" y="{top}" width="{WIDTH - NAME_X}" height="{height}" rx="4"/>')
        for number, name in enumerate(names, start=1):
            y = top + ROW * number
            parts.append(f'<text x="{NAME_X}" y="{y}" class="name">{name}</text>')
            parts.append(f'<text x="{TEXT_X}" y="{y}">{escape(describe_module(name))}</text>')
        top += height + GAP
    arrow = f"M12 {GAP}V{top - GAP}m-5-9 5 9 5-9"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-label="Layers">\n'
        "<style>text{font:12px sans-serif;fill:#222}.name{font:bold 12px monospace}rect{fill:#e8eef7;stroke:#5b6b86}"
        "path{fill:none;stroke:#c0392b}</style>\n"
        f'<rect width="{WIDTH}" height="{top}" style="fill:#fff;stroke:none"/>\n<path d="{arrow}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def describe_module(name: str) -> str:
    """Return the first line of the docstring of a module or folder."""
    folder = DOCS.parent / "keypoint_detection"
    path = folder / name / "__init__.py" if (folder / name).is_dir() else folder / f"{name}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".")


write_reference()
(DOCS / "layers.svg").write_text(draw_layers(), encoding="utf-8")
