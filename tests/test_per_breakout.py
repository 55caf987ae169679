"""Prioritized replay on Breakout: the memory against plain lists, the switches, the outside."""

import copy
import csv
import difflib
import inspect
import json
import os
import re
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, Scripted
from PIL import Image

import a2c_breakout
import per_cartpole

sys.path.insert(0, str(ROOT / "extras"))
import per_breakout as per
from per_breakout import Agent, Config, ReplayMemory

STOPPED = ["checkpoint.pth", "history.csv", "learning_curve.png", "summary.json", "weights.pth"]
TRAINED = sorted([*STOPPED, "play.gif", "scores.csv"])


@pytest.fixture
def scripted(monkeypatch):
    """Let all games be scripted; returns the environments that are made."""
    made = []

    def make_env(num_envs, max_frames):
        made.append(Scripted(num_envs, np.random.default_rng(0)))
        return made[-1]

    monkeypatch.setattr(per, "make_env", make_env)
    return made


@pytest.fixture
def memories(monkeypatch):
    """The replay memories that trainings make."""
    made = []

    def make(config):
        made.append(ReplayMemory(config))
        return made[-1]

    monkeypatch.setattr(per, "ReplayMemory", make)
    return made


def play(monkeypatch, config, steps, seed=0):
    """Fill a memory from scripted games; return it, and what plain lists say it holds.

    The list has a transition for each step and game that is one, in the order of the memory:
    {(step, game): (state, action, n-step reward, next state, discount)}.
    """
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(per, "make_env", lambda n, frames: Scripted(n, rng))
    games = per.Games(config.num_envs, seed, 0, config.fire)
    memory = ReplayMemory(config)
    track = [[] for _ in range(config.num_envs)]  # of each game: (state, action, reward, ends...)
    pictures = [[frame] for frame in games.state[:, -1]]  # of this life
    for _ in range(steps):
        frame = games.state[:, -1]
        states = [np.array([np.zeros_like(frame[0])] * 3 + p)[-4:] for p in pictures]
        assert all(np.array_equal(a, b) for a, b in zip(states, games.state, strict=True))
        reward, *ends = games.step(rng.integers(4, size=config.num_envs))
        memory.push(frame, games.action, reward, *ends)
        for game in range(config.num_envs):
            terminated, truncated, valid = (bool(end[game]) for end in ends)
            step = (states[game], games.action[game], reward[game], terminated, truncated, valid)
            track[game].append(step)
            if terminated or not valid:
                pictures[game] = []
            pictures[game].append(games.state[game, -1])
    expected = {}
    rows = config.memory_size // config.num_envs
    for game, path in enumerate(track):
        for t in range(max(0, steps - rows + 3 * (steps > rows)), steps - config.n_step):
            if path[t][-1]:
                total, discount, k = 0.0, 1.0, t
                while True:
                    total += discount * path[k][2]
                    discount *= config.gamma
                    if path[k][3]:
                        discount = 0.0
                    k += 1
                    if path[k - 1][3] or path[k - 1][4] or k == t + config.n_step:
                        break
                expected[t, game] = *path[t][:2], total, path[k][0], discount
    return memory, expected


def drawn(memory):
    """Return {(step, game): transition} of all leaves with a priority, through sample()."""
    leaves = np.flatnonzero(memory.tree[np.arange(memory.valid.size)])
    memory.tree.find = lambda value: leaves
    batch = memory.sample(len(leaves), 0.5)
    rows = memory.valid.shape[0]
    found = {}
    for i, leaf in enumerate(leaves):
        row, game = divmod(int(leaf), memory.config.num_envs)
        step = row + (memory.pushed - 1 - row) // rows * rows
        found[step, game] = tuple(column[i].numpy() for column in batch[:5])
    return found


def fill(memory, rows):
    """Push steps in which nothing happens."""
    n = memory.config.num_envs
    no = np.zeros(n, bool)
    for _ in range(rows):
        memory.push(np.zeros((n, 84, 84), np.uint8), np.zeros(n, int), np.zeros(n), no, no, ~no)


