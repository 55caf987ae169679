"""Makes the notebooks from the scripts with jupytext, and runs them: code, output, pictures.

    python notebooks/make.py [dqn_cartpole ...] [--run]

A notebook whose code is that of the script is not run again: only its text is brought up to date.

The code cells are the script's own; only the call of main() is put in another way, after a cell
tagged "parameters", so that `papermill -p seed 3` works. Needs tests/requirements.txt.
"""

import argparse
import re
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell

ROOT = Path(__file__).resolve().parent.parent
PICTURE = 'from IPython.display import Image\n\nImage("runs/{}")'
INSTALL = "# In a hosted notebook first: %pip install {}"
A2C = r"""R_t = r_t + \gamma r_{t+1} + \dots + \gamma^k V(s_{t+k})

A_t = R_t - V(s_t), \quad \bar A_t: \text{the same number, without gradient}

L = -\log \pi(a_t \mid s_t)\, \bar A_t + c_v A_t^2 - c_e H(\pi(\cdot \mid s_t))"""
EQUATIONS = {  # in place of the block of plain formulas in the introduction
    "dqn_cartpole": r"""y = r + \gamma\, \text{clip}(\max_{a'} Q_{target}(s', a'))

y = r \text{ at a fall}

L = \mathrm{Huber}\big(Q(s, a) - y\big)""",
    "ddqn_cartpole": r"y = r + \gamma\, \text{clip}(Q_{target}(s', \arg\max_{a'} Q(s', a')))",
    "dueling_cartpole": r"Q(s, a) = V(s) + A(s, a) - \frac{1}{|\mathcal{A}|} \sum_{a'} A(s, a')",
    "per_cartpole": r"""y = r + \gamma\, \text{clip}(Q_{target}(s', \arg\max_{a'} Q(s', a')))

p_i = |\delta_i| + \epsilon, \quad P(i) = p_i^\alpha / \sum_k p_k^\alpha

w_i = \frac{(N P(i))^{-\beta}}{\max_j (N P(j))^{-\beta}}

L = \frac{1}{B} \sum_i w_i \, \mathrm{Huber}(\delta_i)""",
    "a2c_cartpole": A2C,
    "a2c_breakout": A2C,
}
CALLS = {  # what the last cells do, where it is not main(["--seed", "0"])
    "a2c_breakout": (
        'agent = main(["random", "--games", "2", "--max-frames", "1200"])',
        'look = Path("runs", "first_look")\n'
        '(look / "checkpoint.pth").unlink(missing_ok=True)  # so that this cell can run again\n'
        'flags = ["--steps", "8000", "--max-frames", "600", "--output-dir", str(look)]\n'
        'agent = main(["--seed", str(seed), *flags])',
        'weights = "../weights/a2c_breakout.pth"  # in a hosted notebook upload this file first\n'
        'agent = main(["play", "--weights", weights, "--games", "4", "--max-frames", "1600"])',
    ),
    "extras/gradients": ('main(["--seed", str(seed)])', PICTURE.format("gradients/gradients.png")),
    "extras/gridworld": ('main(["--seed", str(seed)])', PICTURE.format("gridworld/gridworld.png")),
    "extras/mnist": ('main(["--seed", str(seed)])', PICTURE.format("mnist/mnist.png")),
}
NAMES = (
    "dqn_cartpole",
    "ddqn_cartpole",
    "dueling_cartpole",
    "per_cartpole",
    "a2c_cartpole",
    "a2c_breakout",
    "extras/gradients",
    "extras/gridworld",
    "extras/mnist",
)


def introduction(text, name):
    """The script's lesson as Markdown: the formulas as LaTeX."""
    if name in EQUATIONS:
        formulas = "\n\n".join(f"$${line}$$" for line in EQUATIONS[name].split("\n\n"))
        text = re.sub(r"(?:^    .*\n)+", lambda match: formulas + "\n", text, count=1, flags=re.M)
    return text


def notebook(name):
    """The script as a notebook, not yet run."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    head, body = text.split("# %% [markdown]\n", 1)
    packages = " ".join(re.findall(r'"([\w\[\]-]+)[^"]*"', head.split("dependencies")[-1]))
    book = jupytext.reads("# %% [markdown]\n" + body, fmt="py:percent")
    first, *others = book.cells
    cells = [new_markdown_cell(introduction(first.source.strip('"\n'), name))]
    cells.append(new_code_cell(INSTALL.format(packages)))
    for cell in others:
        title = cell.metadata.pop("title", "")
        source = re.split(r"(?m)^if __name__ ==", cell.source)[0].strip()
        cells += [new_markdown_cell(f"## {title}"), new_code_cell(source)]
    cells.append(new_markdown_cell("## Run"))
    calls = CALLS.get(name, ('agent = main(["--seed", str(seed)])',))
    cells.append(new_code_cell("seed = 0", metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(call) for call in calls]
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # the same at each run, so that diffs stay small
    book.cells = cells
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return book


def code(book):
    """The code cells of a notebook."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def path_of(name):
    """Where the notebook of a script is."""
    return ROOT / "notebooks" / f"{Path(name).name}.ipynb"


def take_outputs(book, old):
    """Give the notebook the outputs of an older one; return whether that had the same code."""
    if [cell.source for cell in code(book)] != [cell.source for cell in code(old)]:
        return False
    for cell, before in zip(code(book), code(old), strict=True):
        cell.outputs = before.outputs
        cell.execution_count = before.execution_count
    return True


def tidy(outputs):
    """Join what was printed piece by piece; of a progress bar, keep the last state."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = re.sub(r"(?m)^.*\r", "", output.text)
    return joined


def run(book):
    """Run a notebook in an empty folder, beside which the weights are."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights").symlink_to(ROOT / "weights")
        here = Path(folder) / "notebooks"
        here.mkdir()
        NotebookClient(book, resources={"metadata": {"path": str(here)}}, timeout=3600).execute()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="scripts (default: all)")
    parser.add_argument("--run", action="store_true", help="run also what has not changed")
    options = parser.parse_args()
    for name in options.names:
        book = notebook(name)
        path = path_of(name)
        if options.run or not path.exists() or not take_outputs(book, jupytext.read(path)):
            run(book)
        for cell in code(book):
            cell.metadata.pop("execution", None)  # times of this run
            cell.outputs = tidy(cell.outputs)
        jupytext.write(book, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
