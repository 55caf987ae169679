"""README, results, scripts and style agree."""

import os
import re
import subprocess
import sys

import pytest
import tomllib
import torch
from conftest import ALL_NAMES, ROOT

import dqn_cartpole

README = (ROOT / "README.md").read_text(encoding="utf-8")
JAPANESE = (ROOT / "docs" / "README.ja.md").read_text(encoding="utf-8")
KOREAN = (ROOT / "docs" / "README.ko.md").read_text(encoding="utf-8")
DIFFERENCES = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")


def test_figures_are_those_of_the_results():
    command = [sys.executable, ROOT / "benchmarks" / "report.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "python benchmarks/report.py"


def test_ci_runs_the_readme_command():
    pattern = re.search(
        r"grep -x '(.*)' README.md", (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    )[1]
    commands = re.findall(f"^{pattern}$", README, re.M)
    assert commands == ["pip install -r tests/requirements.txt && python -m pytest"]


def test_names_in_the_readme_exist():
    text = "".join((ROOT / f"{name}.py").read_text(encoding="utf-8") for name in ALL_NAMES)
    names = re.findall(r"`([A-Z]\w+)(?:\.(\w+))?`", README + JAPANESE + KOREAN)
    names = [name for name in names if name[0] not in ("Box", "Discrete")]
    assert len(names) > 10
    for owner, method in names:
        assert re.search(rf"^(class |def |){owner}\b|import {owner}\b", text, re.M), owner
        assert not method or re.search(
            rf"^    (def )?{method}\b|^{owner} = .*\b{method}\b", text, re.M
        ), method


def test_flags_in_the_readme_exist():
    sources = [*(ROOT / f"{name}.py" for name in ALL_NAMES), *(ROOT / "benchmarks").glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", README)) - {
        "help",
        "nproc-per-node",
        "torch-backend",
    }
    assert flags >= {"seed", "alpha", "max-steps", "resume", "weights"}
    for flag in flags:
        name = flag.removeprefix("no-").replace("-", "_")
        assert f"\n    {name}: " in text or f'"--{flag}"' in text, flag


@pytest.mark.parametrize("translation", [JAPANESE, KOREAN], ids=["ja", "ko"])
def test_a_translated_readme_has_the_same_numbers(translation):
    small = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    words = {word: i for i, word in enumerate(small, 1)}

    def numbers(text):
        one = re.compile(rf"\b({'|'.join(words)})\b", re.I)
        text = one.sub(lambda word: str(words[word[0].lower()]), text)
        text = re.sub(r"(\d+)[万만]", lambda match: f"{int(match[1]) / 100:g}", text)  # million
        return re.findall(r"\d+(?:[.,]\d+)*", text.replace("1ライフ", ""))

    assert set(numbers(translation)) - set(numbers(README + DIFFERENCES)) == set()
    for block in ("seeds", "agent"):
        ours, theirs = (
            text.split(f"<!-- {block} -->")[1].split("<!-- end")[0]
            for text in (README, translation)
        )
        assert numbers(ours) == numbers(theirs) and len(numbers(ours)) > 5


@pytest.mark.parametrize("translation", [JAPANESE, KOREAN], ids=["ja", "ko"])
def test_a_translated_readme_has_the_same_commands(translation):
    def commands(text):
        lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
        return {line.split(" #")[0].strip() for line in lines}

    ours, theirs = commands(README), commands(translation)
    assert len(theirs) > 5 and theirs <= ours


def test_python_in_the_readme_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    dqn_cartpole.main(["--episodes", "1", "--no-media"])
    (load,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {}
    exec(load, names)
    assert type(names["network"]) is dqn_cartpole.QNetwork


@pytest.mark.slow
def test_prioritized_replay_with_a_dueling_network_in_one_line(tmp_path):
    (command,) = re.findall("^python -c .*", README, re.M)
    assert command in (ROOT / "docs" / "articles" / "korean_per.md").read_text(encoding="utf-8")
    command = command.replace("python", f'"{sys.executable}"', 1)
    command = command.replace("'runs/per_dueling'", "'runs/per_dueling', '--episodes', '20'")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    weights = torch.load(tmp_path / "runs" / "per_dueling" / "weights.pth")
    assert {"value.weight", "advantage.weight"} < set(weights)


OLDEST = {"gymnasium": "1.0", "numpy": "1.26", "torch": "2.4", "matplotlib": "3.8"}


@pytest.mark.parametrize("name", ALL_NAMES)
def test_inline_metadata_states_the_range(name):
    """As ranges that the README names, for packages of the tested set; and Python's."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    header = re.search(r"^# /// script\n((?:# .*\n)+)# ///\n", text, re.M)[1]
    metadata = tomllib.loads(re.sub(r"^# ", "", header, flags=re.M))
    assert metadata["requires-python"] == ">=3.10" and "Python 3.10 and newer" in README
    oldest = OLDEST | ({"gymnasium": "1.1", "ale-py": "0.11.2"} if name == "a2c_breakout" else {})
    found = {}
    for line in metadata["dependencies"]:
        package, _, version = line.partition(">=")
        found[package.split("[")[0]] = version
        assert f"\n{package.split('[')[0]}" in "\n" + (ROOT / "requirements.txt").read_text(
            encoding="utf-8"
        )
    assert found == oldest | {"pillow": ""} | ({"tqdm": ""} if name == "a2c_breakout" else {})
    for package, version in OLDEST.items():
        assert f"{package} {version}" in " ".join(README.split())


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_is_clean(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_lock_has_every_version_and_hashes():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(
        re.findall(r"^([\w-]+==[\w.]+)(?: ; .+?)? \\\n((?:    --hash=.+\n)+)", lock, re.M)
    )
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    wanted = re.findall(r"^([\w-]+)(?:\[.+?\])?(==[\w.]+)", text, re.M)
    assert len(wanted) == 10
    for name, version in wanted:
        assert "sha256" in locked[name + version], "make it anew: see its first lines"