# The memory


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 9, 30, 31, 50, 100, 151])
def test_the_memory_against_plain_lists_of_stacks(monkeypatch, n_step, steps):
    """Lost lives, ends, cuts and resets at every position; the memory has 40 rows and wraps."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, n_step=n_step, gamma=0.9)
    for seed in range(3):
        memory, expected = play(monkeypatch, config, steps, seed)
        assert len(memory) == min(200, 5 * steps)
        if steps <= n_step:
            assert not expected and memory.tree.total() == 0
            continue
        found = drawn(memory)
        assert found.keys() == expected.keys()
        for key, (state, action, reward, next_state, discount) in expected.items():
            assert np.array_equal(found[key][0], state) and found[key][1] == action
            assert found[key][2] == pytest.approx(reward, rel=1e-6)
            assert found[key][4] == pytest.approx(discount, rel=1e-6)
            if discount:
                assert np.array_equal(found[key][3], next_state), key


def test_tree_draws_weights_and_target_are_those_of_cartpole():
    """Tree and draws to the letter; weights and targets in numbers, of one step, two networks."""
    pairs = [(per.SumTree, per_cartpole.SumTree)]
    pairs.append((ReplayMemory.draw, per_cartpole.ReplayMemory.draw))
    for ours, theirs in pairs:
        assert inspect.getsource(ours) == inspect.getsource(theirs)
    rng = np.random.default_rng(0)
    config = Config(num_envs=4, memory_size=100, learn_start=50, n_step=1, bfloat16=False)
    ours = ReplayMemory(config)
    theirs = per_cartpole.ReplayMemory(per_cartpole.Config(memory_size=100, batch_size=32), 4)
    fill(ours, 25)
    for leaf, priority in enumerate(rng.random(100)):
        theirs.push(np.zeros(4), 0, 0, np.zeros(4), False)
        ours.tree[leaf] = priority
        theirs.tree[leaf] = priority
    theirs.config.beta_steps = 200  # half of them are done
    index = np.arange(0, 100, 7)
    np.testing.assert_allclose(ours.weights(index, 0.5), theirs.weights(index), rtol=1e-9)
    for memory in (ours, theirs):
        memory.config.alpha = 0.7
        memory.config.priority_epsilon = 0.02
        memory.update_priorities(index, np.linspace(-3, 3, len(index)))
    assert np.array_equal(ours.tree.nodes, theirs.tree.nodes)
    assert ours.max_priority == theirs.max_priority > 2

    agent = Agent(config)
    for p in agent.target_network.parameters():
        p.data += 0.02 * torch.randn_like(p)
    states = torch.from_numpy(rng.integers(256, size=(6, 4, 84, 84), dtype=np.uint8))
    reward = torch.rand(6)
    terminated = torch.tensor([0.0, 1, 0, 0, 1, 0])
    batch = per.Batch(states, None, reward, states, 0.9 * (1 - terminated), None, None)
    other = SimpleNamespace(
        config=SimpleNamespace(gamma=0.9, q_limit=1e9),
        q_network=agent.q_network,
        target_network=agent.target_network,
    )
    same = SimpleNamespace(next_state=states, reward=reward, terminated=terminated)
    double = per_cartpole.Agent.td_target(other, same)
    torch.testing.assert_close(agent.td_target(batch), double)
    agent.config.double = False
    single = reward + 0.9 * (1 - terminated) * agent.target_network(states).amax(1).detach()
    torch.testing.assert_close(agent.td_target(batch), single)
    assert not torch.allclose(double, single)


def test_the_switches():
    """alpha 0 draws all alike; beta 0 has no weights; dueling: mean advantage 0, one value more."""
    config = Config(num_envs=4, memory_size=100, learn_start=50, alpha=0, beta=0, n_step=1)
    memory = ReplayMemory(config)
    fill(memory, 25)
    memory.update_priorities(np.arange(20, 28), np.linspace(0, 9, 8))
    leaves = memory.tree[np.arange(100)]
    assert set(leaves) == {0.0, 1.0} and leaves.sum() == 4 * (25 - 1 - 3)
    memory.tree[np.arange(50)] = 7.0
    assert all((memory.weights(np.arange(0, 80, 9), done) == 1).all() for done in (0.0, 0.5, 1))
    torch.manual_seed(0)
    plain = per.QNetwork(4)
    dueling = per.QNetwork(4, dueling=True)
    assert plain.head.out_features == 4 and dueling.head.out_features == 5
    assert Agent(Config(dueling=True)).q_network.head.out_features == 5
    states = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    value = dueling.head(dueling.conv(states / 255))[:, 0]
    assert dueling(states).shape == (3, 4)
    torch.testing.assert_close(dueling(states).mean(1), value, rtol=1e-3, atol=1e-4)


def test_beta_rises_to_1():
    memory = ReplayMemory(Config(num_envs=4, memory_size=100, learn_start=50, n_step=1))
    fill(memory, 25)
    memory.tree[np.arange(100)] = np.linspace(0.1, 0.9, 100)
    index = np.array([0, 99])
    for share, beta in ((0, 0.4), (0.5, 0.7), (1, 1)):
        np.testing.assert_allclose(memory.weights(index, share), [1, 9**-beta], rtol=1e-9)


def test_a_sample_has_one_of_each_part_with_its_weights(monkeypatch):
    """And a transition that is new is as likely as the one that surprised most."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, n_step=1, alpha=0.5)
    memory, _ = play(monkeypatch, config, 30)
    memory.update_priorities(np.arange(20, 60), np.linspace(0, 9, 40))
    memory.update_priorities(np.arange(20, 30), np.zeros(10))
    ready = (memory.pushed - 1) * 5 + np.arange(5)  # their next state is the one pushed now
    fill(memory, 1)
    assert memory.max_priority == pytest.approx(9.01)
    assert set(memory.tree[ready]) <= {0.0, memory.max_priority**0.5} and memory.tree[ready].any()
    leaves = memory.tree[np.arange(200)]
    parts = np.arange(17) * leaves.sum() / 16
    above = np.cumsum(leaves)
    for _ in range(50):
        batch = memory.sample(16, 0.7)
        assert (above[batch.index] > parts[:-1] - 1e-9).all()
        assert (above[batch.index] - leaves[batch.index] < parts[1:] + 1e-9).all()
        np.testing.assert_allclose(batch.weight, memory.weights(batch.index, 0.7), 1e-6)


