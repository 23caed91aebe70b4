"""The notebook does what it says, and is what its readable source says."""

import os
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOK, SOURCE = FOLDER / "train_and_look.ipynb", FOLDER / "train_and_look.py"


def test_the_notebook_is_made_from_its_source_and_holds_no_outputs():
    cells, expected = (one.cells for one in (nbformat.read(NOTEBOOK, as_version=4), jupytext.read(SOURCE)))
    assert len(cells) > 10
    assert [(cell.cell_type, cell.source) for cell in cells] == [(cell.cell_type, cell.source) for cell in expected], (
        "run `jupytext --to ipynb notebooks/train_and_look.py`"
    )
    assert not any(cell.get("outputs") for cell in cells)


def test_the_notebook_runs(tmp_path, monkeypatch):
    for name, value in {"KPD_NOTEBOOK_STEPS": "2", "KPD_NOTEBOOK_IMAGES": "8", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    root = str(FOLDER.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    n_images = sum("image/png" in output.get("data", {}) for output in outputs)
    # Training images, two figures, the three worst, the drawn prediction, its heatmap.
    assert n_images == 8
    assert "Compared with PyTorch" in "".join(output.get("text", "") for output in outputs)
