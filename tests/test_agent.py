"""Targets, updates, networks and the training loop against short independent versions."""

import copy
import json
import pickle
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
        q = agent.q_network(batch.next_state).numpy()
        target = agent.target_network(batch.next_state).numpy()
    chosen = target.argmax(1) if script is dqn else q.argmax(1)
    expected = (
        batch.reward.numpy() + 0.9 * (1 - batch.terminated.numpy()) * target[np.arange(50), chosen]
    )
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
    old_target = [p.detach().clone() for p in agent.target_network.parameters()]
    q = agent.q_network(batch.state)[torch.arange(32), batch.action[:, 0]]
    error = q - agent.td_target(batch)
    huber = torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)
    loss = (getattr(batch, "weight", torch.ones(32)) * huber).sum() / 32
    gradients = torch.autograd.grad(loss, list(agent.q_network.parameters()))
    assert agent.learn() == pytest.approx(loss.item(), rel=1e-5)
    for old, new, gradient in zip(before, agent.q_network.parameters(), gradients, strict=True):
        expected = old - 0.01 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(new.detach(), expected, rtol=1e-3, atol=1e-5)
    networks = (agent.target_network.parameters(), agent.q_network.parameters())
    for old, target, q in zip(old_target, *networks, strict=True):
        torch.testing.assert_close(target, 0.95 * old + 0.05 * q)
    if script is per:
        td_error = error.detach().abs().numpy().astype(float)
        priority = (td_error + config.priority_epsilon) ** config.alpha
        np.testing.assert_allclose(agent.memory.tree[batch.index], priority, rtol=1e-3)


def test_act_is_greedy_and_epsilon_is_its_probability(script):
    agent = script.Agent(script.Config(), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    greedy = agent.q_network(torch.from_numpy(states)).argmax(1).numpy()
    assert np.array_equal(agent.act(states), greedy)
    before = agent.rng.bit_generator.state
    agent.act(states)
    assert agent.rng.bit_generator.state == before  # a greedy action draws no random number
    state = states[0]
    random_share = np.mean([agent.act(state, epsilon=0.4) != greedy[0] for _ in range(4000)])
    assert abs(random_share - 0.2) < 0.03  # half of the random actions are the greedy one by chance


def test_dueling_advantage_has_mean_zero_and_value_is_the_mean():
    torch.manual_seed(0)
    network = dueling.QNetwork(4, 16, 5)
    states = torch.randn(7, 4)
    hidden = network.hidden2(network.hidden1(states).relu()).relu()
    q = network(states)
    assert q.shape == (7, 5)
    torch.testing.assert_close(q.mean(1, keepdim=True), network.value(hidden))
    advantage = network.advantage(hidden)
    torch.testing.assert_close(
        q - q.mean(1, keepdim=True), advantage - advantage.mean(1, keepdim=True)
    )
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
        self.episode, self.time = self.episode + 1, 0
        return self.observation(), {}

    def step(self, action):
        self.time += 1
        fell, limit = self.episode % 2 == 0 and self.time == 3, self.time == 4
        return self.observation(), -float(fell), fell, limit, {}


def test_training_stores_falls_as_ends_and_the_limit_not(script, monkeypatch):
    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Scripted())
    agent, history = script.train(script.Config(episodes=4, batch_size=64))
    assert [row.steps for row in history] == [3, 4, 3, 4] and history[-1].env_steps == 14
    state, _, reward, next_state, terminated = (column[:14] for column in agent.memory.columns)
    assert terminated.nonzero()[0].tolist() == reward.nonzero()[0].tolist() == [2, 9]
    # every next state is the one that followed, never the first of the next episode
    assert np.array_equal(next_state[:, 0], state[:, 0])
    assert np.array_equal(next_state[:, 1], state[:, 1] + 1)


def test_only_a_fall_pays_and_ends(script, monkeypatch):
    """On the real CartPole: two episodes of pushing left, which fall, then two up to the limit."""
    pushes = iter([True] * 2 + [False] * 2)

    def act(self, state, epsilon=0.0):
        return int(not self.left and state[2] + 0.3 * state[3] > 0)

    monkeypatch.setattr(script.Agent, "left", False, raising=False)
    monkeypatch.setattr(script.Agent, "act", act)
    monkeypatch.setattr(script.Agent, "learn", lambda self: 0.0)
    env = gym.make("CartPole-v1", max_episode_steps=50, sutton_barto_reward=True)
    env.reset(seed=0)

    class Told(gym.Wrapper):
        def reset(self, **options):
            script.Agent.left = next(pushes, False)
            return self.env.reset(**options)

    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Told(env))
    agent, history = script.train(script.Config(episodes=4, max_steps=50))
    n, falls = history[-1].env_steps, [history[0].env_steps - 1, history[1].env_steps - 1]
    assert [row.steps for row in history[2:]] == [50, 50]
    assert max(row.steps for row in history[:2]) < 12
    _, _, reward, _, terminated = (column[:n] for column in agent.memory.columns)
    assert terminated.nonzero()[0].tolist() == falls and np.array_equal(reward, -terminated)


