"""The diff is the lesson: between two neighbours nothing differs but the new idea. And the form of all."""

import ast
import difflib
import io
import tokenize
from typing import NamedTuple

import pytest
from conftest import ALL_NAMES, CARTPOLE_NAMES, ROOT

TEXTS = {"NAME", "TITLE"}
MEMORY = {"Batch", "SumTree", "ReplayMemory"}
# from, to, lines added plus removed at most, where they may be
NEIGHBOURS = [
    ("dqn_cartpole", "ddqn_cartpole", 8, TEXTS | {"Agent.td_target"}),
    ("ddqn_cartpole", "dueling_cartpole", 20, TEXTS | {"QNetwork"}),
    ("ddqn_cartpole", "per_cartpole", 110, TEXTS | MEMORY | {"Config", "Agent.learn"}),
]


class Line(NamedTuple):
    number: int  # in the file, from 1
    text: str
    place: str  # the class or function it is in, or the name it sets, such as Agent.learn


def read(name):
    return (ROOT / f"{name}.py").read_text(encoding="utf-8")


def places(tree):
    """The place of each line, where it has one, and the lines of all docstrings."""
    place = {}
    docstrings = set()

    def visit(node, path):
        for child in node.body:
            inner = path
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                docstrings.update(range(child.lineno, child.end_lineno + 1))
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                inner = [*path, child.name]
            elif isinstance(child, ast.Assign) and not path:
                inner = [ast.unparse(child.targets[0])]
            decorators = getattr(child, "decorator_list", [])
            first = min([child.lineno, *(decorator.lineno for decorator in decorators)])
            place.update(dict.fromkeys(range(first, child.end_lineno + 1), ".".join(inner)))
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                visit(child, inner)

    visit(tree, [])
    return place, docstrings


def code(text, comments=False):
    """The lines of a script that are not blank, without docstrings and comments; or with them."""
    tree = ast.parse(text)
    lines = text.splitlines()
    place, left_out = places(tree)
    if comments:
        left_out = range(1, tree.body[0].end_lineno + 1)  # the chapter's own text
        for i in reversed(range(1, len(lines))):  # a comment belongs to the line below
            if lines[i - 1].startswith("#"):
                place[i] = place.get(i + 1, "")
    else:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column].rstrip()
    return [
        Line(number, line, place.get(number, ""))
        for number, line in enumerate(lines, 1)
        if number not in left_out and line.strip()
    ]


def difference(old, new):
    """The places of all lines that are only in `old` or only in `new`."""
    texts = ([line.text for line in side] for side in (old, new))
    matcher = difflib.SequenceMatcher(None, *texts, autojunk=False)
    changes = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    return [line.place for _, a, b, c, d in changes for line in old[a:b] + new[c:d]]


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("old, new, most, allowed", NEIGHBOURS)
def test_neighbours_differ_only_in_the_new_idea(old, new, most, allowed, comments):
    changed = difference(code(read(old), comments), code(read(new), comments))
    elsewhere = [p for p in changed if not any(p == a or p.startswith(a + ".") for a in allowed)]
    assert elsewhere == []
    assert comments or 0 < len(changed) <= most


def test_a_difference_elsewhere_is_found():
    old = code(read("dqn_cartpole"))
    new = code(read("ddqn_cartpole").replace("target.lerp_(new,", "target.lerp_(2 * new,"))
    assert "Agent.update_target" in difference(old, new)


@pytest.mark.parametrize("name", [new for _, new, *_ in NEIGHBOURS])
def test_headers_and_sections_are_the_same(name):
    def outline(name):
        lines = read(name).splitlines()
        return lines[: lines.index("# %% [markdown]")] + [x for x in lines if x.startswith("# %%")]

    assert outline(name) == outline("dqn_cartpole")


def is_compared(node):
    """Whether its code is compared: functions, and the tuple of a rollout."""
    return isinstance(node, ast.FunctionDef) or getattr(node, "name", None) == "Rollout"


