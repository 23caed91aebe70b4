"""The README and the pages of docs/: their links lead somewhere, their commands and settings exist, their code runs.

Commands are not run here: their words are compared with the options that the program has. Python blocks run, in order,
in a folder with a detector called best.ckpt and an image called image.jpg. YAML blocks are parsed as configs.
"""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from keypoint_detection.cli import COMMANDS, run
from keypoint_detection.commands import training

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)


def blocks(page, language):
    for indent, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == language:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines())


def kpd_commands():
    """Yield the words after `kpd` of every command, each with its page."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in re.split(r"\n|&&|;|\bdo\b", block.replace("\\\n", " ")):
                words = shlex.split(line, comments=True)
                if words[:1] == ["kpd"]:
                    yield page.name, words[1:]


ALL_COMMANDS = list(kpd_commands())


@pytest.fixture(scope="module")
def options():
    """The options of every command, from its help."""

    def read(command):
        text = io.StringIO()
        for help in ("--help", "--trainer.help"):
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
                run([command, help])
        return set(re.findall(r"--\w+(?:\.\w+)*", text.getvalue())) | {"--print_config"}

    return {command: read(command) for command in {words[0] for _, words in ALL_COMMANDS}}


def test_there_are_commands_on_many_pages():
    assert len(ALL_COMMANDS) > 30
    assert len({page for page, _ in ALL_COMMANDS}) > 5


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=[" ".join(words)[:60] for _, words in ALL_COMMANDS])
def test_every_command_and_option_exists(page, words, options):
    command, *others = words
    assert command in COMMANDS
    for word in others:
        option = word.partition("=")[0].removesuffix("+")
        if option.startswith("--"):
            # The parameters of a class are listed by the help of the class.
            known = options[command]
            assert option in known or any(option.startswith(f"{one}.") for one in known - {"--data", "--model"}), word


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page):
    # Pages below generated/ are made with the site, which refuses links to those that are not.
    for target in re.findall(r"\]\((?!https?://|generated/)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        assert (page.parent / path).exists(), target
        assert not heading or heading in anchors(page.parent / path if path else page), target


def anchors(page):
    """List how links name the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_are_ones_that_the_program_has(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "yaml"):
        Path("page.yaml").write_text(block)
        given = yaml.safe_load(block)
        with pytest.raises(SystemExit) as caught:
            training.run(["fit", "--config", "page.yaml", "--print_config"])
        assert caught.value.code in (0, None), given


# The code of python.md trains; tests/test_python.py runs it with fewer steps.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "python.md"])
def test_python_runs(page, calibrated_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(calibrated_checkpoint, "best.ckpt")
    Image.new("RGB", (64, 48)).save("image.jpg")
    for block in blocks(page, "python"):
        exec(compile(block.replace('["corner"]', '["spot"]'), str(page), "exec"), {})


def test_the_readme_is_a_page_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in readme] == []


# What a technical editor would strike, in any text that people read.
STRUCK = re.compile(
    r"in twice the time|images held out|flatters|take note of|that shall be|in vain\b|whoever runs|way out\b|"
    r"says how well|without a word|numbers in words|none of several|a training takes",
    re.IGNORECASE,
)


def test_no_text_has_a_phrase_that_an_editor_would_strike():
    paths = [path for kind in ("*.py", "*.yaml") for path in (ROOT / "keypoint_detection").rglob(kind)]
    paths += [*PAGES, *(ROOT / "configs").rglob("*.yaml"), *(ROOT / "notebooks").glob("*.py")]
    assert len(paths) > 200
    found = [(path.name, match[0]) for path in paths for match in STRUCK.finditer(path.read_text(encoding="utf-8"))]
    assert found == []