def test_updates_come_at_every_step_once_a_batch_is_there(script, monkeypatch):
    calls = []
    learn = lambda self: calls.append(len(self.memory)) or 0.0  # noqa: E731
    monkeypatch.setattr(script.Agent, "learn", learn)
    _, history = script.train(script.Config(episodes=4, batch_size=10))
    assert calls == list(range(10, history[-1].env_steps + 1))


def test_evaluation_counts_each_first_episode_once(script):
    always_left = types.SimpleNamespace(act=lambda state: np.zeros(len(state), int))
    steps = script.evaluate(always_left, script.Config(), seed=5)
    env = gym.make_vec("CartPole-v1", num_envs=100)
    env.reset(seed=5)
    fell = np.array([env.step(np.zeros(100, int))[2] for _ in range(15)])  # (15, 100)
    assert np.array_equal(steps, fell.argmax(0) + 1) and steps.min() < steps.max() < 15
    forever = types.SimpleNamespace(
        act=lambda state: (state[:, 2] + 0.3 * state[:, 3] > 0).astype(int)
    )
    assert (script.evaluate(forever, script.Config(max_steps=50), seed=5) == 50).all()


class Standing(Scripted):
    """Episodes that reach the limit, but for those listed in `falls`, counted from 0."""

    falls = ()

    def step(self, action):
        self.time += 1
        fell = self.episode in self.falls and self.time == 2
        return self.observation(), -float(fell), fell, self.time == 4, {}


@pytest.mark.parametrize("falls, episodes", [((), 3), ((0, 2, 3), 7), ((2,), 6), ((0, 4), 4)])
def test_full_episodes_in_a_row_solve_and_pause(script, falls, episodes, monkeypatch):
    """Three in a row solve; from the first full one to the next fall nothing is learned or explored."""
    explored, learned = [], []
    monkeypatch.setattr(Standing, "falls", falls)
    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Standing())
    monkeypatch.setattr(script.Agent, "act", lambda _, __, epsilon: explored.append(epsilon) or 0)
    monkeypatch.setattr(script.Agent, "learn", lambda _: learned.append(1) or 1.0)
    config = script.Config(max_steps=4, batch_size=1, solved_after=3, epsilon=0.2)
    _, history = script.train(config)
    expected, row = [], 0
    for episode in range(episodes):
        expected.append(row)  # full episodes before this one
        row = 0 if episode in falls else row + 1
    assert [r.full_in_a_row for r in history] == [*expected[1:], 3] and len(history) == episodes
    pauses = np.repeat([n > 0 for n in expected], [r.steps for r in history])
    assert explored == np.where(pauses, 0.0, 0.2).tolist() and len(learned) == (~pauses).sum()
    assert [np.isnan(r.loss) for r in history] == [n > 0 for n in expected]


def test_the_seed_decides_everything(script):
    """In one process, whatever ran before: the same seed twice, and another."""
    runs = [script.train(script.Config(seed=seed, episodes=15)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.q_network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


class Interrupted(Standing):
    """Raises what Ctrl-C raises, in the second step of the episode `at`."""

    falls, at = (0,), 1

    def step(self, action):
        if self.episode == self.at and self.time == 1:
            raise KeyboardInterrupt
        return super().step(action)


@pytest.mark.parametrize("at", [0, 2])
def test_what_train_returns_can_be_used_freely(script, at, monkeypatch):
    """After Ctrl-C too: copied, pickled, written as JSON; and torch has its threads again."""
    monkeypatch.setattr(Interrupted, "at", at)
    monkeypatch.setattr(script.gym, "make", lambda *_, **__: Interrupted())
    torch.set_num_threads(2)
    agent, history = script.train(script.Config(batch_size=1))
    assert torch.get_num_threads() == 2 and len(history) == at
    torch.set_num_threads(1)
    for twin in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert len(twin.memory) == len(agent.memory) > 0
    for row in history:
        assert json.loads(json.dumps(row._asdict()))["episode"] == row.episode


@pytest.mark.parametrize("network", [dqn.QNetwork, dueling.QNetwork])
@pytest.mark.parametrize("agent", [dqn, ddqn, dueling, per])
def test_networks_are_drop_in(agent, network, monkeypatch):
    monkeypatch.setattr(agent, "QNetwork", network)
    trained, history = agent.train(agent.Config())
    assert type(trained.q_network) is network and history[-1].full_in_a_row == 20


@pytest.mark.parametrize("memory", [dqn, per])
@pytest.mark.parametrize("agent", [dqn, ddqn, dueling])
def test_memories_are_drop_in(agent, memory, monkeypatch):
    """Any memory works in an agent without weights; PER's own agent needs the weights that only its memory gives."""
    monkeypatch.setattr(agent, "ReplayMemory", memory.ReplayMemory)
    trained, history = agent.train(memory.Config())
    assert type(trained.memory) is memory.ReplayMemory
    assert history[-1].full_in_a_row == 20