# The agent


def test_a_batch_learns_what_autograd_by_hand_says(monkeypatch):
    """One update: weights outside the loss, new priorities, a clipped gradient."""
    config = Config(num_envs=5, memory_size=200, learn_start=100, batch_size=8)
    config.bfloat16 = False
    config.alpha = 0.7
    config.max_grad_norm = 1e-4
    agent = Agent(config)
    memory, _ = play(monkeypatch, config, 30)
    batches = []
    sample = memory.sample
    memory.sample = lambda *a: batches.append(sample(*a)) or batches[-1]
    q0 = copy.deepcopy(agent.q_network)
    memory.tree[np.arange(200)] = memory.tree[np.arange(200)] * np.linspace(1, 9, 200)
    for p in agent.q_network.parameters():
        p.grad = torch.ones_like(p)  # of the update before: counts no more
    loss = agent.learn(memory, 0.3)
    batch = batches[0]
    target = batch.reward + batch.discount * q0(batch.next_state).amax(1).detach()
    delta = target - q0(batch.state).gather(1, batch.action).squeeze(1)
    huber = torch.where(delta.abs() < 1, delta**2 / 2, delta.abs() - 0.5)
    by_hand = (batch.weight * huber).mean()
    assert loss == pytest.approx(by_hand.item(), rel=1e-4)
    assert batch.weight.max() == 1 and batch.weight.min() < 1
    wanted = (delta.abs().detach().numpy() + 0.01) ** 0.7
    last = {int(i): p for i, p in zip(batch.index, wanted, strict=True)}  # drawn twice: the last
    np.testing.assert_allclose(memory.tree[np.array(list(last))], list(last.values()), 1e-3)
    same = [torch.equal(a, b) for a, b in zip(q0.parameters(), agent.target_network.parameters())]
    assert all(same)
    gradient = [g.flatten() for g in torch.autograd.grad(by_hand, q0.parameters())]
    wanted = torch.nn.functional.normalize(torch.cat(gradient), dim=0) * 1e-4  # clipped
    means = [state["exp_avg"].flatten() for state in agent.optimizer.state.values()]
    torch.testing.assert_close(torch.cat(means) / 0.1, wanted, rtol=1e-2, atol=1e-8)


def test_conversions_to_bfloat16_are_saved_without_changing_a_number(monkeypatch):
    """Values are those of float32 weights and pictures that autocast converts at each use."""
    monkeypatch.setattr(per, "cpu_has_bfloat16", lambda: True)
    agent = Agent(Config())
    dtypes = {weight.dtype for weight in agent.target_network.conv.parameters()}
    assert dtypes == {torch.bfloat16}
    assert agent.target_network.head.weight.dtype == torch.float32
    with torch.no_grad():
        for weight in agent.q_network.parameters():
            weight.add_(1e-3)
    agent.update_target()
    state = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    pictures = state.to(memory_format=torch.channels_last) / 255
    network = agent.q_network
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = network.conv(pictures)
    with torch.no_grad():
        wanted = network.head(hidden.float())
    seen = []
    network.conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    assert torch.equal(network(state), wanted)
    assert torch.equal(agent.target_network(state), wanted)
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("dueling", [False, True])
def test_actions_that_differ_by_little_are_told_apart(dueling, monkeypatch):
    """Values near 5 that differ by 0.001: bfloat16 would make them equal."""
    monkeypatch.setattr(per, "cpu_has_bfloat16", lambda: True)
    agent = Agent(Config(dueling=dueling))
    torch.nn.init.zeros_(agent.q_network.head.weight)
    values = torch.tensor([5.0, 5.001, 5.002, 5.001])
    advantages = torch.cat([values.mean().view(1), values - values.mean()])
    agent.q_network.head.bias.data = advantages if dueling else values
    state = np.ones((2, 4, 84, 84), np.uint8)
    assert agent.act(state, 0.0).tolist() == [2, 2]
    torch.testing.assert_close(agent.q_network(torch.from_numpy(state))[0], values)


