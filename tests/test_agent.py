"""Targets, updates, networks and the training loop against short independent versions."""

import copy
import json
import pickle
import types

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CARTPOLE_NAMES, Q_NAMES, scripts

import dqn_cartpole as dqn
import dueling_cartpole as dueling
import per_cartpole as per

TWO = scripts("dqn_cartpole", "per_cartpole")  # for what is the same in all four

# Settings: what the scripts are, written down a second time
COMMON = {"seed": 0, "max_steps": 200, "solved_after": 20, "gamma": 0.99}
Q = COMMON | {
    "episodes": 500,
    "learning_rate": 5e-3,
    "batch_size": 128,
    "memory_size": 10_000,
}
Q |= {"hidden_size": 64, "epsilon": 0.1, "tau": 0.1, "q_limit": 1.0}
PER = Q | {"alpha": 0.6, "beta": 0.4, "beta_steps": 5000, "priority_epsilon": 1e-4}
PER |= {"uniform_steps": 0}
A2C = COMMON | {"steps": 500_000, "num_envs": 16, "num_steps": 5, "learning_rate": 5e-3}
A2C |= {"hidden_size": 64, "value_coef": 0.5, "entropy_coef": 3e-3, "max_grad_norm": 0.5}
DEFAULTS = dict.fromkeys(Q_NAMES, Q) | {"per_cartpole": PER, "a2c_cartpole": A2C}


@scripts(*CARTPOLE_NAMES)
def test_the_defaults(script):
    config = script.Config()
    assert vars(config) == DEFAULTS[script.NAME]
    agent = script.Agent(config, 4, 2)
    used = agent.optimizer.defaults
    assert type(agent.optimizer) is torch.optim.Adam and used["fused"]
    assert used["lr"] == config.learning_rate and used["betas"] == (0.9, 0.999)
    assert used["eps"] == (1e-5 if script.NAME == "a2c_cartpole" else 1e-8)
    assert used["weight_decay"] == 0 and not used["amsgrad"]
    network = getattr(agent, "q_network", None) or agent.network
    (group,) = agent.optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]


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
        agent.memory.update_priorities(np.arange(count), rng.random(count))
    return agent


@pytest.mark.parametrize("limit", [100, 0.2])
@scripts(*Q_NAMES)
def test_td_target_is_the_equation(script, limit):
    """With next values as they are, and clipped."""
    agent = random_memory(script, script.Config(gamma=0.9, q_limit=limit))
    agent.q_network = torch.nn.Linear(4, 2, bias=False)  # values of either sign
    agent.target_network = torch.nn.Linear(4, 2, bias=False)
    batch = agent.memory.sample(50)
    with torch.no_grad():
        q = agent.q_network(batch.next_state).numpy()
        target = agent.target_network(batch.next_state).numpy()
    chosen = target.argmax(1) if script is dqn else q.argmax(1)
    next_value = target[np.arange(50), chosen]
    assert next_value.min() < -0.2 and next_value.max() > 0.2  # else a bound would not be tested
    next_value = np.minimum(np.maximum(next_value, -limit), limit)
    expected = batch.reward.numpy() + 0.9 * (1 - batch.terminated.numpy()) * next_value
    result = agent.td_target(batch)
    assert result.shape == (50,) and not result.requires_grad
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert (q.argmax(1) != target.argmax(1)).any()  # else the two rules could not be told apart


@scripts(*Q_NAMES)
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
    for p in agent.q_network.parameters():
        p.grad = torch.ones_like(p)  # of the update before: counts no more
    assert agent.learn() == pytest.approx(loss.item(), rel=1e-5)
    for old, new, gradient in zip(before, agent.q_network.parameters(), gradients, strict=True):
        expected = old - 0.01 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(new.detach(), expected, rtol=1e-3, atol=1e-5)
    networks = (agent.target_network.parameters(), agent.q_network.parameters())
    for old, target, q in zip(old_target, *networks, strict=True):
        torch.testing.assert_close(target, 0.9 * old + 0.1 * q)
    if script is per:
        td_error = error.detach().abs().numpy().astype(float)
        priority = (td_error + config.priority_epsilon) ** config.alpha
        np.testing.assert_allclose(agent.memory.tree[batch.index], priority, rtol=1e-3)


