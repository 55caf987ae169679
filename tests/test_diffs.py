"""The diff is the lesson: between two neighbours nothing differs but the new idea."""

import ast
import difflib
import io
import tokenize

import pytest
from conftest import ROOT

NAME, MEMORY = "SCRIPT, NOTEBOOK", ("Batch", "SumTree", "ReplayMemory")
# from, to, lines added plus removed at most, where they may be
NEIGHBOURS = [
    ("dqn_cartpole", "ddqn_cartpole", 6, {NAME, "Agent.td_target"}),
    ("ddqn_cartpole", "dueling_cartpole", 16, {NAME, "QNetwork"}),
    ("ddqn_cartpole", "per_cartpole", 90, {NAME, "Config", *MEMORY, "Agent.learn"}),
]


def code(name, comments=False):
    """The lines of a script without docstrings and comments, or with: [(line, where it is)]."""
    text = (ROOT / f"{name}.py").read_text()
    lines, place, docstrings = text.splitlines(), {}, set()

    def visit(node, path):
        for child in node.body:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                docstrings.update(range(child.lineno, child.end_lineno + 1))
            named = isinstance(child, ast.ClassDef | ast.FunctionDef)
            name = child.name if named else None
            if isinstance(child, ast.Assign) and not path:
                name = ast.unparse(child.targets[0]).strip("()")
            inner = [*path, name] if name else path
            first = min([child.lineno, *(d.lineno for d in getattr(child, "decorator_list", []))])
            place.update(dict.fromkeys(range(first, child.end_lineno + 1), ".".join(inner)))
            if named:
                visit(child, inner)

    tree = ast.parse(text)
    visit(tree, [])
    if comments:
        docstrings = set(range(1, tree.body[0].end_lineno + 1))  # the chapter's own text
        for i in reversed(range(1, len(lines))):  # a comment belongs to the line below
            if lines[i - 1].startswith("#"):
                place[i] = place.get(i + 1, "")
    else:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column].rstrip()
    return [
        (line, place.get(i, ""))
        for i, line in enumerate(lines, 1)
        if i not in docstrings and line.strip()
    ]


def difference(old, new):
    """The places of all lines that are only in `old` or only in `new`."""
    lines = ([line for line, _ in side] for side in (old, new))
    matcher = difflib.SequenceMatcher(None, *lines, autojunk=False)
    changes = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    return [p for _, a, b, c, d in changes for _, p in old[a:b] + new[c:d]]


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("old, new, most, allowed", NEIGHBOURS)
def test_neighbours_differ_only_in_the_new_idea(old, new, most, allowed, comments):
    places = difference(code(old, comments), code(new, comments))
    elsewhere = [p for p in places if not any(p == a or p.startswith(a + ".") for a in allowed)]
    assert elsewhere == []
    assert comments or 0 < len(places) <= most


def test_a_difference_elsewhere_is_found():
    old, new = code("dqn_cartpole"), code("ddqn_cartpole")
    i = next(i for i, (line, _) in enumerate(new) if "lerp_" in line)
    new[i] = (new[i][0] + " ", new[i][1])
    assert "Agent.update_target" in difference(old, new)


@pytest.mark.parametrize("name", [new for _, new, *_ in NEIGHBOURS])
def test_headers_and_sections_are_the_same(name):
    def outline(name):
        lines = (ROOT / f"{name}.py").read_text().splitlines()
        return lines[:5] + [line for line in lines if line.startswith("# %%")]

    assert outline(name) == outline("dqn_cartpole")


# from, to, the functions of both that differ
SHARED = [
    (
        "dqn_cartpole",
        "a2c_cartpole",
        {"Agent.__init__", "Agent.act", "Agent.learn", "train", "pictures", "main"},
    ),
    (
        "a2c_cartpole",
        "a2c_breakout",
        {"ActorCritic.__init__", "ActorCritic.forward", "Agent.__init__", "Agent.act"}
        | {"Agent.sample", "Agent.learn", "train", "parse", "main"},
    ),
]


def functions(name):
    """The text of every function and method of a script, by its name."""
    text = (ROOT / f"{name}.py").read_text()
    found, nodes = {}, [("", ast.parse(text))]
    for path, node in nodes:
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                nodes.append((f"{child.name}.", child))
            elif isinstance(child, ast.FunctionDef):
                found[path + child.name] = ast.get_source_segment(text, child)
    return found


@pytest.mark.parametrize("old, new, different", SHARED)
def test_what_two_scripts_share_is_the_same_to_the_letter(old, new, different):
    old, new = functions(old), functions(new)
    common = old.keys() & new.keys()
    assert {name for name in common if old[name] != new[name]} == different
    assert len(common - different) >= 6
