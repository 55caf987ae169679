"""Keeps the links of docs/articles/ on the right lines of the scripts.

    python benchmarks/links.py [--check]

A link such as [`Agent.act`](../../dqn_cartpole.py#L131) leads to where that name is defined, or
else to the first line with that text. --check changes nothing and exits with 1 where a line moved.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[`([^`]+)`\]\(((?:\.\./)*)([\w/]+\.py)(?:#L\d+)?\)")


def definitions(text):
    """The line of every class, function, field and constant of a module: {qualified name: line}."""
    found, nodes = {}, [("", ast.parse(text))]
    for path, node in nodes:
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found[path + child.name] = child.lineno
                nodes.append((f"{path}{child.name}.", child))
            elif isinstance(child, ast.AnnAssign):
                found[path + child.target.id] = child.lineno
            elif isinstance(child, ast.Assign) and not path:
                for name in ast.walk(child.targets[0]):
                    if isinstance(name, ast.Name):
                        found[name.id] = child.lineno
    return found


def line(name, text):
    """The line of a script to which `name` leads; ValueError if there is none."""
    lines = text.splitlines()
    if name in (found := definitions(text)):
        return found[name]
    for number, content in enumerate(lines, 1):
        if name in content:
            return number
    raise ValueError(name)


def linked(page):
    """The page with all its links on the right lines, and the faults: names that are nowhere."""
    faults = []

    def replace(match):
        name, up, script = match.groups()
        try:
            return f"[`{name}`]({up}{script}#L{line(name, (ROOT / script).read_text())})"
        except (ValueError, OSError):
            faults.append(f"{page.name}: no `{name}` in {script}")
            return match[0]

    return LINK.sub(replace, page.read_text()), faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check, faults = parser.parse_args().check, []
    for page in sorted((ROOT / "docs" / "articles").glob("*.md")):
        text, missing = linked(page)
        faults += missing
        if check and text != page.read_text():
            faults.append(f"{page.name}: a line has moved")
        elif not check:
            page.write_text(text)
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
