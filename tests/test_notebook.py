"""The scripts in a real Jupyter kernel: pasted into one cell, and cell by cell."""

import jupytext
import nbclient
import nbformat
import pytest
from conftest import CARTPOLE_NAMES, ROOT

NAMES = CARTPOLE_NAMES


def execute(notebook, folder):
    """Runs a notebook; returns the text it printed and the types of what it showed."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(o.text for o in outputs if o.output_type == "stream")
    errors = [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert errors == []
    return text, {kind for o in outputs if "data" in o for kind in o.data if kind.startswith("image")}


@pytest.mark.parametrize("name", NAMES)
def test_pasted_into_one_cell(name, tmp_path):
    source = (ROOT / f"{name}.py").read_text()
    again = (
        "assert history[-1].solved\nagent, history = main(['--episodes', '2', '--no-media'])\nassert len(history) == 2"
    )
    cells = ["__file__ = 'editors set this'", source, again]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    text, shown = execute(notebook, tmp_path)
    assert "Solved after" in text and shown == {"image/png", "image/gif"}
    assert (tmp_path / "runs" / name / "weights.pth").exists()


@pytest.mark.parametrize("name", NAMES)
def test_cell_by_cell(name, tmp_path):
    notebook = jupytext.read(ROOT / f"{name}.py")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") == 1 and kinds.count("code") == 9  # the metadata, and eight sections
    text, shown = execute(notebook, tmp_path)
    assert "Solved after" in text and shown == {"image/png", "image/gif"}
