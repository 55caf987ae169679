"""The page on other tasks: its lines fit the scripts, and what they make learns."""

import itertools
import json
import subprocess
import sys

import own_task
import pytest
from conftest import ROOT

TASKS = own_task.tasks((ROOT / "docs" / "own_task.md").read_text())


def start(name, tmp_path, *arguments):
    script, pairs, flags = TASKS[name]
    (tmp_path / "my_task.py").write_text(own_task.changed(script, pairs))
    command = [sys.executable, "-W", "error", "my_task.py", *flags, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((tmp_path / "runs" / "my_task" / "summary.json").read_text())


def test_the_lines_fit_and_are_few():
    names = {"acrobot_dqn": "Acrobot-v1", "acrobot_a2c": "Acrobot-v1"}
    names |= {"lander_dqn": "LunarLander-v3", "lander_a2c": "LunarLander-v3"}
    assert set(TASKS) == set(names)
    for name, (script, pairs, _) in TASKS.items():
        assert sum(new.count("\n") for _, new in pairs) <= 12
        assert own_task.changed(script, pairs).count(names[name]) == 2
    for script, name in itertools.product(("ddqn", "dueling", "per"), ("acrobot", "lander")):
        own_task.changed(f"{script}_cartpole", TASKS[f"{name}_dqn"][1])
    with pytest.raises(ValueError, match=r"not once in dqn_cartpole\.py: import"):
        own_task.changed("dqn_cartpole", [("import nothing\n", "")])


def test_dqn_learns_acrobot(tmp_path):
    summary = start("acrobot_dqn", tmp_path, "--no-media")
    assert summary["solved"] and summary["evaluation"]["mean"] >= -100


def test_a2c_counts_returns_on_acrobot_and_draws(tmp_path):
    summary = start("acrobot_a2c", tmp_path, "--steps", 10_000)
    assert not summary["solved"] and -500 <= summary["evaluation"]["min"] < -50  # none is so fast
    assert (tmp_path / "runs" / "my_task" / "play.gif").stat().st_size > 10_000
