"""The guides to the articles: their links lead to files, and their commands are understood."""

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_guide_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    links = [link for link in links if "://" not in link]
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert ".py#" not in page.read_text(encoding="utf-8")  # lines move, names stay


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


def test_the_examples_are_found():
    assert len(BLOCKS) >= 25
    assert not any("class SumTree:" in block.values[0] for block in BLOCKS)  # of the scripts