def test_a_step_is_adams_with_the_eps_of_rainbow():
    """The first one is the rate times g / (|g| + eps): for g = eps half the rate."""
    agent = Agent(Config(learning_rate=0.02))
    before = agent.q_network.head.bias.detach().clone()
    for p in agent.q_network.parameters():
        p.grad = torch.full_like(p, 1.5e-4)
    agent.optimizer.step()
    moved = before - agent.q_network.head.bias.detach()
    torch.testing.assert_close(moved, torch.full((4,), 0.01), rtol=1e-4, atol=0)


def test_each_game_explores_by_its_own_chance():
    agent = Agent(Config())
    torch.nn.init.zeros_(agent.q_network.head.weight)
    agent.q_network.head.bias.data = torch.tensor([0.0, 0, 0, 1])
    states = np.ones((400, 4, 84, 84), np.uint8)
    assert (agent.act(states[:9], 0.0) == 3).all()
    many = agent.act(states, 0.5)
    assert 90 < (many != 3).sum() < 210 and set(many) == {0, 1, 2, 3}


def test_the_defaults():
    assert asdict(Config()) == {
        "seed": 0,
        "steps": 2_000_000,
        "num_envs": 8,
        "double": True,
        "dueling": False,
        "n_step": 3,
        "gamma": 0.99,
        "learning_rate": 2e-4,
        "max_grad_norm": 10.0,
        "batch_size": 32,
        "memory_size": 200_000,
        "learn_start": 20_000,
        "target_every": 250,
        "epsilon": 0.01,
        "epsilon_steps": 250_000,
        "alpha": 0.5,
        "beta": 0.4,
        "priority_epsilon": 0.01,
        "clip_rewards": True,
        "bfloat16": True,
        "fire": True,
        "max_frames": 108_000,
        "games": 10,
        "play_epsilon": 0.001,
        "checkpoint_every": 100_000,
    }


# The games


