"""The scripts in a real Jupyter kernel: pasted into one cell, and cell by cell."""

import json

import jupytext
import nbclient
import nbformat
import pytest
from conftest import ALL_NAMES, CARTPOLE_NAMES, ROOT
from jupyter_client.manager import start_new_kernel

NAMES = CARTPOLE_NAMES


def execute(notebook, folder):
    """Runs a notebook; returns the text it printed and the types of what it showed."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    text = "".join(o.text for o in outputs if o.output_type == "stream")
    errors = [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert errors == []
    return text, {
        kind for o in outputs if "data" in o for kind in o.data if kind.startswith("image")
    }


@pytest.mark.parametrize("name", NAMES)
def test_pasted_into_one_cell(name, tmp_path):
    source = (ROOT / f"{name}.py").read_text()
    again = "agent = main(['--max-steps', '20', '--no-media'])\nassert len(repr(agent)) < 100"
    cells = ["__file__ = 'editors set this'", source, again]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    text, shown = execute(notebook, tmp_path)
    assert "Solved after" in text and shown == {"image/png", "image/gif"}
    assert (tmp_path / "runs" / name / "weights.pth").exists()


@pytest.mark.parametrize("name", NAMES)
def test_cell_by_cell(name, tmp_path):
    notebook = jupytext.read(ROOT / f"{name}.py")
    text, shown = execute(notebook, tmp_path)
    assert "Solved after" in text and shown == {"image/png", "image/gif"}


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_script_has_the_same_cells(name):
    kinds = [cell.cell_type for cell in jupytext.read(ROOT / f"{name}.py").cells]
    assert (
        kinds.count("markdown") == 1 and kinds.count("code") == 9
    )  # the metadata, and eight sections


@pytest.fixture
def kernel(tmp_path):
    """kernel(code, interrupt_at): runs a cell, interrupted once it has printed this; returns what it printed."""
    manager, client = start_new_kernel(cwd=str(tmp_path))

    def kernel(code, interrupt_at=None):
        text, sent = "", client.execute(code)
        while True:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != sent:
                continue
            assert message["msg_type"] != "error", message["content"]
            text += message["content"].get("text", "")
            if interrupt_at and interrupt_at in text:
                manager.interrupt_kernel()
                interrupt_at = None
            if message["content"].get("execution_state") == "idle":
                assert interrupt_at is None
                return text

    yield kernel
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_interrupting_the_kernel_keeps_what_was_learned(kernel, tmp_path):
    text = kernel((ROOT / "dqn_cartpole.py").read_text(), interrupt_at="episode  steps")
    assert "Solved" not in text and "Greedy, 100 new episodes" in text
    assert (tmp_path / "runs" / "dqn_cartpole" / "weights.pth").exists()
    assert "Solved after" in kernel("agent = main([])")


def test_run_obeys_its_arguments_and_a_cell_ignores_the_kernels(kernel, tmp_path):
    text = kernel(f"%run {ROOT / 'dqn_cartpole.py'} --seed 3 --episodes 2 --no-media")
    assert "Not solved after 2 episodes" in text
    summary = json.loads((tmp_path / "runs" / "dqn_cartpole" / "summary.json").read_text())
    assert summary["config"]["seed"] == 3
    text = kernel(f"%run {ROOT / 'a2c_breakout.py'} random --games 1 --no-media")
    assert "1 games: mean" in text


@pytest.mark.parametrize("cells", ["one", "all"])
def test_breakout_interrupted_and_gone_on_with(cells, kernel, tmp_path):
    """Its training takes hours: it is stopped after seconds, and resumed for a few steps."""
    if cells == "one":
        text = kernel((ROOT / "a2c_breakout.py").read_text(), interrupt_at="mean score")
    else:
        *sections, last = [
            c.source for c in jupytext.read(ROOT / "a2c_breakout.py").cells if c.cell_type == "code"
        ]
        assert "".join(map(kernel, sections)) == ""
        text = kernel(last, interrupt_at="mean score")
    assert "steps, " in text and "games: mean" not in text
    assert (tmp_path / "runs" / "a2c_breakout" / "weights.pth").exists()
    more = "main(['--resume', '--steps', str(agent.env_steps + 200), '--games', '1', '--no-media'])"
    code = f"before = agent.env_steps\nagent = {more}\nassert agent.env_steps >= before + 200"
    assert "1 games: mean" in kernel(code)
