"""What the two A2C scripts share: returns, masks and the update, against short independent versions."""

import inspect
import itertools
import operator

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
    """An agent of the script with a linear network and plain gradient descent, so that an update shows the gradient."""
    config = script.Config(gamma=GAMMA, **settings)
    agent = script.Agent(config, 4, 2) if script is cartpole else script.Agent(config, 2)
    torch.manual_seed(3)
    agent.network = Linear()
    agent.optimizer = torch.optim.SGD(agent.network.parameters(), lr=1)
    return agent


def every_pattern(steps):
    """Every course that `steps` steps can take, one an environment: terminated, truncated and valid (T, N) bool.

    A step goes on, ends by termination or ends by truncation; the step after an end only resets.
    """
    courses = []
    for course in itertools.product("-ex", repeat=steps):
        for starts_over in (False, True):  # the end may have come in the rollout before
            ends = [starts_over] + [letter != "-" for letter in course]
            if all(not (a and b) for a, b in itertools.pairwise(ends)):
                starts = ends[:-1]
                courses.append([(x == "e", x == "x", not start) for x, start in zip(course, starts, strict=True)])
    return np.array(courses).transpose(2, 1, 0)


def return_by_hand(t, reward, value, next_value, terminated, truncated):
    """The discounted sum of rewards from step t of one environment on, up to its end or to what the critic expects."""
    values = [*value, next_value]
    total = 0.0
    for k in range(t, len(reward)):
        total += GAMMA ** (k - t) * reward[k]
        if terminated[k]:
            return total
        if truncated[k] or k == len(reward) - 1:
            return total + GAMMA ** (k - t + 1) * values[k + 1]
    raise AssertionError


def rollout_of(script, terminated, truncated, valid, seed=0):
    """Random rewards, values and logits for given ends, and the values after the last step (N,)."""
    rng, (steps, num_envs) = np.random.default_rng(seed), terminated.shape
    logits = torch.tensor(rng.normal(size=(steps, num_envs, 2)), dtype=torch.float32)
    value, reward = (torch.tensor(rng.normal(size=(steps, num_envs)), dtype=torch.float32) for _ in range(2))
    action = torch.tensor(rng.integers(2, size=(steps, num_envs)))
    ends = (torch.tensor(x) for x in (terminated, truncated, valid))
    return script.Rollout(logits, value, action, reward, *ends), torch.tensor(rng.normal(size=num_envs)).float()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_returns_with_ends_truncations_and_resets_at_every_position(script, steps):
    rollout, next_value = rollout_of(script, *every_pattern(steps))
    returns = small_agent(script).returns(rollout, next_value)
    assert returns.shape == rollout.value.shape and not returns.requires_grad
    columns = [x.numpy() for x in (rollout.reward, rollout.value, rollout.terminated, rollout.truncated, rollout.valid)]
    checked = 0
    for env in range(returns.shape[1]):
        reward, value, terminated, truncated, valid = (x[:, env] for x in columns)
        for t in np.flatnonzero(valid):
            expected = return_by_hand(t, reward, value, float(next_value[env]), terminated, truncated)
            assert returns[t, env].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            checked += 1
    assert checked == rollout.valid.sum() >= 3 * steps


