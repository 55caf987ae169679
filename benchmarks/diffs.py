"""Makes docs/diffs.md: what changes from script to script; `python benchmarks/report.py` writes it."""

import difflib
import re

from seeds import ROOT

NEIGHBOURS = (  # which sections to compare (none: all), and what to say
    ("dqn", "ddqn", "", "Two networks share the target: one picks the next action, one values it."),
    ("ddqn", "dueling", "", "One output layer becomes two: Q = V + A - mean A (equation 9)."),
    ("ddqn", "per", "", "The memory draws by priority and returns importance weights."),
    ("a2c", "breakout", "Memory Network Agent", "A convolutional network reads pictures; the policy "
     "is sharpened in play."),
)  # fmt: skip


def sections(name, titles):
    """The lines of a script's sections; without titles, of all but the introduction."""
    script = "a2c_breakout" if name == "breakout" else f"{name}_cartpole"
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8").split("# %% Imports\n")[1]
    parts = re.split("(?m)^(?=# %% )", text)
    chosen = [part for part in parts if not titles or part[5:].split("\n")[0] in titles.split()]
    return "".join(chosen).splitlines(), f"{script}.py"


def page():
    """What changes from each script to its neighbour, without the introductions at their tops."""
    lines = ["# The diffs", "", "Without the introductions. Made by `python benchmarks/report.py`."]
    for old, new, titles, words in NEIGHBOURS:
        (a, first), (b, second) = sections(old, titles), sections(new, titles)
        lines += ["", f"## {first} to {second}", "", words, "", "```diff"]
        diff = difflib.unified_diff(a, b, first, second, n=2, lineterm="")
        lines += ["@@" if line.startswith("@@") else line for line in diff] + ["```"]
    return "\n".join(lines) + "\n"
