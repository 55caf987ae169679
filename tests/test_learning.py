"""Learning itself: every script solves its task on every seed tried, and its policy holds."""

import pytest
from conftest import CARTPOLE_NAMES, scripts

import ddqn_cartpole as ddqn
import dqn_cartpole as dqn
import dueling_cartpole as dueling
import per_cartpole as per


def solved(history, config):
    """Whether the last line of a history says so."""
    last = history[-1]
    return last.passed if hasattr(last, "passed") else last.full_tests == config.solved_after


@pytest.mark.slow
@scripts(*CARTPOLE_NAMES)
def test_every_script_solves_cartpole(script):
    """185: the lowest of 4,591 evaluations in benchmarks/results/ is 185.5."""
    config = script.Config()
    agent, history = script.train(config)
    assert solved(history, config)
    assert script.evaluate(agent, config, seed=2**32).mean() >= 185


DROP_IN = [(ddqn, "QNetwork", dueling), (dueling, "QNetwork", dqn), (per, "QNetwork", dqn)]
DROP_IN += [(ddqn, "ReplayMemory", per), (dueling, "ReplayMemory", dqn)]


@pytest.mark.parametrize("script, name, other", DROP_IN)
def test_classes_are_drop_in(script, name, other, monkeypatch):
    """But for a memory without weights in the agent that needs them."""
    monkeypatch.setattr(script, name, getattr(other, name))
    agent, history = script.train(per.Config(episodes=8, batch_size=16))
    used = agent.q_network if name == "QNetwork" else agent.memory
    assert type(used) is getattr(other, name)
    assert any(row.loss for row in history)
