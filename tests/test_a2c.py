"""What the two A2C scripts share: returns, masks, the update, against independent versions."""

import copy
import inspect
import itertools
import json
import operator
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import A2C_NAMES

import a2c_breakout as breakout
import a2c_cartpole as cartpole

NAMES = A2C_NAMES
GAMMA = 0.9


class Linear(torch.nn.Module):
    """A network of few weights, for states (..., 3)."""

    def __init__(self):
        super().__init__()
        self.actor, self.critic = torch.nn.Linear(3, 2), torch.nn.Linear(3, 1)

    def forward(self, state):
        return self.actor(state), self.critic(state).squeeze(-1)


def small_agent(script, **settings):
    """An agent with a linear network and plain gradient descent: an update shows the gradient."""
    config = script.Config(gamma=GAMMA, **settings)
    agent = script.Agent(config, 4, 2) if script is cartpole else script.Agent(config, 2)
    torch.manual_seed(3)
    agent.network = Linear()
    agent.optimizer = torch.optim.SGD(agent.network.parameters(), lr=1)
    return agent


def every_pattern(steps):
    """Every course that `steps` steps can take, one an environment: three of (T, N) bool.

    A step goes on, is terminated, truncated or both; the step after an end only resets: not valid.
    """
    courses = []
    for course in itertools.product("-exb", repeat=steps):
        for starts_over in (False, True):  # the end may have come in the rollout before
            ends = [starts_over] + [letter != "-" for letter in course]
            if all(not (a and b) for a, b in itertools.pairwise(ends)):
                starts = ends[:-1]
                courses.append(
                    [
                        (x in "eb", x in "xb", not start)
                        for x, start in zip(course, starts, strict=True)
                    ]
                )
    return np.array(courses).transpose(2, 1, 0)


def return_by_hand(t, reward, value, next_value, terminated, truncated):
    """The discounted rewards from step t of one environment on, up to its end or the critic's V."""
    values = [*value, next_value]
    total = 0.0
    for k in range(t, len(reward)):
        total += GAMMA ** (k - t) * reward[k]
        if terminated[k]:
            return total
        if truncated[k] or k == len(reward) - 1:
            return total + GAMMA ** (k - t + 1) * values[k + 1]
    raise AssertionError


def rollout_of(script, terminated, truncated, valid):
    """Random rewards and values for given ends, and the state (N, 3) after the last step."""
    rng, shape = np.random.default_rng(0), terminated.shape
    value, reward = (torch.tensor(rng.normal(size=shape)).float() for _ in range(2))
    ends = (torch.tensor(x) for x in (terminated, truncated, valid))
    state = rng.normal(size=(shape[1], 3)).astype(np.float32)
    return script.Rollout(value, value, value, reward, *ends), state


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_returns_with_ends_truncations_and_resets_at_every_position(script, steps):
    agent, (rollout, state) = small_agent(script), rollout_of(script, *every_pattern(steps))
    returns = agent.returns(rollout, state)
    assert returns.shape == rollout.value.shape and not returns.requires_grad
    columns, checked = [x.numpy() for x in rollout[2:]], 0
    next_value = agent.network(torch.from_numpy(state))[1].detach()
    for env in range(returns.shape[1]):
        value, reward, terminated, truncated, valid = (x[:, env] for x in columns)
        for t in np.flatnonzero(valid):
            rest = (reward, value, float(next_value[env]), terminated, truncated)
            expected = return_by_hand(t, *rest)
            assert returns[t, env].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            checked += 1
    assert checked == rollout.valid.sum() >= 3 * steps


def played(script, agent, num_envs=6, seed=0):
    """5 steps that the agent sampled, some of which end: states, columns, and the Rollout."""
    rng, storage = np.random.default_rng(seed), script.RolloutStorage()
    states = rng.normal(size=(6, num_envs, 3)).astype(np.float32)
    ends = every_pattern(5)[:, :, rng.integers(2, 64, size=num_envs)]
    reward, actions = np.float32(rng.normal(size=(5, num_envs))), []
    for t in range(5):
        action, *outputs = agent.sample(states[t])
        actions.append(action)
        storage.insert(*outputs, reward[t], *ends[:, t])
    assert len(storage.steps) == 5
    rollout = storage.take()
    assert len(storage.steps) == 0
    return states, (np.array(actions), reward, *ends), rollout