@scripts("dqn_cartpole", "dueling_cartpole")
def test_act_is_greedy_and_epsilon_is_its_probability(script):
    agent = script.Agent(script.Config(epsilon=0.4), 4, 2)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    greedy = agent.q_network(torch.from_numpy(states)).argmax(1).numpy()
    assert np.array_equal(agent.greedy(states), greedy)
    assert np.array_equal(agent.greedy(states.reshape(5, 100, 4)), greedy.reshape(5, 100))
    before = torch.get_rng_state()
    assert [agent.act(state, explore=False) for state in states] == greedy.tolist()
    assert torch.equal(torch.get_rng_state(), before)  # a greedy action draws no random number
    state = states[0]
    others = [agent.act(state, explore=True) != greedy[0] for _ in range(4000)]
    assert abs(np.mean(others) - 0.2) < 0.03  # half of the random actions are the greedy one


@TWO
def test_act_returns_a_whole_number_of_python(script):
    """Environments such as FrozenLake look actions up in a dictionary."""
    agent = script.Agent(script.Config(epsilon=0.5), 4, 3)
    state = np.ones(4, np.float32)
    explored = [agent.act(state, explore=True) for _ in range(200)]
    assert {type(action) for action in [*explored, agent.act(state, explore=False)]} == {int}
    assert [{0: "left", 1: "down", 2: "right"}[action] for action in explored]
    assert set(explored) == {0, 1, 2}


def test_dueling_advantage_has_mean_zero_and_value_is_the_mean():
    torch.manual_seed(0)
    network = dueling.QNetwork(4, 16, 5)
    states = torch.randn(7, 4)
    hidden = network.hidden2(network.hidden1(states).relu()).relu()
    q = network(states)
    assert q.shape == (7, 5)
    torch.testing.assert_close(q.mean(1, keepdim=True), network.value(hidden))
    advantage = network.advantage(hidden)
    expected = advantage - advantage.mean(1, keepdim=True)
    torch.testing.assert_close(q - q.mean(1, keepdim=True), expected)
    with torch.no_grad():
        network.advantage.bias += 10  # what is added to every advantage is not seen in Q
    torch.testing.assert_close(network(states), q)


class Scripted(gym.Env):
    """Episodes that end as told: those in `falls`, counted from 0, by a fall in step 2.

    The others reach the limit, step 4. In step 2 of the episode `interrupt` comes Ctrl-C.
    """

    observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, falls=(), interrupt=None):
        self.falls = falls
        self.interrupt = interrupt
        self.episode = -2  # train resets once more than it plays, to set the seed
        self.seeds = []
        self.actions = []

    def observation(self):
        return np.array([self.episode, self.time, 0, 0], np.float32)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.episode += 1
        self.time = 0
        return self.observation(), {}

    def step(self, action):
        self.actions.append(action)
        self.time += 1
        if self.episode == self.interrupt and self.time == 2:
            raise KeyboardInterrupt
        fell = self.episode in self.falls and self.time == 2
        return self.observation(), -float(fell), fell, self.time == 4, {}


@pytest.fixture
def scripted(script, monkeypatch):
    """scripted(...): the environment that the script will make."""

    def scripted(*arguments, **options):
        env = Scripted(*arguments, **options)
        monkeypatch.setattr(script.gym, "make", lambda *_, **__: env)
        return env

    return scripted


