"""The words that `kpd` answers at once."""

import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from spot_detector import make_checkpoint

import keypoint_detection
from keypoint_detection.cli import COMMANDS, SYNONYMS, main, run
from keypoint_detection.models.backbones import Unet


def run_in_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_command(words, capsys):
    assert run(words) is None
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    run(["--version"])
    assert capsys.readouterr().out == f"kpd {keypoint_detection.__version__}\n"


def test_quick_answers_and_the_bare_import_load_nothing_heavy():
    code = (
        "import sys, keypoint_detection\n"
        "from keypoint_detection.cli import run\n"
        "run([]); run(['--help']); run(['--version'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'torch', 'lightning', 'jsonargparse', 'numpy', 'wandb', 'torchvision'}))"
    )
    assert run_in_new_process(code).endswith("[]\n")


def test_drawing_a_data_set_loads_no_lightning(tmp_path):
    words = ["synthesize", f"--folder={tmp_path}/boxes", "--n_train=1", "--n_val=0", "--height=64", "--width=64"]
    code = (
        "import sys\n"
        "from keypoint_detection.cli import run\n"
        f"run({words})\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'lightning', 'pytorch_lightning', 'wandb'}))"
    )
    assert run_in_new_process(code).endswith("[]\n")
    assert (tmp_path / "boxes" / "train.json").is_file()


def test_a_predictor_loads_neither_lightning_nor_torchvision(tmp_path):
    checkpoint = make_checkpoint(tmp_path, backbone=partial(Unet, n_channels=4))
    code = (
        "import sys\n"
        "from keypoint_detection import Predictor\n"
        "import numpy as np\n"
        f"Predictor.from_checkpoint({str(checkpoint)!r})(np.zeros((40, 50, 3), np.uint8))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'lightning', 'torchvision', 'torchmetrics', 'matplotlib', 'scipy', 'sympy', 'timm'}), "
        "'torch._dynamo' in sys.modules)"
    )
    assert run_in_new_process(code).endswith("[] False\n")


@pytest.mark.parametrize("words", [["fit", "--help"], ["test", "--help"]])
def test_help_loads_no_weights_and_biases(words):
    code = (
        "import sys\n"
        "from keypoint_detection.cli import run\n"
        "try:\n"
        f"    run({words})\n"
        "finally:\n"
        "    print(sorted({name.split('.')[0] for name in sys.modules} & {'wandb', 'timm', 'onnx', 'av'}))"
    )
    assert run_in_new_process(code).endswith("[]\n")


def test_the_overview_shows_the_help_of_the_table(capsys):
    run([])
    text = capsys.readouterr().out
    assert all(command.help in text for command in COMMANDS.values())


@pytest.fixture
def failing_command(monkeypatch):
    """`kpd check`, which raises what it is given."""
    monkeypatch.setattr(sys, "argv", ["kpd", "check", "train.json"])

    def fail_with(error):
        def fail(words):
            raise error

        monkeypatch.setattr("keypoint_detection.commands.check.run", fail)

    return fail_with


def test_an_unexpected_error_is_a_few_lines(failing_command, capsys):
    failing_command(RuntimeError("lost"))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("kpd check: RuntimeError: lost\n")
    assert "Traceback" not in error


def test_the_traceback_is_shown_on_request(failing_command, monkeypatch):
    monkeypatch.setenv("KPD_DEBUG", "1")
    failing_command(RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        main()


def test_ctrl_c_is_one_line(failing_command, capsys):
    failing_command(KeyboardInterrupt())
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err.strip() == "kpd: stopped by Ctrl-C."


def test_output_that_nobody_reads_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    script = Path(sys.executable).with_name("kpd")
    done = subprocess.run([script, "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def test_the_main_function_returns_nothing(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kpd", "--version"])
    assert main() is None


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["fitt"])
    assert caught.value.code == 2
    assert f"the commands are {', '.join(COMMANDS)}. Did you mean `kpd fit`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("train", "fit"),
        ("eval", "test"),
        ("infer", "predict"),
        ("Inference", "predict"),
        ("detect", "predict"),
        ("val", "validate"),
        ("fitt", "fit"),
    ],
)
def test_the_words_of_other_programs_are_answered_with_the_command(word, command, capsys):
    with pytest.raises(SystemExit) as caught:
        run([word])
    assert caught.value.code == 2
    assert f"Did you mean `kpd {command}`?" in capsys.readouterr().err


def test_every_synonym_names_a_command():
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert not set(SYNONYMS) & set(COMMANDS)


def test_the_module_runs_like_the_console_script():
    done = subprocess.run([sys.executable, "-m", "keypoint_detection", "--version"], capture_output=True, text=True)
    assert done.stdout == f"kpd {keypoint_detection.__version__}\n"
    assert done.returncode == 0


def test_the_console_script_is_installed():
    script = Path(sys.executable).with_name("kpd")
    assert script.is_file(), "install the package: pip install -e ."
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.stdout == f"kpd {keypoint_detection.__version__}\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_freed_memory_is_handed_out_again():
    code = (
        "import resource\n"
        "from keypoint_detection.cli import _keep_freed_memory\n"
        "_keep_freed_memory()\n"
        "def count_new_pages():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    block = b'x' * 2**27\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(count_new_pages(), count_new_pages())"
    )
    first, second = map(int, run_in_new_process(code).split())
    assert first > 1000
    assert second < 100