def test_learn_is_one_step_down_the_papers_loss(script):
    """Against a second forward pass and the loss written out, transition by transition."""
    agent = small_agent(script, value_coef=0.7, entropy_coef=0.2, max_grad_norm=0.3)
    states, (action, reward, terminated, truncated, valid), rollout = played(script, agent)
    before = [p.detach().clone() for p in agent.network.parameters()]
    for p in agent.network.parameters():
        p.grad = torch.ones_like(p)  # of the update before: counts no more
    logits, value = agent.network(torch.from_numpy(states))
    constant, loss = value.detach().numpy(), 0.0
    for t, env in zip(*np.nonzero(valid), strict=True):
        column = (x[:, env] for x in (reward, constant[:-1]))
        ends = terminated[:, env], truncated[:, env]
        R = return_by_hand(t, *column, constant[-1, env], *ends)
        policy = torch.distributions.Categorical(logits=logits[t, env])
        loss = loss - policy.log_prob(torch.tensor(action[t, env])) * (R - constant[t, env])
        loss = loss + 0.7 * (R - value[t, env]) ** 2 - 0.2 * policy.entropy()
    loss = loss / valid.sum()
    gradients = torch.autograd.grad(loss, list(agent.network.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.3 and not valid.all()  # else neither clipping nor mask would be tested
    assert agent.learn(rollout, states[5]) == pytest.approx(loss.item(), rel=1e-4)
    for old, new, gradient in zip(before, agent.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.detach(), old - gradient * 0.3 / norm, rtol=1e-3, atol=1e-5)


def test_a_reset_step_teaches_nothing(script):
    """Whatever was sampled or rewarded in it."""
    results = []
    for noise in (0.0, 100.0):
        agent = small_agent(script)
        states, _, rollout = played(script, agent)
        masked = ~rollout.valid
        changed = {"reward": rollout.reward + noise * masked}
        changed["log_prob"] = rollout.log_prob + noise * masked
        agent.learn(rollout._replace(**changed), states[5])
        results.append([p.detach().clone() for p in agent.network.parameters()])
    assert masked.sum() > 2 and all(map(torch.equal, *results))


def test_a_rollout_of_resets_is_no_nan(script):
    agent, no = small_agent(script), torch.zeros(1, 3, dtype=torch.bool)
    _, *outputs = agent.sample(np.ones((3, 3), np.float32))
    before = copy.deepcopy(agent.network.state_dict())
    rollout = script.Rollout(*(x[None] for x in outputs), torch.ones(1, 3), no, no, no)
    assert agent.learn(rollout, np.ones((3, 3), np.float32)) == 0
    torch.testing.assert_close(agent.network.state_dict(), before, rtol=0, atol=0)


def test_sample_draws_from_the_policy(script):
    agent = small_agent(script)
    states = np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32).repeat(20_000, 0)
    action, log_prob, entropy, value = agent.sample(states)
    assert action.shape == log_prob.shape == entropy.shape == value.shape == (20_000,)
    p = agent.network(torch.from_numpy(states[0]))[0].softmax(-1)
    assert 0.1 < p[1] < 0.9 and action.mean() == pytest.approx(p[1].item(), abs=0.02)
    torch.testing.assert_close(log_prob, p.log()[torch.from_numpy(action)])
    torch.testing.assert_close(entropy, -(p * p.log()).sum().expand(20_000))


def watched(monkeypatch):
    """A list that collects what train() stores at each step: tuples of arrays."""
    seen, insert = [], cartpole.RolloutStorage.insert

    def spy(self, *step):
        seen.append(tuple(np.asarray(torch.as_tensor(column)) for column in step[3:]))
        insert(self, *step)

    monkeypatch.setattr(cartpole.RolloutStorage, "insert", spy)
    return seen


def test_cartpole_masks_the_step_that_only_starts_over(monkeypatch):
    """On the real environment: masked is the step from a last state to a first one."""
    seen, states, sample = watched(monkeypatch), [], cartpole.Agent.sample
    spy = lambda self, state: (states.append(state), sample(self, state))[1]  # noqa: E731
    monkeypatch.setattr(cartpole.Agent, "sample", spy)
    config = cartpole.Config(seed=4, steps=4000, num_envs=8, max_steps=30, solved_after=1000)
    _, history = cartpole.train(config)
    reward, terminated, truncated, valid = (np.array(column) for column in zip(*seen, strict=True))
    states, ended = np.array(states), terminated | truncated
    fallen = (abs(states[:, :, 2]) > np.deg2rad(12)) | (abs(states[:, :, 0]) > 2.4)
    assert valid[0].all() and np.array_equal(valid[1:], ~ended[:-1]) and not (ended & ~valid).any()
    assert np.array_equal(fallen[1:], terminated[:-1]) and truncated.any() and terminated.any()
    assert (abs(states[1:][~valid[:-1]]) <= 0.05).all()  # CartPole starts there
    assert np.array_equal(reward, -terminated.astype(np.float32))
    assert history[-1].env_steps == valid.sum() and history[-1].episodes == ended.sum()
    lengths = [np.diff([-2, *np.flatnonzero(column)]) - 1 for column in ended.T]
    last = np.concatenate(lengths)[
        np.argsort(np.concatenate([np.flatnonzero(c) for c in ended.T]), kind="stable")
    ][-8:]
    assert history[-1].mean_steps == pytest.approx(last.mean())


def test_cartpole_updates_every_num_steps(monkeypatch):
    seen, calls = watched(monkeypatch), []
    learn = lambda self, rollout, state: calls.append(len(rollout.value)) or 0.0  # noqa: E731
    monkeypatch.setattr(cartpole.Agent, "learn", learn)
    _, history = cartpole.train(cartpole.Config(steps=800, num_steps=4))
    assert set(calls) == {4} and len(calls) == len(seen) // 4 == len(history)


class Fake(gym.vector.VectorEnv):
    """Three environments whose episodes last 4 steps, the limit; or 2 where `falls` lists them."""

    num_envs, falls, interrupt = 3, (), None
    single_observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None):
        self.episode, self.time, self.over = np.zeros(3, int), np.zeros(3, int), np.zeros(3, bool)
        return np.zeros((3, 4), np.float32), {}

    def step(self, action):
        if self.episode[0] == self.interrupt:
            raise KeyboardInterrupt
        self.episode += self.over
        self.time = np.where(self.over, 0, self.time + 1)
        fell = np.array([(i, e) in self.falls for i, e in enumerate(self.episode)])
        fell &= self.time == 2
        limit = self.time == 4
        self.over = fell | limit
        return np.zeros((3, 4), np.float32), -fell.astype(float), fell, limit, {}


