"""A2C: returns, masks, the update, the tests, against independent versions. Breakout shares the code."""

import copy
import itertools
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

import a2c_cartpole as cartpole

GAMMA = 0.9


class Linear(torch.nn.Module):
    """A network of few weights, for states (..., 3)."""

    def __init__(self):
        super().__init__()
        self.actor = torch.nn.Linear(3, 2)
        self.critic = torch.nn.Linear(3, 1)

    def forward(self, state):
        return self.actor(state), self.critic(state).squeeze(-1)


def small_agent(**settings):
    """An agent with a linear network and plain gradient descent: an update shows the gradient."""
    config = cartpole.Config(gamma=GAMMA, **settings)
    agent = cartpole.Agent(config, 3, 2)
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
            if any(a and b for a, b in itertools.pairwise(ends)):
                continue
            steps_of_course = zip(course, ends[:-1], strict=True)
            courses.append([(x in "eb", x in "xb", not start) for x, start in steps_of_course])
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


def rollout_of(terminated, truncated, valid):
    """Random rewards and values for given ends, and the state (N, 3) after the last step."""
    rng = np.random.default_rng(0)
    value = torch.tensor(rng.normal(size=terminated.shape)).float()
    reward = torch.tensor(rng.normal(size=terminated.shape)).float()
    rollout = cartpole.Rollout(
        log_prob=value,
        entropy=value,
        value=value,
        reward=reward,
        terminated=torch.tensor(terminated),
        truncated=torch.tensor(truncated),
        valid=torch.tensor(valid),
    )
    return rollout, rng.normal(size=(terminated.shape[1], 3)).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_returns_with_ends_truncations_and_resets_at_every_position(steps):
    agent = small_agent()
    rollout, state = rollout_of(*every_pattern(steps))
    returns = agent.returns(rollout, state)
    assert returns.shape == rollout.value.shape and not returns.requires_grad
    columns = [x.numpy() for x in rollout[2:]]
    next_value = agent.network(torch.from_numpy(state))[1].detach()
    checked = 0
    for env in range(returns.shape[1]):
        value, reward, terminated, truncated, valid = (x[:, env] for x in columns)
        for t in np.flatnonzero(valid):
            rest = (reward, value, float(next_value[env]), terminated, truncated)
            expected = return_by_hand(t, *rest)
            assert returns[t, env].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            checked += 1
    assert checked == rollout.valid.sum() >= 3 * steps


