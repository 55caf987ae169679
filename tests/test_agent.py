"""Targets, updates, networks and the training loop against short independent versions."""

import types

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import Q_NAMES

import ddqn_cartpole as ddqn
import dqn_cartpole as dqn
import dueling_cartpole as dueling
import per_cartpole as per

NAMES = Q_NAMES


def random_memory(script, config, count=200):
    """An agent whose memory holds random transitions, a third of them falls, and whose networks differ."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    agent = script.Agent(config, 4, 2)
    for parameter in agent.target_network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for i in range(count):
        state, next_state = rng.normal(size=(2, 4)).astype(np.float32)
        agent.memory.push(state, i % 2, -float(i % 3 == 0), next_state, i % 3 == 0)
    if script is per:
        agent.memory.update(np.arange(count), rng.random(count))
    return agent


def test_td_target_is_the_equation(script):
    agent = random_memory(script, script.Config(gamma=0.9))
    batch = agent.memory.sample(50)
    with torch.no_grad():
        q, target = agent.q_network(batch.next_state).numpy(), agent.target_network(batch.next_state).numpy()
    chosen = target.argmax(1) if script is dqn else q.argmax(1)
    expected = batch.reward.numpy() + 0.9 * (1 - batch.terminated.numpy()) * target[np.arange(50), chosen]
    result = agent.td_target(batch)
    assert result.shape == (50,) and not result.requires_grad
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert (q.argmax(1) != target.argmax(1)).any()  # else the two rules could not be told apart


def test_learn_is_one_adam_step_on_the_weighted_huber_loss(script):
    config = script.Config(learning_rate=0.01, batch_size=32)
    agent = random_memory(script, config)
    random_state = torch.get_rng_state()
    batch = agent.memory.sample(32)
    torch.set_rng_state(random_state)  # learn() draws the same batch
    before = [p.detach().clone() for p in agent.q_network.parameters()]
    target_before = [p.detach().clone() for p in agent.target_network.parameters()]
    q = agent.q_network(batch.state)[torch.arange(32), batch.action[:, 0]]
    error = q - agent.td_target(batch)
    huber = torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)
    loss = (getattr(batch, "weight", torch.ones(32)) * huber).sum() / 32
    gradients = torch.autograd.grad(loss, list(agent.q_network.parameters()))
    assert agent.learn() == pytest.approx(loss.item(), rel=1e-5)
    for old, new, gradient in zip(before, agent.q_network.parameters(), gradients, strict=True):
        expected = old - 0.01 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(new.detach(), expected, rtol=1e-3, atol=1e-5)
    assert all(map(torch.equal, target_before, agent.target_network.parameters()))
    if script is per:
        leaves = agent.memory.tree.sums[agent.memory.tree.first_leaf :]
        priority = (error.detach().abs().numpy().astype(float) + config.priority_epsilon) ** config.alpha
        np.testing.assert_allclose(leaves[batch.index], priority, rtol=1e-3)


def test_sync_blends(script):
    agent = random_memory(script, script.Config(tau=0.25))
    expected = [
        0.75 * t + 0.25 * q
        for t, q in zip(agent.target_network.parameters(), agent.q_network.parameters(), strict=True)
    ]
    agent.sync()
    for new, blend in zip(agent.target_network.parameters(), expected, strict=True):
        torch.testing.assert_close(new, blend)


def test_act_is_greedy_and_epsilon_is_its_probability(script):
    agent = script.Agent(script.Config(), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    greedy = agent.q_network(torch.from_numpy(states)).argmax(1).numpy()
    assert np.array_equal(agent.act(states), greedy)
    state = states[0]
    random_share = np.mean([agent.act(state, epsilon=0.4) != greedy[0] for _ in range(4000)])
    assert abs(random_share - 0.2) < 0.03  # half of the random actions are the greedy one by chance


def test_dueling_advantage_has_mean_zero_and_value_is_the_mean():
    torch.manual_seed(0)
    network = dueling.QNetwork(4, 16, 5)
    states = torch.randn(7, 4)
    hidden = network.hidden(states)
    q = network(states)
    assert q.shape == (7, 5)
    torch.testing.assert_close(q.mean(1, keepdim=True), network.value(hidden))
    advantage = network.advantage(hidden)
    torch.testing.assert_close(q - q.mean(1, keepdim=True), advantage - advantage.mean(1, keepdim=True))
    with torch.no_grad():
        network.advantage.bias += 10  # what is added to every advantage is not seen in Q
    torch.testing.assert_close(network(states), q)


class Scripted(gym.Env):
    """Episodes that end as told: at step 3 by a fall, then at step 4 by the limit, in turn."""

    observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.episode = -1

    def observation(self):
        return np.array([self.episode, self.time, 0, 0], np.float32)

    def reset(self, seed=None, options=None):
        self.episode, self.time = self.episode + (seed is None), 0
        return self.observation(), {}

    def step(self, action):
        self.time += 1
        fell, limit = self.episode % 2 == 0 and self.time == 3, self.time == 4
        return self.observation(), -float(fell), fell, limit, {}


def test_training_stores_falls_as_ends_and_the_limit_not(script, monkeypatch):
    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Scripted())
    agent, history = script.train(script.Config(episodes=4, batch_size=64))
    memory, n = agent.memory, len(agent.memory)
    assert [row.steps for row in history] == [3, 4, 3, 4] and n == 14 == history[-1].env_steps
    assert memory.terminated[:n].nonzero()[0].tolist() == [2, 9]
    assert memory.reward[:n].nonzero()[0].tolist() == [2, 9]
    # every next state is the one that followed, never the first of the next episode
    assert np.array_equal(memory.next_state[:n, 0], memory.state[:n, 0])
    assert np.array_equal(memory.next_state[:n, 1], memory.state[:n, 1] + 1)


def test_only_a_fall_pays_and_ends(script, monkeypatch):
    """On the real CartPole: two episodes of pushing left, which fall, then two that balance up to the limit."""

    def act(self, state, epsilon=0.0):
        return int(epsilon < 0.2 and state[2] + 0.3 * state[3] > 0)

    monkeypatch.setattr(script.Agent, "act", act)
    monkeypatch.setattr(script.Agent, "learn", lambda self: 0.0)
    monkeypatch.setattr(script, "evaluate", lambda *_, **__: np.zeros(100))
    agent, history = script.train(script.Config(episodes=4, max_steps=50))
    memory, n = agent.memory, len(agent.memory)
    assert [row.steps for row in history[2:]] == [50, 50] and max(row.steps for row in history[:2]) < 12
    assert memory.terminated[:n].nonzero()[0].tolist() == [history[0].env_steps - 1, history[1].env_steps - 1]
    assert np.array_equal(memory.reward[:n], -memory.terminated[:n])


def test_updates_come_when_the_settings_say(script, monkeypatch):
    calls = []
    monkeypatch.setattr(script.Agent, "learn", lambda self: calls.append(len(self.memory)) or 0.0)
    script.train(script.Config(episodes=4, batch_size=10, update_every=3))
    assert calls == list(range(12, calls[-1] + 1, 3)) and len(calls) > 5


def test_evaluation_counts_each_first_episode_once(script):
    always_left = types.SimpleNamespace(act=lambda state: np.zeros(len(state), int))
    steps = script.evaluate(always_left, script.Config(), seed=5)
    env = gym.make_vec("CartPole-v1", num_envs=100)
    env.reset(seed=5)
    fell = np.array([env.step(np.zeros(100, int))[2] for _ in range(15)])  # (15, 100)
    assert np.array_equal(steps, fell.argmax(0) + 1) and steps.min() < steps.max() < 15
    forever = types.SimpleNamespace(act=lambda state: (state[:, 2] + 0.3 * state[:, 3] > 0).astype(int))
    assert (script.evaluate(forever, script.Config(max_steps=50), seed=5) == 50).all()


class Standing(Scripted):
    """Episodes that reach the limit, but for those listed in `falls`."""

    falls = ()

    def step(self, action):
        self.time += 1
        fell = self.episode in self.falls and self.time == 2
        return self.observation(), -float(fell), fell, self.time == 4, {}


def standing(script, monkeypatch, falls, checks, **config):
    """Trains on Standing with the greedy check's answers given; returns the history, and the episodes that learned."""
    monkeypatch.setattr(Standing, "falls", falls)
    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Standing())
    answers = iter(checks)
    monkeypatch.setattr(script, "evaluate", lambda *_, **__: np.array([4, next(answers), 4]))
    monkeypatch.setattr(script.Agent, "learn", lambda self: 1.0)
    _, history = script.train(script.Config(max_steps=4, batch_size=1, **config))
    assert next(answers, None) is None
    return history, [row.episode for row in history if not np.isnan(row.loss)]


