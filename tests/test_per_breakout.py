"""Prioritized replay on Breakout: the memory against plain lists, the switches, the outside."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import per_cartpole
import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "extras"))
per = importlib.import_module("per_breakout")
from per_breakout import Agent, Config, ReplayMemory  # noqa: E402


class Scripted:
    """Stands for AtariVectorEnv: lives and games end where a list of random numbers says so."""

    def __init__(self, num_envs, rng):
        self.n, self.rng = num_envs, rng

    def observe(self):
        return self.rng.integers(1, 256, (self.n, 1, 84, 84), dtype=np.uint8)

    def reset(self, seed):
        self.lives, self.over = np.full(self.n, 5), np.zeros(self.n, bool)
        return self.observe(), {"lives": self.lives.copy()}

    def step(self, action):
        lost, cut = self.rng.random((2, self.n)) < [[0.3], [0.1]]
        self.lives = np.where(self.over, 5, self.lives - lost)
        terminated, truncated = (self.lives == 0) & ~self.over, cut & ~self.over
        reward = np.where(self.over, 0, self.rng.integers(0, 8, self.n))
        self.over = terminated | truncated
        return self.observe(), reward, terminated, truncated, {"lives": self.lives.copy()}


def play(monkeypatch, config, steps, seed=0):
    """Fill a memory from scripted games; return it, and what plain lists say it holds.

    The list has a transition for each step and game that is one, in the order of the memory:
    {(step, game): (state, action, n-step reward, next state, discount)}.
    """
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(per, "make_env", lambda n: Scripted(n, rng))
    games, memory = per.Games(config.num_envs, seed), ReplayMemory(config)
    track = [[] for _ in range(config.num_envs)]  # of each game: (state, action, reward, ends...)
    pictures = [[frame] for frame in games.state[:, -1]]  # of this life
    for _ in range(steps):
        action = rng.integers(4, size=config.num_envs)
        frame = games.state[:, -1]
        states = [np.array([np.zeros_like(frame[0])] * 3 + p)[-4:] for p in pictures]
        assert all(np.array_equal(a, b) for a, b in zip(states, games.state, strict=True))
        reward, *ends = games.step(action)
        memory.push(frame, action, reward, *ends)
        for game in range(config.num_envs):
            terminated, truncated, valid = (bool(end[game]) for end in ends)
            track[game].append((states[game], action[game], reward[game], terminated, truncated, valid))
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


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 9, 30, 31, 50, 100, 151])
def test_the_memory_against_plain_lists_of_stacks(monkeypatch, n_step, steps):
    """Lost lives, ends, cuts and resets at every position; the memory has 40 rows and wraps."""
    config = Config(num_envs=5, memory_size=200, n_step=n_step, gamma=0.9)
    for seed in range(3):
        memory, expected = play(monkeypatch, config, steps, seed)
        if steps <= n_step:
            assert not expected and memory.tree.nodes[1] == 0
            continue
        found = drawn(memory)
        assert found.keys() == expected.keys()
        for key, (state, action, reward, next_state, discount) in expected.items():
            assert np.array_equal(found[key][0], state) and found[key][1] == action
            assert found[key][2] == pytest.approx(reward, rel=1e-6)
            assert found[key][4] == pytest.approx(discount, rel=1e-6)
            if discount:
                assert np.array_equal(found[key][3], next_state), key