def test_cartpole_full_episodes_in_a_row_solve_and_pause(monkeypatch):
    """One update a step; environment 1 falls in step 2, environment 0 in its second episode."""
    monkeypatch.setattr(Fake, "falls", [(1, 0), (0, 1)])
    monkeypatch.setattr(cartpole.gym, "make_vec", lambda *_, **__: Fake())
    monkeypatch.setattr(cartpole.Agent, "learn", lambda *_: 1.0)
    config = cartpole.Config(max_steps=4, num_envs=3, num_steps=1, solved_after=6)
    _, history = cartpole.train(config)
    full = [row.full_in_a_row for row in history]
    assert full == [0, 0, 0, 2, 2, 2, 0, 0, 1, 1, 1, 3, 3, 4, 4, 4, 6]
    assert [np.isnan(row.loss) for row in history] == [n > 0 for n in full]


@pytest.mark.parametrize("at", [0, 2])
def test_cartpole_what_train_returns_can_be_used_freely(at, monkeypatch):
    """After Ctrl-C too: copied, pickled, written as JSON; and torch has its threads again."""
    monkeypatch.setattr(Fake, "interrupt", at)
    monkeypatch.setattr(cartpole.gym, "make_vec", lambda *_, **__: Fake())
    torch.set_num_threads(2)
    agent, history = cartpole.train(cartpole.Config(max_steps=4, num_envs=3, num_steps=3))
    assert torch.get_num_threads() == 2 and bool(history) == (at > 0)
    torch.set_num_threads(1)
    assert all(
        type(x) is cartpole.Agent for x in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent)))
    )
    for row in history:
        assert json.loads(json.dumps(row._asdict()))["update"] == row.update


def test_cartpole_seed_decides_everything():
    runs = [cartpole.train(cartpole.Config(seed=seed, steps=3000)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_cartpole_evaluates_greedily():
    agent = cartpole.Agent(cartpole.Config(), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    assert np.array_equal(agent.act(states), agent.network(torch.from_numpy(states))[0].argmax(1))


def test_the_loss_and_the_returns_are_the_same_code():
    """But for the average over processes."""
    learn = [inspect.getsource(script.Agent.learn) for script in (cartpole, breakout)]
    assert "dist." in learn[1]
    start, end = learn[1].index("        if dist."), learn[1].index("        nn.utils.clip")
    assert learn[0] == learn[1][:start] + learn[1][end:]
    for name in ("Agent.returns", "RolloutStorage"):
        a, b = (inspect.getsource(operator.attrgetter(name)(s)) for s in (cartpole, breakout))
        assert a == b
