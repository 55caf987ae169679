"""The page on other tasks: its lines fit the scripts, and what they make learns."""

import json
import subprocess
import sys

import own_task
import pytest
from conftest import ROOT

TASKS = own_task.tasks((ROOT / "docs" / "own_task.md").read_text(encoding="utf-8"))


def start(name, tmp_path, *arguments):
    script, pairs, flags = TASKS[name]
    (tmp_path / "my_task.py").write_text(own_task.changed(script, pairs))
    command = [sys.executable, "-W", "error", "my_task.py", *flags, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((tmp_path / "runs" / "my_task" / "summary.json").read_text(encoding="utf-8"))


def test_the_lines_fit_and_are_few():
    names = {"acrobot_dqn": "Acrobot-v1", "acrobot_a2c": "Acrobot-v1"}
    assert set(TASKS) == set(names)
    for name, (script, pairs, _) in TASKS.items():
        most = 19 if name.endswith("a2c") else 10
        assert sum(new.count("\n") for _, new in pairs) <= most
        assert own_task.changed(script, pairs).count(names[name]) == 3
    for script in ("ddqn", "dueling", "per"):
        own_task.changed(f"{script}_cartpole", TASKS["acrobot_dqn"][1])
    with pytest.raises(ValueError, match=r"not once in dqn_cartpole\.py: import"):
        own_task.changed("dqn_cartpole", [("import nothing\n", "")])


@pytest.mark.slow
def test_dqn_learns_acrobot(tmp_path):
    summary = start("acrobot_dqn", tmp_path, "--no-media")
    assert summary["solved"] and summary["greedy_mean"] >= -100


@pytest.mark.slow
def test_a2c_counts_returns_on_acrobot_and_draws(tmp_path):
    summary = start("acrobot_a2c", tmp_path, "--steps", 10_000)
    assert not summary["solved"] and -500 <= summary["greedy_min"] < -50  # none is so fast
    assert (tmp_path / "runs" / "my_task" / "play.gif").stat().st_size > 10_000