@TWO
def test_training_stores_falls_as_ends_and_the_limit_not(script, scripted):
    """In episodes of learning (0 to 2) and in a test (3)."""
    scripted(falls=[0, 1, 3])
    agent, history = script.train(script.Config(episodes=4))
    assert [row.steps for row in history] == [2, 2, 4, 2]
    assert [row.test for row in history] == [False, False, False, True]
    assert [row.env_steps for row in history] == [2, 4, 8, 10]
    memory = agent.memory
    assert len(memory) == 10
    assert memory.terminated[:10].nonzero()[0].tolist() == [1, 3, 9]
    assert np.array_equal(memory.reward[:10], -memory.terminated[:10])
    # every next state is the one that followed, never the first of the next episode
    assert np.array_equal(memory.next_state[:10, 0], memory.state[:10, 0])
    assert np.array_equal(memory.next_state[:10, 1], memory.state[:10, 1] + 1)


@TWO
def test_torch_computes_with_one_thread(script):
    torch.set_num_threads(2)
    script.train(script.Config(episodes=1))
    assert torch.get_num_threads() == 1


@TWO
def test_only_a_fall_pays_and_ends(script, monkeypatch):
    """On the real CartPole: two episodes of pushing left, which fall, then two up to the limit."""
    cartpole = type(gym.make("CartPole-v1").unwrapped)
    reset = cartpole.reset
    resets = []

    def counted_reset(self, *, seed=None, options=None):
        resets.append(1)
        return reset(self, seed=seed, options=options)

    def act(self, state, explore):
        balance = state[2] + 0.3 * state[3] > 0
        return int(len(resets) > 3 and balance)  # the first reset sets the seed

    monkeypatch.setattr(cartpole, "reset", counted_reset)
    monkeypatch.setattr(script.Agent, "act", act)
    monkeypatch.setattr(script.Agent, "learn", lambda self: 0.0)
    agent, history = script.train(script.Config(episodes=4, max_steps=50))
    assert [row.steps for row in history[2:]] == [50, 50]
    assert max(row.steps for row in history[:2]) < 12
    falls = [row.env_steps - 1 for row in history[:2]]
    count = history[-1].env_steps
    assert agent.memory.terminated[:count].nonzero()[0].tolist() == falls
    assert np.array_equal(agent.memory.reward[:count], -agent.memory.terminated[:count])


@TWO
def test_updates_come_at_every_step_once_a_batch_is_there(script, monkeypatch):
    """One a step; the history has the mean loss of each episode's updates."""
    calls = []

    def learn(self):
        calls.append(len(self.memory))
        return float(len(calls) ** 2)

    monkeypatch.setattr(script.Agent, "learn", learn)
    _, history = script.train(script.Config(episodes=4, batch_size=10))
    assert calls == list(range(10, history[-1].env_steps + 1))
    before = 0
    for row in history:
        own = [k**2 for k, size in enumerate(calls, 1) if before < size <= row.env_steps]
        assert row.loss == (pytest.approx(np.mean(own)) if own else None)
        before = row.env_steps


# falls, then what each episode is: L learns, T tests; what counts is three full tests in a row
RULE = [
    ([], "LTTT"),
    ([0, 2], "LLT LTTT"),  # 2: a fall in the first test
    ([3], "LTT T LTTT"),  # a fall after two full tests: they count no more
    ([1, 2, 3], "LT L L LTTT"),
    ([2, 5], "LT T LT T LTTT"),
]


