"""The README and the pages of docs/: links lead somewhere, commands and settings exist, shell and Python blocks run.

The shell blocks of a page run in order in a folder of its own. Bash runs them, but `kpd` runs in this process, on a few
small images for a few steps; see `Terminal`. What cannot run here is only compared with the options of
the program.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import write_discs
from grouping_detector import make_grouping_checkpoint
from importlinter.api import read_configuration

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set
from keypoint_detection.cli import COMMANDS, run
from keypoint_detection.commands import training

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(one for one in DOCS.rglob("*.md") if "generated" not in one.parts)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)

# What is added to every command that has it, so that it takes a second.
ON_CPU = "--trainer.accelerator=cpu --data.num_workers=0"
ADDED = {
    "fit": ON_CPU,
    "validate": ON_CPU,
    "test": ON_CPU,
    "predict": f"{ON_CPU} --output.score_threshold=0",
    "synthesize": "--n_train=8 --n_test=2 --height=64 --width=80",
    "check": "--n_images=2",
    "summarize": "--n_resamples=10",
}
# What is added to a training too: to a new one, to a resumed one, and unless the command speaks of it already.
NEW, RESUMED = "--trainer.max_steps=2 --data.image_size='[32, 48]' --model.score_threshold=0", "--trainer.max_steps={}"
ADDED_UNLESS = {
    "logger": "--trainer.logger=false",
    "backbone": "--model.backbone=Unet --model.backbone.n_channels=4 --model.backbone.n_downsampling_layers=1",
}
# What is replaced in a command: fewer folds and seeds.
SHORTER = {"in 0 1 2 3 4;": "in 0 1;", "seed in 0 1;": "seed in 0;"}
ADDED_TO_QUICKSTART = "--data.synthetic.n_train=6 --data.synthetic.n_val=2"
# What needs an account, a cluster, several processes, a browser, a module that is not there or an interruption; and
# exports and trainings of large networks, which take long.
NOT_RUN = re.compile(
    r"wandb|ENTITY|trainer\.(devices|strategy)|^kpd (view|export)|my_module|TensorBoard|--resume|encoder="
)
# Programs that other tests run, or nobody: here they do nothing.
OTHERS = ("pip", "pytest", "ruff", "mypy", "sphinx-build", "wandb", "sbatch", "jupyter", "git")


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
    assert len(ALL_COMMANDS) > 80
    assert len({page for page, _ in ALL_COMMANDS}) > 20


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
    # Pages that are generated with the site are not there on GitHub.
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text(encoding="utf-8")):
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


class Terminal:
    """Run the blocks of a page as somebody does who copies them, one complete command after the other.

    Bash runs everything but `kpd`, whose words it only notes. They then run here, where the program is loaded already.
    """

    def __init__(self, folder):
        self.folder = folder
        self.n_run = 0

    def run(self, block):
        lines = []
        for line in block.splitlines():
            lines.append(line)
            text = "\n".join(lines)
            is_complete = not line.endswith("\\") and self._bash("-n", text).returncode == 0
            if is_complete:
                self._run_command(text)
                lines = []
        assert lines == [], block

    def _run_command(self, text):
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        others = " ".join(f"{name}() {{ :; }};" for name in OTHERS)
        noted = self.folder / "noted.txt"
        prelude = f'{others} python() {{ :; }}; kpd() {{ printf "%s\\n" "${{@@Q}}" | paste -sd " " >> noted.txt; }}\n'
        noted.write_text("")
        done = self._bash("-c", prelude + text)
        assert done.returncode == 0, (text, done.stderr)
        for line in noted.read_text().splitlines():
            if not NOT_RUN.search(f"kpd {line.replace(chr(39), '')}"):
                self._run_kpd(shlex.split(line))

    def _run_kpd(self, words):
        if any("runs/…" in word for word in words) and not list(Path("runs").glob("*-fit")):
            self._run_kpd(["fit", "--config=base.yaml"])
        newest = max(Path("runs").glob("*-fit*"), default=Path(), key=lambda run: run.stat().st_mtime)
        words = [word.replace("runs/…", str(newest)) for word in words]
        self.n_run += 1
        done = None
        try:
            run([*words, *self._add(words)])
        except SystemExit as end:
            done = end.code
        assert not done, words

    def _add(self, words):
        command, text = words[0], " ".join(words)
        if ".help" in text:
            return []
        added = [ADDED.get(command, "")]
        if command == "fit" and "--ckpt_path" in text:
            added += [RESUMED.format(2 + self.n_run)]
        elif command == "fit":
            added += [NEW, *(value for name, value in ADDED_UNLESS.items() if name not in text)]
        if "quickstart.yaml" in text:
            added += [ADDED_TO_QUICKSTART]
        return shlex.split(" ".join(added))

    def _bash(self, option, text):
        return subprocess.run(
            ["bash", option, text] if option == "-c" else ["bash", option],
            input=text,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def desk(calibrated_checkpoint, tmp_path, monkeypatch):
    """A folder with what the pages take for granted: a clone's configs, a detector, images with and without labels."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    labels = json.loads(write_discs(folder / "data", 24).read_text())
    # The detector knows what is red.
    labels["categories"][0] |= {"name": "mouse", "keypoints": ["spot", "left_ear", "right_ear"]}
    for number, image in enumerate(labels["images"]):
        name = image["file_name"]
        image["file_name"] = f"images/mouse{number % 4}/{Path(name).name}"
        Path(f"data/images/mouse{number % 4}").mkdir(exist_ok=True)
        Path("data", name).rename(Path("data", image["file_name"]))
    for name in ("train", "val", "test"):
        Path(f"data/{name}.json").write_text(json.dumps(labels))
    write_discs(tmp_path / "others", 4, seed=1)
    shutil.copytree(tmp_path / "others" / "images", "frames")
    shutil.copytree("data", "my-project", ignore=shutil.ignore_patterns("val.json", "test.json", "discs-0.json"))
    Path("data/discs-0.json").unlink()
    shutil.copytree(ROOT / "configs", "configs")
    for name in ("best.ckpt", "a.ckpt", "b.ckpt"):
        shutil.copy(calibrated_checkpoint, name)
    shutil.copy("frames/1-0.png", "image.jpg")
    Path("base.yaml").write_text("data: {train: data/train.json, val: data/val.json, image_size: [48, 64]}\n")
    return folder


