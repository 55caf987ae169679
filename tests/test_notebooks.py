"""The notebooks in notebooks/ are the scripts, and were run."""

import sys

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
import make

MEND = "python notebooks/make.py mends it"


@pytest.fixture(params=make.NAMES)
def pair(request):
    """A notebook as it is made from its script, and as it is in the folder."""
    return make.notebook(request.param), nbformat.read(make.path_of(request.param), 4)


def test_a_notebook_says_what_its_script_says(pair):
    new, old = ([(cell.cell_type, cell.source) for cell in book.cells] for book in pair)
    assert new == old, MEND


@pytest.mark.parametrize("name", make.NAMES)
def test_all_code_of_a_script_is_in_its_notebook(name):
    script = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    book = make.notebook(name)
    title = book.cells[0].source
    assert title.startswith("# ") and ("$$" in title or name not in make.EQUATIONS)
    found = "\n".join(cell.source for cell in make.code(book)).splitlines()
    wanted = script.split("# %% Imports")[1].split("\nif __name__")[0].splitlines()
    wanted = [line for line in wanted if line and not line.startswith("# %%")]
    assert [line for line in wanted if line not in found] == []
    tagged = [cell.source for cell in book.cells if cell.metadata.get("tags") == ["parameters"]]
    assert tagged == ["seed = 0"]


def test_a_notebook_was_run(pair):
    _, book = pair
    cells = make.code(book)
    assert all(cell.execution_count for cell in cells), MEND
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error"]
    kinds = [kind for o in outputs if "data" in o for kind in o.data]
    assert {"text/html", "image/png"} & set(kinds)  # a curve, and an animation
    assert len(nbformat.writes(book)) < 1_000_000