def stored(script, agent, num_envs=6, seed=0):
    """Fills the agent's storage with 5 steps that it sampled; some end. Returns states, columns and the next state."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(6, num_envs, 3)).astype(np.float32)
    terminated, truncated, valid = every_pattern(5)[:, :, rng.integers(2, 64, size=num_envs)]
    reward, actions = np.float32(rng.normal(size=(5, num_envs))), []
    for t in range(5):
        logits, value, action = agent.sample(states[t])
        actions.append(action)
        agent.storage.insert(logits, value, action, reward[t], terminated[t], truncated[t], valid[t])
    return states, torch.stack(actions), reward, terminated, truncated, valid


def test_learn_is_one_step_down_the_papers_loss(script):
    """Against a second forward pass over all states and the loss written out, transition by transition."""
    agent = small_agent(script, value_coef=0.7, entropy_coef=0.2, max_grad_norm=0.3)
    states, action, reward, terminated, truncated, valid = stored(script, agent)
    before = [p.detach().clone() for p in agent.network.parameters()]
    logits, value = agent.network(torch.from_numpy(states))
    constant, loss = value.detach().numpy(), 0.0
    for t, env in zip(*np.nonzero(valid), strict=True):
        column = (x[:, env] for x in (reward, constant[:-1]))
        R = return_by_hand(t, *column, constant[-1, env], terminated[:, env], truncated[:, env])
        policy = torch.distributions.Categorical(logits=logits[t, env])
        loss = loss - policy.log_prob(action[t, env]) * (R - constant[t, env])
        loss = loss + 0.7 * (R - value[t, env]) ** 2 - 0.2 * policy.entropy()
    loss = loss / valid.size
    gradients = torch.autograd.grad(loss, list(agent.network.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.3 and not valid.all()  # else neither the clipping nor the mask would be tested
    assert agent.learn(states[5]) == pytest.approx(loss.item(), rel=1e-4)
    for old, new, gradient in zip(before, agent.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.detach(), old - gradient * 0.3 / norm, rtol=1e-3, atol=1e-5)
    assert len(agent.storage) == 0


def test_a_reset_step_teaches_nothing(script):
    """Whatever was sampled, expected or rewarded in it."""
    results = []
    for noise in (0.0, 100.0):
        agent = small_agent(script)
        states, _, _, _, _, valid = stored(script, agent)
        masked = np.argwhere(~valid)
        for t, env in masked:
            agent.storage.steps[t][3][env] += noise  # the reward
            agent.storage.steps[t][2][env] ^= int(noise > 0)  # the action
        agent.learn(states[5])
        results.append([p.detach().clone() for p in agent.network.parameters()])
    assert len(masked) > 2 and all(map(torch.equal, *results))


def test_sample_draws_from_the_policy(script):
    agent = small_agent(script)
    states = np.repeat(np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32), 20_000, 0)
    logits, value, action = agent.sample(states)
    assert (logits.shape, value.shape, action.shape) == ((20_000, 2), (20_000,), (20_000,))
    expected = logits[0].softmax(-1)[1].item()
    assert 0.1 < expected < 0.9 and action.float().mean().item() == pytest.approx(expected, abs=0.02)


def watched(script, monkeypatch):
    """A list that collects what train() stores at each step: tuples of arrays."""
    seen, insert = [], script.RolloutStorage.insert

    def spy(self, *step):
        seen.append(tuple(np.asarray(torch.as_tensor(column)) for column in step[2:]))
        insert(self, *step)

    monkeypatch.setattr(script.RolloutStorage, "insert", spy)
    return seen


def test_cartpole_masks_the_step_that_only_starts_over(monkeypatch):
    """On the real environment: masked is the step from a last state to a first one, whatever the action."""
    seen, states, sample = watched(cartpole, monkeypatch), [], cartpole.Agent.sample
    monkeypatch.setattr(cartpole.Agent, "sample", lambda self, state: (states.append(state), sample(self, state))[1])
    _, history = cartpole.train(cartpole.Config(seed=4, episodes=12, num_envs=8, max_steps=30))
    _, reward, terminated, truncated, valid = (np.array(column) for column in zip(*seen, strict=True))
    states, ended = np.array(states), terminated | truncated
    fallen = (abs(states[:, :, 2]) > np.deg2rad(12)) | (abs(states[:, :, 0]) > 2.4)
    assert valid[0].all() and np.array_equal(valid[1:], ~ended[:-1]) and not (ended & ~valid).any()
    assert np.array_equal(fallen[1:], terminated[:-1]) and truncated.any() and terminated.any()
    assert (abs(states[1:][~valid[:-1]]) <= 0.05).all()  # CartPole starts there
    assert np.array_equal(reward, -terminated.astype(np.float32))
    lengths = np.diff([-2, *np.flatnonzero(ended[:, 0])]) - 1  # without the steps that start over
    assert [row.steps for row in history] == lengths.tolist() and history[-1].env_steps == valid.sum()


def test_cartpole_updates_every_num_steps(monkeypatch):
    seen, calls = watched(cartpole, monkeypatch), []
    monkeypatch.setattr(cartpole.Agent, "learn", lambda self, _: calls.append(len(self.storage.take()[0])) or 0.0)
    cartpole.train(cartpole.Config(episodes=3, num_steps=4))
    assert set(calls) == {4} and len(calls) == len(seen) // 4


class Fake(gym.vector.VectorEnv):
    """Three environments whose episodes last 4 steps, the limit, or 2 where `falls` lists (environment, episode)."""

    num_envs, falls = 3, ()
    single_observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None):
        self.episode, self.time, self.over = np.zeros(3, int), np.zeros(3, int), np.zeros(3, bool)
        return np.zeros((3, 4), np.float32), {}

    def step(self, action):
        self.episode += self.over
        self.time = np.where(self.over, 0, self.time + 1)
        fell = np.array([(i, e) in self.falls for i, e in enumerate(self.episode)]) & (self.time == 2)
        limit = self.time == 4
        self.over = fell | limit
        return np.zeros((3, 4), np.float32), -fell.astype(float), fell, limit, {}


def test_cartpole_is_solved_when_all_stand_and_the_check_passes(monkeypatch):
    monkeypatch.setattr(Fake, "falls", [(0, 0), (1, 1), (2, 2)])
    monkeypatch.setattr(cartpole.gym, "make_vec", lambda *_, **__: Fake())
    answers = iter([3, 4])
    monkeypatch.setattr(cartpole, "evaluate", lambda *_, **__: np.array([4, next(answers), 4]))
    _, history = cartpole.train(cartpole.Config(max_steps=4, num_envs=3))
    assert [row.steps for row in history[:3]] == [2, 4, 4] and {row.steps for row in history[1:]} == {4}
    assert [row.solved for row in history] == [False] * (len(history) - 1) + [True] and next(answers, None) is None
    standing = [row.standing for row in history]
    assert standing[0] < 3 and standing[-2:] == [3, 3] and [row.checks for row in history][-2:] == [1, 2]


def test_cartpole_seed_decides_everything():
    runs = [cartpole.train(cartpole.Config(seed=seed, episodes=4)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_cartpole_evaluates_greedily():
    agent = cartpole.Agent(cartpole.Config(), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    assert np.array_equal(agent.act(states), agent.network(torch.from_numpy(states))[0].argmax(1))


def test_stop_ends_training_at_the_next_step():
    calls = iter([False] * 4 + [True] * 2)
    agent, history = cartpole.train(cartpole.Config(), stop=lambda: next(calls))
    assert (len(agent.storage), history) == (4, [])


def test_the_loss_and_the_returns_are_the_same_code():
    """But for the device, and the average over processes."""
    a, b = (inspect.getsource(script.Agent.learn) for script in (cartpole, breakout))
    b = "".join(line for line in b.splitlines(keepends=True) if "average(" not in line)
    assert a == b.replace(".to(self.device)", "").replace("take(self.device)", "take()")
    for name in ("Rollout", "Agent.returns"):
        a, b = (inspect.getsource(operator.attrgetter(name)(script)) for script in (cartpole, breakout))
        assert a == b