def makes(page, name):
    """Whether a command of a page writes a file or folder that others take for granted."""
    text = "\n".join(blocks(page, "sh"))
    return re.search(rf"(--output=|--folder=){name}( |/|$)", text, re.M) or ("kpd init" in text and name == "base.yaml")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_run(page, desk):
    for name in ("data", "my-project", "base.yaml"):
        if makes(page, name):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    terminal = Terminal(desk)
    for block in blocks(page, "sh"):
        terminal.run(block)


# The code of python.md trains; tests/test_python.py runs it with fewer steps.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "python.md"], ids=lambda page: page.name)
def test_python_runs(page, desk):
    shutil.copy(ROOT / "tests/assets/golden/detector.onnx", desk)
    if page.name in ("animals.md", "objects.md", "pose.md"):
        make_grouping_checkpoint(desk).replace("best.ckpt")
    if page.name == "pose.md":
        draw_data_set(SyntheticBoxes("boxes", n_train=1, n_val=0, n_test=2))
    namespace = {}
    for block in blocks(page, "python"):
        if page.name != "pose.md":
            block = block.replace('["corner"]', '["spot"]')
        exec(compile(block, str(page), "exec"), namespace)


def test_the_readme_is_a_page_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_page_is_in_the_menu_of_the_site():
    menu = re.findall(r"<([\w/-]+)>$", (DOCS / "index.md").read_text(encoding="utf-8"), re.M)
    assert sorted(f"docs/{name}.md" for name in [*menu, "index"]) == sorted(set(NAMES) - {"README.md"})


def test_the_drawing_of_the_layers_is_that_of_the_contracts():
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = re.findall(r'class="name">(\w+)<', (DOCS / "layers.svg").read_text(encoding="utf-8"))
    assert drawn == [name.strip() for layer in layers for name in layer.split("|")], "building the site draws it"


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