@pytest.mark.parametrize("falls, kinds", RULE)
@TWO
def test_full_tests_in_a_row_solve_the_task(script, falls, kinds, scripted, monkeypatch, capsys):
    """A full episode is followed by tests, which neither learn nor explore, until a fall."""
    kinds = kinds.replace(" ", "")
    env = scripted(falls=falls)
    explored = []
    learned = []

    def act(self, state, explore):
        explored.append((env.episode, explore))
        return 0

    def learn(self):
        learned.append(env.episode)
        return 1.0

    monkeypatch.setattr(script.Agent, "act", act)
    monkeypatch.setattr(script.Agent, "learn", learn)
    config = script.Config(max_steps=4, batch_size=1, solved_after=3)
    _, history = script.train(config)
    lengths = [2 if episode in falls else 4 for episode in range(len(kinds))]
    each_step = np.repeat(np.arange(len(kinds)), lengths).tolist()
    assert [row.episode for row in history] == [*range(1, len(kinds) + 1)]
    assert "".join("T" if row.test else "L" for row in history) == kinds
    assert [row.steps for row in history] == lengths
    assert [row.env_steps for row in history] == np.cumsum(lengths).tolist()
    assert explored == [(episode, kinds[episode] == "L") for episode in each_step]
    assert learned == [episode for episode in each_step if kinds[episode] == "L"]
    assert [row.loss for row in history] == [None if kind == "T" else 1.0 for kind in kinds]
    row = 0
    for episode, line in enumerate(history):
        row = row + 1 if line.test and episode not in falls else 0
        assert line.full_tests == row
    assert row == 3
    # The line that solves is printed, whichever it is
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == [str(len(kinds)), "4", "test", "-", "3", str(sum(lengths))]


@TWO
def test_every_tenth_line_is_printed(script, scripted, capsys):
    scripted(falls=range(100))
    script.train(script.Config(episodes=25))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["episode", "10", "20"]
    assert len({len(line) for line in lines}) == 1


@TWO
def test_evaluation_counts_each_first_episode_once(script):
    always_left = types.SimpleNamespace(greedy=lambda state: np.zeros(len(state), int))
    steps = script.evaluate(always_left, script.Config(), seed=5)
    env = gym.make_vec("CartPole-v1", num_envs=100)
    env.reset(seed=5)
    fell = np.array([env.step(np.zeros(100, int))[2] for _ in range(15)])  # (15, 100)
    assert np.array_equal(steps, fell.argmax(0) + 1) and steps.min() < steps.max() < 15

    def balance(state):
        return (state[:, 2] + 0.3 * state[:, 3] > 0).astype(int)

    forever = types.SimpleNamespace(greedy=balance)
    assert (script.evaluate(forever, script.Config(max_steps=50), seed=5) == 50).all()
    assert script.evaluate(forever, script.Config(max_steps=9), 5, episodes=3).tolist() == [9] * 3


@TWO
def test_the_seed_decides_everything(script):
    """In one process, whatever ran before: the same seed twice, and another."""
    runs = [script.train(script.Config(seed=seed, episodes=12)) for seed in (1, 1, 2)]
    histories = [repr(history) for _, history in runs]
    assert histories[0] == histories[1] != histories[2]
    a, b = (agent.q_network.state_dict() for agent, _ in runs[:2])
    assert all(torch.equal(a[key], b[key]) for key in a)


@TWO
def test_the_seed_sets_networks_exploration_and_environment(script, scripted):
    """Each of them, by itself: the environment here has no chance in it, and nothing is learned."""
    actions = []
    weights = []
    for seed in (5, 5, 6):
        env = scripted(falls=range(100))
        config = script.Config(seed=seed, episodes=20, epsilon=1, learning_rate=0)
        agent, _ = script.train(config)
        assert torch.initial_seed() == seed
        assert env.seeds == [seed] + [None] * 20  # later episodes start elsewhere
        actions.append(env.actions)
        weights.append(agent.q_network.hidden1.weight)
    assert actions[0] == actions[1] != actions[2] and set(actions[0]) == {0, 1}
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("at", [0, 2])
@TWO
def test_what_train_returns_can_be_used_freely(script, at, scripted, capsys):
    """After Ctrl-C too: copied, pickled, written as JSON."""
    scripted(falls=[0], interrupt=at)
    agent, history = script.train(script.Config(batch_size=1))
    assert len(history) == at
    assert capsys.readouterr().out.endswith("Interrupted: what was learned is kept.\n")
    for twin in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert len(twin.memory) == len(agent.memory) > 0
    for row in history:
        assert json.loads(json.dumps(row._asdict()))["episode"] == row.episode
