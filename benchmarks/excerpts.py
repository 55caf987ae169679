"""Fills the code blocks of docs/articles/ from the scripts, as report.py does for all pages.

    python benchmarks/excerpts.py docs/articles/per.md

A block follows a comment that says what it shows:

    <!-- per_cartpole.py: ReplayMemory.push -->                       a function, class or setting
    <!-- per_cartpole.py: Config.alpha .. Config.beta_steps -->       from one to another
    <!-- per_cartpole.py: SumTree.total, SumTree.find -->             several
    <!-- dqn_cartpole.py: run_episode "env.step" .. "losses" -->      lines of it, by words in them
"""

import ast
import re
import sys
from pathlib import Path

from seeds import ROOT

BLOCK = re.compile(r"<!-- ([\w/]+\.py): (.+?) -->\n```python\n.*?```", re.S)


def name_of(node):
    """The name that a statement defines, or None."""
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", None)
    if isinstance(node, ast.Assign):
        return getattr(node.targets[0], "id", None)
    return getattr(node, "name", None)


def span(text, symbol):
    """The first and the last line, from 1, of a symbol such as Agent.learn."""
    node = ast.parse(text)
    for part in symbol.split("."):
        found = [child for child in node.body if name_of(child) == part]
        if not found:
            raise ValueError(f"there is no {symbol}")
        node = found[0]
    decorators = getattr(node, "decorator_list", [])
    return min(n.lineno for n in [node, *decorators]), node.end_lineno


def excerpt(text, wanted):
    """The lines of a script that a comment asks for, without what stands around it."""
    lines = text.splitlines()
    words = re.findall('"(.+?)"', wanted)
    if words:
        first, last = span(text, wanted.split()[0])
        hits = [i for i in range(first, last + 1) if words[0] in lines[i - 1]]
        ends = [i for i in range(hits[0], last + 1) if words[-1] in lines[i - 1]] if hits else []
        if not ends:
            raise ValueError(f"no line {words[0]!r} to {words[-1]!r} in {wanted.split()[0]}")
        return lines[hits[0] - 1 : ends[0]]
    first, last = (span(text, symbol.strip()) for symbol in (wanted.split("..") * 2)[:2])
    return lines[first[0] - 1 : last[1]]


def filled(content, page):
    """The content of a page with the code of today in its blocks."""

    def block(match):
        script, wanted = match.groups()
        text = (ROOT / script).read_text(encoding="utf-8")
        try:
            parts = ["\n".join(excerpt(text, part)) for part in wanted.split(",")]
        except ValueError as error:
            raise ValueError(f"{page}, {script}: {error}") from None
        code = "\n\n".join(parts)
        return f"<!-- {script}: {wanted} -->\n```python\n{code}\n```"

    return BLOCK.sub(block, content)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        content = Path(name).read_text(encoding="utf-8")
        Path(name).write_text(filled(content, name), encoding="utf-8")