def functions(name):
    """The code of every function and method of a script, and its Rollout, by its name."""
    tree = ast.parse(read(name))
    found = {}
    lines = code(read(name))
    nodes = [("", tree)]
    for path, node in nodes:
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                nodes.append((f"{child.name}.", child))
            if is_compared(child):
                inside = range(child.lineno, child.end_lineno + 1)
                found[path + child.name] = [line.text for line in lines if line.number in inside]
    return found


def test_a2c_and_dqn_differ_only_in_the_algorithm():
    """All else is the same to the letter: settings, evaluation, the command line."""
    old = functions("dqn_cartpole")
    new = functions("a2c_cartpole")
    common = old.keys() & new.keys()
    different = {"Agent.__init__", "Agent.greedy", "Agent.learn", "train", "print_row"}
    different |= {"film", "plot", "save_training", "main", "Config.__post_init__"}
    assert {name for name in common if old[name] != new[name]} == different
    assert len(common - different) >= 5


def test_breakout_is_learned_with_the_code_of_cartpole():
    """The same storage, returns and loss, to the letter."""
    old = functions("a2c_cartpole")
    new = functions("a2c_breakout")
    for name in ("Rollout", "RolloutStorage.__init__", "RolloutStorage.insert"):
        assert old[name] == new[name]
    for name in ("RolloutStorage.take", "Agent.sample", "Agent.returns", "Agent.learn"):
        assert old[name] == new[name]
    # What is more: clipped rewards
    more = difflib.ndiff(old["run_steps"], new["run_steps"])
    more = [line for line in more if line[0] in "+-"]
    assert all(line[0] == "+" for line in more) and len(more) == 2
    assert "clip_rewards" in more[0]


# The form


def nesting(node, depth=0):
    """How deep blocks are inside each other, at most; each function, class, loop or branch is one."""
    blocks = ast.For | ast.While | ast.If | ast.With | ast.Try | ast.FunctionDef | ast.ClassDef
    children = ast.iter_child_nodes(node)
    inner = [nesting(child, depth + isinstance(child, blocks)) for child in children]
    return max([depth, *inner])


def is_packed(node):
    """Whether a statement sets several names to several values, or to the same one."""
    if not isinstance(node, ast.Assign):
        return False
    both = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    return both or len(node.targets) > 1


def form(text):
    """Packed assignments, lines of the longest function, nesting, columns a line, lines of code."""
    tree = ast.parse(text)
    lines = code(text)
    read = text.splitlines()
    nodes = list(ast.walk(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    insides = [range(node.lineno, node.end_lineno + 1) for node in functions]
    return {
        "packed": sum(is_packed(node) for node in nodes),
        "longest": max(sum(line.number in inside for line in lines) for inside in insides),
        "nesting": nesting(tree),
        # As they are read, with the comments at their ends
        "columns": sum(len(read[line.number - 1].strip()) for line in lines) / len(lines),
        "lines": len(lines),
    }


LIMITS = {"packed": 3, "longest": 35, "nesting": 4, "columns": 41}


@pytest.mark.parametrize("name", ALL_NAMES)
def test_one_statement_a_line_and_short_functions(name):
    limits = LIMITS | {"lines": 355} if name in CARTPOLE_NAMES else LIMITS
    found = form(read(name))
    assert [what for what, limit in limits.items() if found[what] > limit] == [], found


def test_the_form_is_counted():
    text = '''
def f(x):
    """A docstring is no code."""
    a, b = 1, 2  # packed
    b, a = f(x)
    a = b = 3  # packed
    # a comment
    for x in range(3):
        if x:
            pass

    return a
'''
    columns = sum(map(len, ["def f(x):", "a, b = 1, 2  # packed", "b, a = f(x)"]))
    columns += len("a = b = 3  # packed")
    columns += sum(map(len, ["for x in range(3):", "if x:", "pass", "return a"]))
    expected = {"packed": 2, "longest": 8, "nesting": 3, "columns": columns / 8, "lines": 8}
    assert form(text) == expected