@pytest.mark.parametrize("fire", [True, False])
def test_the_games_are_those_of_a2c(monkeypatch, scripted, fire):
    """FIRE starts each life and nothing else; ends, lives and scores are the same, too.

    A life begins where a state has no older picture, and nowhere else.
    """
    make_env = lambda n, frames: Scripted(n, np.random.default_rng(0))  # noqa: E731
    monkeypatch.setattr(a2c_breakout, "make_env", make_env)
    ours = per.Games(5, 0, 0, fire)
    theirs = a2c_breakout.Games(5, 0, 0, fire)
    rng = np.random.default_rng(1)
    served = 0
    finished = []
    for _ in range(300):
        action = rng.choice([0, 2, 3], 5)
        begins = ours.life_begins
        assert np.array_equal(begins, ~ours.state[:, :3].any((1, 2, 3)))
        *played, valid = ours.step(action)
        *theirs_played, learned = theirs.step(action)
        assert all(map(np.array_equal, played, theirs_played))
        # A2C does not learn where the script serves
        assert np.array_equal(valid & ~(begins & fire), learned)
        assert np.array_equal(ours.action, np.where(begins & fire, 1, action))
        for name in ("seeds", "action", "lives", "life_begins", "ended", "score"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
        assert np.array_equal(ours.state[:, -1:], theirs.state)
        finished += ours.take_finished()
        served += begins.sum()
    assert served > 100
    assert finished == scripted[0].scores and len(finished) > 50


def test_the_games_are_prepared_as_for_a2c(monkeypatch):
    """All but the stacks, which the memory makes. (What A2C's are is tested beside the emulator.)"""
    for module in (per, a2c_breakout):
        monkeypatch.setattr(module, "AtariVectorEnv", lambda *a, **k: (a, k))
    for colour in (False, True):
        ours, theirs = (module.make_env(3, 777, colour) for module in (per, a2c_breakout))
        assert ours[1].pop("stack_num") == 1 and theirs[1].pop("stack_num") == (1 if colour else 4)
        assert ours == theirs


def test_play_tells_of_first_games_and_shows_the_first(monkeypatch, capsys):
    """With config.play_epsilon; the scores by hand; the pictures are of what was done in game 1."""
    made, shown, done, epsilons = [], [], [], []

    def make_env(num_envs, max_frames, colour=False):
        assert max_frames == 777 and num_envs == (1 if colour else 6)
        if not colour:
            made.append(Scripted(num_envs, np.random.default_rng(0)))
            return made[-1]
        picture = np.zeros((1, 1, 210, 160, 3), np.uint8)
        step = lambda action: shown.append(action.tolist()) or [picture] * 5  # noqa: E731
        return SimpleNamespace(reset=lambda seed: shown.append(seed.tolist()), step=step)

    class Noted(per.Games):
        def step(self, action):
            reward, *ends = super().step(action)
            done.append((self.action, reward.astype(int), made[0].over))
            return reward, *ends

    def act(state, epsilon):
        epsilons.append(epsilon)
        return rng.integers(4, size=len(state))

    monkeypatch.setattr(per, "make_env", make_env)
    monkeypatch.setattr(per, "Games", Noted)
    config = Config(games=6, max_frames=777, seed=4, play_epsilon=0.07)
    rng = np.random.default_rng(1)
    agent = SimpleNamespace(act=act)
    scores, pictures = per.play(agent, config)
    assert agent.rng.random() == np.random.default_rng([4, 3]).random()  # whatever was before
    lengths = [next(t for t, (*_, over) in enumerate(done, 1) if over[game]) for game in range(6)]
    expected = {
        game + 1: sum(int(reward[game]) for _, reward, _ in done[:length])
        for game, length in enumerate(lengths)
    }
    assert scores == expected and len(set(lengths)) > 2 and len(done) == max(lengths)
    assert set(epsilons) == {0.07} and len(epsilons) == len(done)
    out = capsys.readouterr().out
    assert f"6 games: mean {np.mean(list(expected.values())):.1f}, " in out
    first = [[action[0]] for action, *_ in done[: lengths[0]]]
    seeds = np.random.default_rng(4).integers(2**31, size=6)
    assert shown == [seeds[:1].tolist(), *first]
    assert len(pictures) == lengths[0] and pictures[0].size == (160, 210)


# The training


@pytest.mark.parametrize("clip", [True, False])
def test_a_training_explores_clips_and_counts_as_its_settings_say(
    monkeypatch, scripted, memories, clip
):
    """Epsilon falls by the steps; a brick is worth 1; resets are no steps; new games when resumed."""
    real = per.Games
    seeds, epsilons, learned = [], [], []

    def make_games(num_envs, seed, max_frames, fire):
        seeds.append(seed)
        return real(num_envs, 0, max_frames, fire)

    monkeypatch.setattr(per, "Games", make_games)
    config = Config(seed=3, steps=600, num_envs=5, memory_size=1000, learn_start=300)
    config.clip_rewards = clip
    config.epsilon_steps = 400
    config.epsilon = 0.2
    agent = Agent(config)
    progress = per.Progress()

    def act(state, epsilon):
        epsilons.append((progress.env_steps, epsilon))
        return np.zeros(len(state), int)

    def learn(memory, share):
        learned.append((len(memory), progress.env_steps, share))
        return 0.5

    agent.act = act
    agent.learn = learn
    per.train(config, agent, progress)
    reward, valid = memories[0].reward, memories[0].valid
    assert 600 <= progress.env_steps == valid.sum() < 605
    assert progress.scores == scripted[0].scores and len(progress.scores) > 10
    assert set(np.unique(reward)) == ({0, 1} if clip else set(range(8)))
    assert set(np.unique(memories[0].action)) == {0, 1}  # with FIRE, as it was done
    assert [n for n, *_ in learned] == list(range(300, len(memories[0]) + 1, 5))
    assert progress.updates == len(learned)
    assert all(share == min(1, n / 600) for _, n, share in learned)
    row = progress.history[-1]
    last = progress.scores[-100:]
    assert (row.env_steps, row.loss, row.games) == (progress.env_steps, 0.5, len(progress.scores))
    assert (row.mean, row.min, row.max) == (np.mean(last), min(last), max(last))
    config.steps = 620
    per.train(config, agent, progress)
    assert len(memories) == 2 and memories[1].pushed < 10  # no state joins old games and new ones
    assert 620 <= progress.env_steps < 625
    assert all(e == pytest.approx(max(0.2, 1 - n / 400)) for n, e in epsilons)
    assert seeds == [[3, 0, 1], [3, row.env_steps, 1]]


def test_the_target_network_is_copied_every_so_many_updates(monkeypatch, scripted):
    config = Config(num_envs=5, steps=300, memory_size=200, learn_start=100, target_every=7)
    agent = Agent(config)
    first = agent.target_network.head.bias.detach().clone()
    run_step = per.run_step
    seen = []

    def learn(memory, share):
        agent.q_network.head.bias.data += 1
        return 0.0

    def noted(agent, games, memory, progress):
        loss = run_step(agent, games, memory, progress)
        copied = (agent.target_network.head.bias.detach() - first)[0].item()
        seen.append((progress.updates, round(copied)))
        return loss

    agent.learn = learn
    monkeypatch.setattr(per, "run_step", noted)
    per.train(config, agent)
    assert seen[-1][0] > 30
    assert all(copied == updates // 7 * 7 for updates, copied in seen), seen


def test_a_resumed_training_skips_no_line_of_its_history(monkeypatch, scripted):
    """Of 16,000 steps each, whatever the last line before was; None where there is no number."""
    config = Config(steps=33_000, num_envs=32, memory_size=640, learn_start=600, epsilon=1.0)
    agent = Agent(config)
    agent.act = lambda state, epsilon: np.zeros(len(state), int)
    agent.learn = lambda memory, share: 0.0
    progress = per.Progress(env_steps=20_000)
    progress.history = [per.Update(n, 0, None, None, None, None) for n in (16_020, 20_000)]
    per.train(config, agent, progress)
    assert [row.env_steps // 1000 for row in progress.history] == [16, 20, 32, 33]
    first = per.Progress(env_steps=8)
    first.record()
    first.record()  # nothing new
    assert first.history == [per.Update(8, 0, None, None, None, None)]


def test_what_a_checkpoint_brings_back(scripted, tmp_path):
    """Both networks, the optimizer, the counts and both random streams."""
    config = Config(num_envs=5, steps=300, memory_size=200, learn_start=100, batch_size=8)
    config.target_every = 7
    path = tmp_path / "checkpoint.pth"
    agent, progress = per.train(config, checkpoint=path)
    state = np.ones((50, 4, 84, 84), np.uint8)
    action = agent.act(state, 0.9)
    random = torch.rand(3)
    again_config, again, again_progress = per.load_checkpoint(path, {"steps": 400})
    assert np.array_equal(again.act(state, 0.9), action) and torch.equal(torch.rand(3), random)
    for name in ("q_network", "target_network", "optimizer"):
        a, b = (getattr(x, name).state_dict() for x in (agent, again))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    pair = agent.q_network.head.weight, agent.target_network.head.weight
    assert not torch.equal(*pair) and agent.optimizer.state
    assert again_progress == progress and progress.updates > 0
    assert asdict(again_config) == asdict(config) | {"steps": 400}


def test_checkpoints_are_written_at_once_and_in_time(monkeypatch, scripted, tmp_path):
    """And one that can't be written does not end the training."""
    config = Config(num_envs=5, steps=300, memory_size=400, learn_start=390, checkpoint_every=100)
    path = tmp_path / "checkpoint.pth"
    at = []
    monkeypatch.setattr(per, "save_checkpoint", lambda *a: at.append(a[2].env_steps))
    per.train(config, checkpoint=path)
    assert [n // 100 for n in at] == [0, 1, 2, 3, 3] and at[0] == 0
    monkeypatch.undo()
    monkeypatch.setattr(per.torch, "save", lambda *a: int("disk full"))
    with pytest.raises(ValueError):
        per.save_checkpoint(path, Agent(config), per.Progress())
    for error in (OSError("disk full"), RuntimeError("disk full")):

        def save(content, path, error=error):
            raise error

        monkeypatch.setattr(per.torch, "save", save)
        per.save_checkpoint(path, Agent(config), per.Progress())


@pytest.mark.slow
def test_the_seed_decides_everything():
    settings = {"steps": 240, "num_envs": 4, "learn_start": 160, "memory_size": 400}
    settings |= {"batch_size": 4, "max_frames": 100}
    trained = [per.train(Config(**settings, seed=seed)) for seed in (1, 1, 2)]
    weights = [torch.cat([p.flatten() for p in a.q_network.parameters()]) for a, _ in trained]
    (_, a), (_, b), _ = trained
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.scores == b.scores and a.history == b.history and a.updates == b.updates > 0


class Signal:
    """Stands for AtariVectorEnv: the bright half of the picture says which of two actions pays."""

    def __init__(self, num_envs):
        self.rng = np.random.default_rng(0)
        self.lives = np.full(num_envs, 5)

    def observe(self):
        self.side = self.rng.integers(2, size=len(self.lives))
        frame = np.zeros((len(self.lives), 1, 84, 84), np.uint8)
        for i, side in enumerate(self.side):
            frame[i, 0, :, 42 * side : 42 * side + 42] = 255
        return frame

    def reset(self, seed):
        return self.observe(), {"lives": self.lives}

    def step(self, action):
        reward = np.int64(action == self.side + 1)
        no = np.zeros(len(self.lives), bool)
        return self.observe(), reward, no, no, {"lives": self.lives}


OTHERS = {"dueling": True, "double": False, "alpha": 0.0, "beta": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("switches", [{}, OTHERS])
def test_it_learns_what_pays(monkeypatch, switches):
    """States, actions and rewards belong together from the games to the network."""
    monkeypatch.setattr(per, "make_env", lambda n, frames: Signal(n))
    settings = {"steps": 2000, "num_envs": 8, "batch_size": 16, "memory_size": 2000}
    settings |= {"learn_start": 200, "epsilon_steps": 1000, "target_every": 20, "n_step": 1}
    config = Config(**settings, gamma=0.5, learning_rate=1e-3, **switches)
    agent, progress = per.train(config)
    env = Signal(8)
    right = 0
    frame = env.observe()
    state = np.zeros((8, 4, 84, 84), np.uint8)
    for _ in range(25):
        state = np.concatenate([state[:, 1:], frame], 1)
        frame, reward, *_ = env.step(agent.act(state, 0.0))
        right += reward.sum()
    assert right > 190, right
    assert progress.history[-1].env_steps == 2000 and progress.history[-1].mean is None


# The outside

SHORT = ["--steps", 1200, "--num-envs", 8, "--learn-start", 400, "--batch-size", 8]
SHORT += ["--epsilon-steps", 400, "--games", 1, "--memory-size", 2000, "--max-frames", 400]


def test_what_a2c_breakout_has_too_is_the_same_to_the_letter():
    same = "setting cpu_has_bfloat16 plot animate save_table show fail reading set_threads"
    for name in [
        *same.split(),
        "play_and_save",
        "run_play",
        "Games.take_finished",
        "Progress.mean_score",
    ]:
        a, b = (inspect.getsource(find(module, name)) for module in (per, a2c_breakout))
        assert a == b, name
    close = (
        "Config.__post_init__ Games.__init__ Games.step make_env Progress.record play save_training"
    )
    for name in [*close.split(), "load_weights", "save_checkpoint", "load_checkpoint"]:
        assert len(changes(name)) <= 10, changes(name)
    for name, most in (("parse", 6), ("main", 8)):  # main: torchrun's processes are there alone
        assert len(changes(name)) <= most, changes(name)


def find(module, name):
    """Return what is called so, such as Games.step, in a module."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


def changes(name):
    """Return the lines in which the two scripts differ."""
    a, b = (inspect.getsource(find(m, name)).splitlines() for m in (per, a2c_breakout))
    return [line for line in difflib.ndiff(a, b) if line[0] in "+-"]


@pytest.mark.slow
def test_a_training_writes_its_files(run, tmp_path):
    status, out, err = run("extras/per_breakout", *SHORT)
    folder = tmp_path / "runs" / "per_breakout"
    assert status == 0 and re.search(r"^1,20\d steps, ", out, re.M) and "Warning" not in err, err
    assert sorted(os.listdir(folder)) == TRAINED
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert 1200 <= summary["env_steps"] < 1208 and summary["config"]["memory_size"] == 2000
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == per.Update._fields and 0 < float(rows[0]["loss"]) < 1
    with open(folder / "scores.csv", newline="") as file:
        assert [row["game"] for row in csv.DictReader(file)] == ["1"]
    assert os.path.getsize(folder / "weights.pth") < 4e6
    with Image.open(folder / "play.gif") as gif:
        assert gif.size == (320, 420) and gif.n_frames > 50
    _, agent, _ = per.load_checkpoint(folder / "checkpoint.pth", {})
    player = Agent(Config(seed=1))
    per.load_weights(player, folder / "weights.pth")
    for a, b in zip(player.q_network.parameters(), agent.q_network.parameters(), strict=True):
        assert torch.equal(a, b.half().float())


def test_a_folder_has_one_training(monkeypatch, capsys, tmp_path):
    """Another one is refused from the first step on; Ctrl-C leaves all files but those of play."""
    monkeypatch.chdir(tmp_path)
    ends = []

    def run_step(*_):
        monkeypatch.setattr(per, "run_step", None)  # the other one must not come so far
        with pytest.raises(SystemExit) as end:
            per.main(["--output-dir", "out"])
        ends.append(end.value.code)
        raise KeyboardInterrupt

    monkeypatch.setattr(per, "run_step", run_step)
    threads = torch.get_num_threads()
    per.main(["--output-dir", "out"])
    torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert ends == [2] and "checkpoint.pth is there: --resume it" in err
    assert "Interrupted. Go on with --resume" in out
    no_curve = [name for name in STOPPED if name != "learning_curve.png"]  # no game was over
    assert sorted(os.listdir("out")) == no_curve


@pytest.mark.slow
def test_the_shipped_agent_plays_out_of_the_box(run, tmp_path):
    """In a third of five minutes; chance has about 1 point."""
    limits = ("--games", 4, "--max-frames", 6000)
    status, out, err = run("extras/per_breakout", "play", *limits, "--no-media")
    assert (status, err) == (0, "")
    assert os.path.getsize(ROOT / "weights" / "per_breakout.pth") < 4e6
    assert float(re.search(r"4 games: mean ([\d.]+)", out)[1]) > 50
    assert os.listdir(tmp_path / "runs" / "per_breakout" / "play") == ["scores.csv"]


SAVED = ["--resume", "--output-dir", "saved"]
BAD = [
    (["watch"], "'watch'"),
    (["--games", "0"], "games"),
    (["--dueling", "2"], "2"),
    (["--alpha", "nan"], "alpha"),
    (["--n-step", "0"], "n_step"),
    *([(["--memory-size", str(10**9)], "needs 6571.4 GiB")] if hasattr(os, "sysconf") else []),
    (["--memory-size", "200", "--num-envs", "100"], "memory_size - num_envs, 100"),
    (["--memory-size", "10000"], "memory_size - num_envs, 9992, not 20000"),
    (["--learn-start", "50"], "num_envs * (n_step + 5), 64"),
    (["--output-dir", "file"], "file"),
    (["--threads", "257"], "threads must be from 0 to 256, not 257"),
    (["--weights", "plain.pth"], "--weights is for play, not train"),
    (["play", "--resume"], "--resume"),
    (["play", "--weights", "nowhere.pth"], "can't read nowhere.pth"),
    (["play", "--weights", "other.pth"], "other.pth is damaged, or"),
    (["play", "--weights", "dueling.pth"], "with --dueling, or without?"),
    (["play", "--weights", "plain.pth", "--dueling"], "with --dueling, or without?"),
    ([*SAVED, "--alpha", "0"], "alpha is 0.5 in"),
    ([*SAVED, "--no-double"], "double is True in"),
    (["--resume", "--output-dir", "nowhere"], "checkpoint.pth"),
    (["--output-dir", "saved"], "--resume"),
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder of weights and a checkpoint."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "saved").mkdir()
    agent = Agent(Config())
    per.save_checkpoint(folder / "saved" / "checkpoint.pth", agent, per.Progress())
    torch.save(agent.q_network.state_dict(), folder / "plain.pth")
    torch.save(per.QNetwork(4, dueling=True).state_dict(), folder / "dueling.pth")
    torch.save(a2c_breakout.ActorCritic(4).state_dict(), folder / "other.pth")
    (folder / "file").write_text("kept")
    return folder


@pytest.mark.parametrize("arguments, named", BAD)
def test_bad_input_is_one_line(arguments, named, monkeypatch, capsys, foreign):
    monkeypatch.chdir(foreign)
    monkeypatch.setattr(per, "train", None)  # nothing may come so far
    monkeypatch.setattr(per, "set_threads", lambda threads: None)
    before = [path for path in sorted(foreign.rglob("*")) if path.is_file()]
    with pytest.raises(SystemExit) as end:
        per.main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("per_breakout.py: error: ") and named in err
    assert [path for path in sorted(foreign.rglob("*")) if path.is_file()] == before


@pytest.mark.parametrize("flags", [["--dueling"], []])
def test_weights_of_the_same_head_load(flags, monkeypatch, foreign):
    monkeypatch.chdir(foreign)
    monkeypatch.setattr(per, "set_threads", lambda threads: None)
    monkeypatch.setattr(per, "play", lambda agent, config: ({}, []))
    path = "dueling.pth" if flags else "plain.pth"
    agent = per.main(["play", "--weights", path, "--output-dir", "played", *flags])
    weights = torch.load(path)
    assert all(torch.equal(w, weights[name]) for name, w in agent.q_network.state_dict().items())


@pytest.mark.skipif(os.name == "nt", reason="Windows does not say how large it is")
def test_a_small_machine_plays_and_trains_with_a_small_memory(monkeypatch, capsys, tmp_path):
    """Of half a GiB; the check comes before the training, whose memory it is."""
    pages = {"SC_PHYS_PAGES": 2**15, "SC_PAGE_SIZE": 2**14}
    monkeypatch.setattr(per.os, "sysconf", pages.get)
    with pytest.raises(SystemExit) as end:
        per.check_memory(Config())
    assert end.value.code == 2
    out, err = capsys.readouterr()
    line = "per_breakout.py: error: memory_size needs 1.3 GiB, the machine has 0.5"
    assert (out, err) == ("", line + "\n")
    per.check_memory(Config(memory_size=50_000))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(per, "play", lambda agent, config: ({}, []))
    monkeypatch.setattr(per, "set_threads", lambda threads: None)
    per.main(["play"])


def test_switches_are_flags():
    given, _ = per.parse(["--no-double", "--dueling", "--no-fire", "--no-clip-rewards"])
    assert given == {"double": False, "dueling": True, "fire": False, "clip_rewards": False}
    given, _ = per.parse(["--no-bfloat16", "--fire"])
    assert given == {"bfloat16": False, "fire": True}
