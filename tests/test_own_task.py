"""The page on other tasks: its lines fit the scripts, and what they make learns."""

import json
import re
import subprocess
import sys

import numpy as np
import own_task
import pytest
from conftest import ROOT

TASKS = own_task.tasks((ROOT / "docs" / "own_task.md").read_text(encoding="utf-8"))


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
@pytest.mark.parametrize("name, limit", [("acrobot_dqn", "--episodes"), ("acrobot_a2c", "--steps")])
def test_acrobot_counts_returns_and_draws(name, limit, tmp_path):
    """That it is learned stands in results/own_task.csv."""
    script, pairs, flags = TASKS[name]
    (tmp_path / "my_task.py").write_text(own_task.changed(script, pairs))
    short = [limit, "2", "--max-steps", "100"]
    command = [sys.executable, "-W", "error", "my_task.py", *flags, *short]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "runs" / "my_task"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert not summary["solved"] and -100 <= summary["greedy_min"] < -50  # none is so fast
    assert (folder / "play.gif").stat().st_size > 10_000
    if name == "acrobot_dqn":
        _, first, *_ = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
        assert -100 <= float(first.split(",")[1]) < -50  # what it calls steps


PAGE = (ROOT / "docs" / "exercises.md").read_text(encoding="utf-8")
EXERCISES = own_task.tasks(PAGE)


CHANGES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "keras_article"))
    for name, (_, pairs, _) in EXERCISES.items()
    if pairs
]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_exercises_fits_and_runs(name, tmp_path, capsys):
    script, pairs, _ = EXERCISES[name]
    names = {"__name__": "my_task"}
    exec(compile(own_task.changed(script, pairs), "my_task.py", "exec"), names)
    arguments = ["--episodes", "16", "--no-media", "--output-dir", str(tmp_path)]
    agent = names["main"](arguments)
    assert agent.memory.pushed >= 130 and "Results are in" in capsys.readouterr().out


def test_three_step_returns_are_those_of_the_rewards():
    """The exercise's answer: R = r + gamma r' + gamma^2 r'', and after a fall the shorter ones."""
    script, pairs, _ = EXERCISES["n_step"]
    names = {"__name__": "my_task"}
    exec(compile(own_task.changed(script, pairs), "my_task.py", "exec"), names)

    class Env:
        t = 0

        def reset(self):
            return np.zeros(4, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.full(4, self.t, np.float32), float(self.t), self.t == 5, False, {}

    agent = names["Agent"](names["Config"](gamma=0.5), 4, 2)
    names["run_episode"](agent, Env(), learning=False)
    memory = agent.memory
    assert memory.reward[:5].tolist() == [1 + 1 + 0.75, 2 + 1.5 + 1, 3 + 2 + 1.25, 4 + 2.5, 5]
    assert memory.state[:5, 0].tolist() == [0, 1, 2, 3, 4]
    assert memory.next_state[:5, 0].tolist() == [3, 4, 5, 5, 5]
    assert memory.terminated[:5].tolist() == [0, 0, 1, 1, 1] and memory.pushed == 5


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_translated_exercises_have_the_same_blocks(language):
    page = (ROOT / "docs" / f"exercises.{language}.md").read_text(encoding="utf-8")
    ours, theirs = (re.findall(r"```\w+\n.*?```", text, re.S) for text in (PAGE, page))
    assert ours == theirs and len(ours) > 25
