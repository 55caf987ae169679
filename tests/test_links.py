"""Pages: links lead to files and headings; commands are understood; code runs and prints what it says."""

import importlib
import itertools
import re
import shlex
import sys

import pytest
from conftest import ROOT

import a2c_breakout

PAGES = sorted((ROOT / "docs" / "articles").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_guide_are_understood(page, tmp_path):
    for name, flags in re.findall(
        r"^python (\w+)\.py(.*?)(?: *#.*)?$", page.read_text(encoding="utf-8"), re.M
    ):
        script = importlib.import_module(name)
        arguments = shlex.split(flags)
        config, options = script.parse([*arguments, "--output-dir", str(tmp_path)])
        assert options.output_dir == tmp_path
        settings = config if isinstance(config, dict) else vars(config)  # Breakout: what was given
        for flag, value in itertools.pairwise(arguments):
            if flag.startswith("--") and not value.startswith("--") and flag != "--output-dir":
                assert settings[flag[2:].replace("-", "_")] == float(value)


ALL_PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
]


def anchors(page):
    """The names of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    headings = [re.sub(r"\]\(.*?\)", "", line) for line in re.findall(r"^#+ (.+)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    assert ".py#" not in text  # lines move, names stay
    for link, _, heading in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", text):
        if "://" not in link:
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not heading or heading in anchors(target), heading


def test_a_heading_is_named_as_on_github():
    assert {"beside-published-results", "surer-in-play"} < anchors(
        ROOT / "docs/results_breakout.md"
    )


BLOCKS = [  # of Python in the guides and exercises, but those that excerpts.py fills
    pytest.param(code, id=f"{page.stem}-{i}", marks=[pytest.mark.slow] * ("one_life(" in code))
    for page in [*PAGES, ROOT / "docs" / "exercises.md"]
    for i, (filled, code) in enumerate(
        re.findall(
            r"(<!-- [\w/]+\.py: [^\n]+ -->\n)?```python\n(.*?)```",
            page.read_text(encoding="utf-8"),
            re.S,
        )
    )
    if not filled
]


NUMBER = r"-?\d+(?:\.\d+)?"


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_in_a_guide_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "extras")
    monkeypatch.setattr(sys, "argv", ["example.py", "--episodes", "12", "--no-media"])
    for script in set(re.findall(r"runs/(\w+_cartpole)/", code)):  # it reads what a run wrote
        importlib.import_module(script).main(["--episodes", "12", "--no-media"])
    if "runs/a2c_breakout/checkpoint.pth" in code:
        path = tmp_path / "runs" / "a2c_breakout" / "checkpoint.pth"
        path.parent.mkdir(parents=True)
        progress = a2c_breakout.Progress(scores=list(range(250)))
        a2c_breakout.save_checkpoint(path, a2c_breakout.Agent(a2c_breakout.Config()), progress)
    exec(code, {"__name__": "__main__"})
    printed = list(map(float, re.findall(NUMBER, capsys.readouterr().out)))
    for comment in re.findall(r"print\(.*\)  # (.+)", code):
        for number in re.findall(NUMBER, comment):
            if "." not in number and re.search("[^][\\d., -]", comment):
                continue  # a number in words
            decimals = len(number.partition(".")[2])
            near = 10**-decimals if decimals else 0  # a comment may round
            assert any(abs(float(number) - value) <= near for value in printed), comment


def test_the_examples_are_found():
    assert len(BLOCKS) >= 25
    assert not any("class SumTree:" in block.values[0] for block in BLOCKS)  # of the scripts
