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
    """Twenty tests in a row leave room for a policy that falls now and then: hence the mean of seeds."""
    means = []
    for seed in (0, 1) if script.NAME in ("dqn_cartpole", "per_cartpole", "a2c_cartpole") else (0,):
        config = script.Config(seed=seed)
        agent, history = script.train(config)
        assert solved(history, config)
        means.append(script.evaluate(agent, config, seed=2**32 + seed).mean())
    assert sum(means) / len(means) >= 195, means


@pytest.mark.slow
@scripts("per_cartpole", "a2c_cartpole")
def test_every_script_solves_500_steps(script):
    config = script.Config(max_steps=500)
    agent, history = script.train(config)
    assert solved(history, config)
    assert script.evaluate(agent, config, seed=2**32).mean() >= 450


@scripts("ddqn_cartpole", "a2c_cartpole")
def test_a_network_that_cannot_learn_is_not_called_solved(script):
    limit = {"steps": 5000} if script.NAME == "a2c_cartpole" else {"episodes": 60}
    config = script.Config(learning_rate=0, **limit)
    _, history = script.train(config)
    assert not solved(history, config)


@pytest.mark.slow
def test_a_prioritized_memory_works_in_an_agent_without_weights(monkeypatch):
    monkeypatch.setattr(dqn, "ReplayMemory", per.ReplayMemory)
    agent, history = dqn.train(per.Config())
    assert type(agent.memory) is per.ReplayMemory and history[-1].full_tests == 20


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