def test_solved_needs_ten_in_a_row_and_the_greedy_check(script, monkeypatch):
    history, learned = standing(script, monkeypatch, falls=[], checks=[3] * 11 + [4])
    assert [row.solved for row in history] == [False] * 11 + [True] and learned == list(range(1, 13))


def test_learning_rests_from_the_check_to_the_next_fall(script, monkeypatch):
    history, learned = standing(script, monkeypatch, falls=[5], checks=[3, 4, 3, 4])  # episode 5 is the sixth
    assert [row.steps for row in history] == [4] * 5 + [2] + [4] * 10
    assert learned == [1, 2, 7, 8] and [row.solved for row in history] == [False] * 15 + [True]
    assert [row.checks for row in history] == [1, 2, 2, 2, 2, 2, 3] + [4] * 9


def test_the_seed_decides_everything(script):
    """In one process, whatever ran before: the same seed twice, and another."""
    runs = [script.train(script.Config(seed=seed, episodes=15)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.q_network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_stop_ends_training_at_the_next_step(script):
    calls = iter([False] * 4 + [True] * 2)
    agent, history = script.train(script.Config(), stop=lambda: next(calls))
    assert (len(agent.memory), history) == (5, [])


@pytest.mark.parametrize("network", [dqn.QNetwork, dueling.QNetwork])
@pytest.mark.parametrize("agent", [dqn, ddqn, dueling, per])
def test_networks_are_drop_in(agent, network, monkeypatch):
    monkeypatch.setattr(agent, "QNetwork", network)
    trained, history = agent.train(agent.Config())
    assert type(trained.q_network) is network and history[-1].solved


@pytest.mark.parametrize("memory", [dqn, per])
@pytest.mark.parametrize("agent", [dqn, ddqn, dueling])
def test_memories_are_drop_in(agent, memory, monkeypatch):
    """Any memory works in an agent without weights; PER's own agent needs the weights that only its memory gives."""
    monkeypatch.setattr(agent, "ReplayMemory", memory.ReplayMemory)
    trained, history = agent.train(memory.Config())
    assert type(trained.memory) is memory.ReplayMemory and history[-1].solved