def played(agent, num_envs=6, seed=0):
    """5 steps that the agent sampled, some of which end: states, actions, and the Rollout."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(6, num_envs, 3)).astype(np.float32)
    terminated, truncated, valid = every_pattern(5)[:, :, rng.integers(2, 64, size=num_envs)]
    reward = rng.normal(size=(5, num_envs)).astype(np.float32)
    storage = cartpole.RolloutStorage()
    actions = []
    for t in range(5):
        action, log_prob, entropy, value = agent.sample(states[t])
        actions.append(action)
        step = log_prob, entropy, value, reward[t], terminated[t], truncated[t], valid[t]
        storage.insert(**cartpole.Rollout(*step)._asdict())
    rollout = storage.take()
    assert np.array_equal(rollout.reward, reward) and np.array_equal(rollout.valid, valid)
    assert np.array_equal(rollout.terminated, terminated)
    assert np.array_equal(rollout.truncated, truncated)
    storage.insert(**cartpole.Rollout(*step)._asdict())
    assert len(storage.take().value) == 1  # what was taken is forgotten
    return states, np.array(actions), rollout


def test_learn_is_one_step_down_the_papers_loss():
    """Against a second forward pass and the loss written out, transition by transition."""
    agent = small_agent(value_coef=0.7, entropy_coef=0.2, max_grad_norm=0.3)
    states, action, rollout = played(agent)
    before = [p.detach().clone() for p in agent.network.parameters()]
    for p in agent.network.parameters():
        p.grad = torch.ones_like(p)  # of the update before: counts no more
    logits, value = agent.network(torch.from_numpy(states))
    constant = value.detach().numpy()
    reward, terminated, truncated, valid = (x.numpy() for x in rollout[3:])
    loss = 0.0
    for t, env in zip(*np.nonzero(valid), strict=True):
        columns = (reward[:, env], constant[:-1, env], constant[-1, env])
        R = return_by_hand(t, *columns, terminated[:, env], truncated[:, env])
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


def test_a_reset_step_teaches_nothing():
    """Whatever was sampled or rewarded in it."""
    results = []
    for noise in (0.0, 100.0):
        agent = small_agent()
        states, _, rollout = played(agent)
        masked = ~rollout.valid
        reward = rollout.reward + noise * masked
        log_prob = rollout.log_prob + noise * masked
        agent.learn(rollout._replace(reward=reward, log_prob=log_prob), states[5])
        results.append([p.detach().clone() for p in agent.network.parameters()])
    assert masked.sum() > 2 and all(map(torch.equal, *results))


def test_a_rollout_of_resets_is_no_nan():
    agent = small_agent()
    state = np.ones((3, 3), np.float32)
    _, log_prob, entropy, value = agent.sample(state)
    no = np.zeros(3, bool)
    storage = cartpole.RolloutStorage()
    step = cartpole.Rollout(log_prob, entropy, value, np.ones(3, np.float32), no, no, no)
    storage.insert(**step._asdict())
    before = copy.deepcopy(agent.network.state_dict())
    assert agent.learn(storage.take(), state) == 0
    torch.testing.assert_close(agent.network.state_dict(), before, rtol=0, atol=0)


def test_sample_draws_from_the_policy():
    agent = small_agent()
    states = np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32).repeat(20_000, 0)
    action, log_prob, entropy, value = agent.sample(states)
    assert action.shape == log_prob.shape == entropy.shape == value.shape == (20_000,)
    p = agent.network(torch.from_numpy(states[0]))[0].softmax(-1)
    assert 0.1 < p[1] < 0.9 and action.mean() == pytest.approx(p[1].item(), abs=0.02)
    torch.testing.assert_close(log_prob, p.log()[torch.from_numpy(action)])
    torch.testing.assert_close(entropy, -(p * p.log()).sum().expand(20_000))


# CartPole alone


def test_cartpole_masks_the_step_that_only_starts_over(monkeypatch):
    """On the real environment: masked is the step from a last state to a first one."""
    states = []
    steps = []
    sample = cartpole.Agent.sample
    insert = cartpole.RolloutStorage.insert

    def watched_sample(self, state):
        states.append(state)
        return sample(self, state)

    def watched_insert(self, **step):
        steps.append(cartpole.Rollout(**step))
        insert(self, **step)

    monkeypatch.setattr(cartpole.Agent, "sample", watched_sample)
    monkeypatch.setattr(cartpole.RolloutStorage, "insert", watched_insert)
    config = cartpole.Config(seed=4, steps=4000, num_envs=8, max_steps=30, solved_after=50)
    _, history = cartpole.train(config)
    reward = np.array([step.reward for step in steps])
    terminated = np.array([step.terminated for step in steps])
    truncated = np.array([step.truncated for step in steps])
    valid = np.array([step.valid for step in steps])
    states = np.array(states)
    ended = terminated | truncated
    fallen = (abs(states[:, :, 2]) > np.deg2rad(12)) | (abs(states[:, :, 0]) > 2.4)
    assert valid[0].all() and np.array_equal(valid[1:], ~ended[:-1]) and not (ended & ~valid).any()
    assert np.array_equal(fallen[1:], terminated[:-1]) and truncated.any() and terminated.any()
    assert (abs(states[1:][~valid[:-1]]) <= 0.05).all()  # CartPole starts there
    assert np.array_equal(reward, -terminated.astype(np.float32))
    tests = sum(row.test_steps or 0 for row in history)
    assert history[-1].env_steps == valid.sum() + 50 * tests
    assert history[-1].episodes == ended.sum()
    finished = []  # steps of all episodes, in the order in which they ended
    for t, env in np.argwhere(ended):
        starts = np.flatnonzero(~valid[:t, env])
        finished.append(t - starts[-1] if len(starts) else t + 1)
    assert history[-1].mean_steps == pytest.approx(np.mean(finished[-8:]))
    assert len(history) == len(steps) / config.num_steps


class Told(gym.vector.VectorEnv):
    """Environments whose episodes last 4 steps, the limit, unless `falls` says when they end.

    Its keys are (reset, environment, episode): the number of the reset of them all, from 0, the
    environment, and how often it started over since. At the step `interrupt` comes Ctrl-C.
    """

    single_observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs, falls, interrupt=None):
        self.num_envs = num_envs
        self.falls = falls
        self.interrupt = interrupt
        self.seeds = []  # of each reset
        self.steps = 0
        self.actions = []

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.episode = np.zeros(self.num_envs, int)
        self.time = np.zeros(self.num_envs, int)
        self.over = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 4), np.float32), {}

    def step(self, action):
        self.actions.append(action.tolist())
        self.steps += 1
        if self.steps == self.interrupt:
            raise KeyboardInterrupt
        self.episode += self.over
        self.time = np.where(self.over, 0, self.time + 1)
        reset = len(self.seeds) - 1
        keys = [(reset, env, episode) for env, episode in enumerate(self.episode)]
        fell = np.array([self.falls.get(key) == t for key, t in zip(keys, self.time, strict=True)])
        limit = self.time == 4
        self.over = fell | limit
        return np.zeros((self.num_envs, 4), np.float32), -fell.astype(float), fell, limit, {}


@pytest.fixture
def told(monkeypatch):
    """told(falls, falls_in_tests): the environments for learning and for tests."""

    def told(falls=None, falls_in_tests=None, interrupt=None):
        envs = []
        courses = [(falls or {}, interrupt), (falls_in_tests or {}, None)]

        def make_vec(name, num_envs, **options):
            envs.append(Told(num_envs, *courses[len(envs)]))
            return envs[-1]

        monkeypatch.setattr(cartpole.gym, "make_vec", make_vec)
        return envs

    return told


def test_cartpole_full_tests_solve_the_task(told, monkeypatch, capsys):
    """Updates of two steps in three environments, of which the second falls in its third step.

    Full episodes end in step 4, but with a fall in the same update; then in step 8, after which
    the test fails, and in step 9, after which it is passed.
    """
    calls = []

    def watched(name):
        original = getattr(cartpole.Agent, name)

        def call(self, *arguments):
            calls.append(name)
            return original(self, *arguments)

        return call

    for name in ("sample", "greedy", "learn"):
        monkeypatch.setattr(cartpole.Agent, name, watched(name))
    envs = told(falls={(0, 1, 0): 3}, falls_in_tests={(1, 3, 0): 2})
    config = cartpole.Config(seed=7, max_steps=4, num_envs=3, num_steps=2, solved_after=5)
    _, history = cartpole.train(config)
    assert [row.test_steps for row in history] == [None, None, None, 2, 4]
    assert [row.passed for row in history] == [False, False, False, False, True]
    assert [row.episodes for row in history] == [0, 3, 3, 4, 6]
    learning = np.cumsum([6, 3 + 2, 1 + 3, 3 + 3, 2 + 1])  # without resets
    tests = 5 * np.cumsum([0, 0, 0, 2, 4])
    assert [row.env_steps for row in history] == (learning + tests).tolist()
    update = ["sample", "sample", "learn"]
    assert calls == [*update * 4, *["greedy"] * 2, *update, *["greedy"] * 4]
    assert [env.num_envs for env in envs] == [3, 5]
    assert envs[0].seeds == [7] and envs[1].seeds == [8, None, None]  # new episodes in each test
    # Both tests are printed, that which solves too
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["update", "4", "5"]
    assert lines[-1].split()[-2:] == ["4", str(history[-1].env_steps)]
    assert len({len(line) for line in lines}) == 1


def test_cartpole_a_fall_in_the_last_step_fails_the_test(told):
    told(falls_in_tests={(1, 0, 0): 4})
    config = cartpole.Config(max_steps=4, num_envs=3, num_steps=4, solved_after=2, steps=20)
    _, history = cartpole.train(config)
    assert (history[0].test_steps, history[0].passed) == (4, False)


@pytest.mark.parametrize("at", [1, 6])
def test_cartpole_what_train_returns_can_be_used_freely(at, told, capsys):
    """After Ctrl-C too: copied, pickled, written as JSON."""
    told(interrupt=at)
    agent, history = cartpole.train(cartpole.Config(max_steps=4, num_envs=3, num_steps=3))
    assert len(history) == (at - 1) // 3
    assert capsys.readouterr().out.endswith("Interrupted: what was learned is kept.\n")
    twins = (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent)))
    assert all(type(twin) is cartpole.Agent for twin in twins)
    for row in history:
        assert json.loads(json.dumps(row._asdict()))["update"] == row.update


def test_cartpole_seed_decides_everything():
    runs = [cartpole.train(cartpole.Config(seed=seed, steps=3000)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_cartpole_the_seed_sets_network_and_actions(told):
    """Each of them, by itself: the environment here has no chance in it, and nothing is learned."""
    actions = []
    weights = []
    for seed in (5, 5, 6):
        envs = told(falls={(0, env, n): 3 for env in range(3) for n in range(100)})
        config = cartpole.Config(seed=seed, steps=100, num_envs=3, learning_rate=0)
        agent, _ = cartpole.train(config)
        assert torch.initial_seed() == seed
        actions.append(envs[0].actions)
        weights.append(agent.network.hidden1.weight)
    assert actions[0] == actions[1] != actions[2]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_cartpole_is_greedy_where_it_does_not_learn():
    agent = cartpole.Agent(cartpole.Config(), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    likeliest = agent.network(torch.from_numpy(states))[0].argmax(1).numpy()
    before = torch.get_rng_state()
    assert np.array_equal(agent.greedy(states), likeliest)
    assert agent.greedy(states[0]).item() == likeliest[0]
    assert torch.equal(torch.get_rng_state(), before)
