"""The guides to the articles lead to the right lines, and their commands are understood."""

import importlib
import re
import shlex
import subprocess
import sys

import links
import pytest
from conftest import ROOT

PAGES = sorted((ROOT / "docs" / "articles").glob("*.md"))


def test_every_link_is_on_its_line():
    command = [sys.executable, ROOT / "benchmarks" / "links.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sum(len(links.LINK.findall(page.read_text())) for page in PAGES) > 100


def test_a_link_follows_its_name_and_one_to_nowhere_is_a_fault(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[`Agent.learn`](../../dqn_cartpole.py#L1), [`Brain`](../../dqn_cartpole.py)")
    text, faults = links.linked(page)
    number = int(re.search(r"#L(\d+)", text)[1])
    lines = (ROOT / "dqn_cartpole.py").read_text().splitlines()
    assert lines[number - 1] == "    def learn(self):" and number > 100
    assert faults == ["page.md: no `Brain` in dqn_cartpole.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_guide_are_understood(page, tmp_path):
    for name, flags in re.findall(r"^python (\w+)\.py(.*?)(?: *#.*)?$", page.read_text(), re.M):
        script = importlib.import_module(name)
        script.parse([*shlex.split(flags), "--output-dir", str(tmp_path)])
    for target in re.findall(r"\]\(([\w.-]+\.md)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_example_of_the_sum_tree_is_right(capsys):
    (code,) = re.findall(
        r"```python\n(.*?)```", (PAGES[0].parent / "sum_tree.md").read_text(), re.S
    )
    exec(code, {})
    assert capsys.readouterr().out == re.search(r"# (42.*)", code)[1] + "\n"
