"""The scripts in a real Jupyter kernel: pasted into one cell, interrupted, and with %run."""

import json
import re

import jupytext
import nbclient
import nbformat
import pytest
from conftest import A2C_NAMES, ALL_NAMES, ROOT
from jupyter_client.manager import start_new_kernel


def execute(notebook, folder):
    """Runs a notebook; returns the text it printed and the types of the pictures it showed."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    printed = [output for output in outputs if output.output_type == "stream"]
    assert [output for output in printed if output.name == "stderr"] == []
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    pictures = re.findall(r'<img src="data:(image/\w+);base64,(\w\w\w\w)', html)
    return "".join(output.text for output in printed), pictures


# A picture's type, and how its content begins
PICTURES = [("image/png", "iVBO"), ("image/gif", "R0lG")]


@pytest.mark.slow
def test_pasted_into_one_cell(tmp_path):
    source = (ROOT / "a2c_cartpole.py").read_text(encoding="utf-8")
    again = "agent = main(['--max-steps', '20', '--no-media'])\nassert len(repr(agent)) < 100"
    cells = ["__file__ = 'editors set this'", source, again]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    text, pictures = execute(notebook, tmp_path)
    assert text.count("Solved after") == 2 and pictures == PICTURES
    assert (tmp_path / "runs" / "a2c_cartpole" / "weights.pth").exists()


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_script_has_the_same_cells(name):
    """The metadata, the lesson, and eight sections; the environments of A2C are a ninth."""
    kinds = [cell.cell_type for cell in jupytext.read(ROOT / f"{name}.py").cells]
    sections = 9 if name in A2C_NAMES else 8
    assert kinds == ["code", "markdown"] + ["code"] * sections


@pytest.fixture
def kernel(tmp_path):
    """kernel(code, interrupt_at): runs a cell, interrupted once it has printed this; returns what it printed."""
    manager, client = start_new_kernel(cwd=str(tmp_path))

    def kernel(code, interrupt_at=None):
        text, sent = "", client.execute(code)
        while True:
            message = client.get_iopub_msg(timeout=600)
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


@pytest.mark.slow
def test_interrupting_the_kernel_keeps_what_was_learned(kernel, tmp_path):
    kernel(f"%cd -q {ROOT}\nfrom dqn_cartpole import main\n%cd -q {tmp_path}")
    endless = "main(['--episodes', '100000', '--learning-rate', '0'])"
    text = kernel(endless, interrupt_at="episode  steps")
    assert "Interrupted: what was learned is kept." in text
    assert "Not solved after" in text and "Greedy, 100 new episodes" in text
    assert (tmp_path / "runs" / "dqn_cartpole" / "weights.pth").exists()
    assert "Not solved after 2 episodes" in kernel("agent = main(['--episodes', '2'])")


@pytest.mark.slow
def test_run_obeys_its_flags_however_it_names_the_script(kernel, tmp_path):
    kernel(f"%cd -q {ROOT}")
    paths = ["dqn_cartpole.py", "./dqn_cartpole.py", "dqn_cartpole", ROOT / "dqn_cartpole.py"]
    for i, path in enumerate(paths):
        folder = tmp_path / str(i)
        flags = f"--seed 3 --episodes 2 --no-media --output-dir {folder}"
        assert "Not solved after 2 episodes" in kernel(f"%run {path} {flags}")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["config"]["seed"] == 3
    text = kernel(f"%run a2c_breakout.py random --games 1 --no-media --output-dir {tmp_path}")
    assert "1 games: mean" in text


@pytest.mark.slow
def test_breakout_interrupted_and_gone_on_with(kernel, tmp_path):
    """Its training takes hours: it is stopped after seconds, and can be resumed."""
    folder = tmp_path / "runs" / "a2c_breakout"
    text = kernel((ROOT / "a2c_breakout.py").read_text(encoding="utf-8"), interrupt_at="mean score")
    assert "steps, " in text and "games: mean" not in text
    assert (folder / "weights.pth").exists()
    before = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["env_steps"]
    flags = ["--resume", "--steps", str(before + 160), "--no-media"]
    text = kernel(f"play = lambda *_: ({{}}, [])\nagent = main({flags})")
    assert f"{before + 160:,} steps" in text
