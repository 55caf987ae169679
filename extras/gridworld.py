# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = ["gymnasium>=1.0", "matplotlib>=3.8", "numpy>=1.26", "torch>=2.4"]
# ///

# %% [markdown]
"""
# Less than DQN: Q-learning with a network on a grid world

The table of Q-learning becomes a network: it learns from each transition once, as it comes, with
targets from itself. dqn_cartpole.py adds what is missing: a replay memory and a target network.

    y    = r + gamma * max_a' Q(s', a')        (y = r at the goal)
    loss = (Q(s, a) - y)^2

Beside 「DQN未満」 in the notebook on ゼロから作る Deep Learning 4.
"""

# %% Imports
import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import nn

NAME = "gridworld"


# %% Settings
@dataclass
class Config:
    """All settings, those of the notebook."""

    seed: int = 0
    episodes: int = 1000
    gamma: float = 0.9  # discount per step
    learning_rate: float = 0.01  # of plain gradient descent
    hidden_size: int = 100  # units in the only hidden layer
    epsilon: float = 0.1  # probability of a random action


# %% Environment
class GridWorld(gym.Env):
    """Three rows, four columns: a wall at (1, 1), a bomb at (1, 3) for -1, the goal at (0, 3).

    States are one-hot (12,) float32; actions 0 to 3 are up, down, left, right. Reaching the goal
    pays 1 and ends the episode. A step into the wall or off the grid leads nowhere.
    """

    MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # rows and columns
    SHAPE = (3, 4)
    START = (2, 0)
    GOAL = (0, 3)
    WALL = (1, 1)
    BOMB = (1, 3)
    observation_space = gym.spaces.Box(0, 1, (12,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def one_hot(self, place):
        """Return the state (12,) of a place (row, column)."""
        return np.eye(12, dtype=np.float32)[np.ravel_multi_index(place, self.SHAPE)]

    def states(self):
        """Return all places in which one can act."""
        return [place for place in np.ndindex(self.SHAPE) if place not in (self.WALL, self.GOAL)]

    def move(self, place, action):
        """Return where an action leads, and its reward."""
        down, right = self.MOVES[action]
        there = (place[0] + down, place[1] + right)
        inside = 0 <= there[0] < 3 and 0 <= there[1] < 4
        if there == self.WALL or not inside:
            there = place
        rewards = {self.GOAL: 1.0, self.BOMB: -1.0}
        return there, rewards.get(there, 0.0)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.START
        return self.one_hot(self.place), {}

    def step(self, action):
        self.place, reward = self.move(self.place, action)
        terminated = self.place == self.GOAL
        return self.one_hot(self.place), reward, terminated, False, {}


# %% Network
class QNetwork(nn.Module):
    """Maps states (..., 12) to action values (..., 4)."""

    def __init__(self, hidden_size):
        super().__init__()
        self.hidden = nn.Linear(12, hidden_size)
        self.q = nn.Linear(hidden_size, 4)

    def forward(self, state):
        hidden = torch.relu(self.hidden(state))
        return self.q(hidden)


# %% Agent
class Agent:
    """Acts epsilon-greedily and learns from each transition at once."""

    def __init__(self, config):
        self.config = config
        self.rng = np.random.default_rng(config.seed)
        self.q_network = QNetwork(config.hidden_size)
        self.optimizer = torch.optim.SGD(self.q_network.parameters(), lr=config.learning_rate)

    @torch.no_grad()
    def act(self, state):
        """Return the greedy action in a state (12,), or, with probability epsilon, a random one."""
        if self.rng.random() < self.config.epsilon:
            return int(self.rng.integers(4))
        return self.q_network(torch.from_numpy(state)).argmax().item()

    @torch.no_grad()
    def td_target(self, reward, next_state, terminated):
        """y = r + gamma * max_a' Q(s', a')."""
        if terminated:
            return torch.tensor(reward)
        next_q = self.q_network(torch.from_numpy(next_state)).max()
        return reward + self.config.gamma * next_q

    def learn(self, state, action, reward, next_state, terminated):
        """Make one gradient step on one transition; return the loss."""
        target = self.td_target(reward, next_state, terminated)
        q = self.q_network(torch.from_numpy(state))[action]
        loss = (q - target).square()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


# %% Train
def run_episode(agent, env):
    """Play from the start to the goal, and learn from every step; return the losses."""
    state, _ = env.reset()
    losses = []
    terminated = False
    while not terminated:
        action = agent.act(state)
        next_state, reward, terminated, _, _ = env.step(action)
        losses.append(agent.learn(state, action, reward, next_state, terminated))
        state = next_state
    return losses


def train(config):
    """Train for `config.episodes`; return the agent and the mean loss of each episode."""
    torch.manual_seed(config.seed)
    env = GridWorld()
    agent = Agent(config)
    history = []
    for _ in range(config.episodes):
        losses = run_episode(agent, env)
        history.append(float(np.mean(losses)))
    return agent, history


@torch.no_grad()
def q_values(agent):
    """Return {place: Q (4,)} for all places but the wall and the goal."""
    env = GridWorld()
    q = {}
    for place in env.states():
        state = torch.from_numpy(env.one_hot(place))
        q[place] = agent.q_network(state).numpy()
    return q


def optimal(gamma):
    """Return the true {place: Q (4,)}, by value iteration."""
    env = GridWorld()
    q = {place: np.zeros(4) for place in env.states()}
    for _ in range(100):  # more than enough: the goal is at most five steps away
        for place, action in itertools.product(q, range(4)):
            there, reward = env.move(place, action)
            next_q = q[there].max() if there in q else 0.0
            q[place][action] = reward + gamma * next_q
    return q


def is_optimal(q, truth, place):
    """Return whether the greedy action at a place is one of the best."""
    return truth[place][q[place].argmax()] > truth[place].max() - 1e-9


# %% Results
def draw_grid(axes, title):
    """Draw the empty grid with its wall and its goal."""
    env = GridWorld()
    for (row, column), name, colour in ((env.WALL, "wall", "0.8"), (env.GOAL, "goal", "0.95")):
        axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour)
        axes.text(column, row, name, ha="center", va="center", fontsize=12)
    axes.set(title=title, xlim=(-0.5, 3.5), ylim=(2.5, -0.5), aspect=1)
    axes.set_xticks(np.arange(0.5, 3), labels=[])
    axes.set_yticks(np.arange(0.5, 2), labels=[])
    axes.tick_params(length=0)
    axes.grid(color="0.5")


def draw_q(axes, q):
    """Draw Q: in each place a triangle for each action."""
    env = GridWorld()
    scale = Normalize(-1.4, 1.4)  # paler than -1 to 1, so that the numbers can be read
    for (row, column), values in q.items():
        for (down, right), value in zip(env.MOVES, values):
            # The two corners of the side to which the action leads, and the middle
            x = [column + (right - abs(down)) / 2, column + (right + abs(down)) / 2, column]
            y = [row + (down - abs(right)) / 2, row + (down + abs(right)) / 2, row]
            axes.fill(x, y, edgecolor="white", facecolor=colormaps["RdYlGn"](scale(value)))
            place = (column + right * 0.32, row + down * 0.34)
            axes.text(*place, f"{value:.2f}", ha="center", va="center", fontsize=10)
    row, column = env.BOMB
    box = {"boxstyle": "round,pad=0.2", "facecolor": "black"}
    style = {"ha": "center", "va": "center", "fontsize": 9, "color": "white"}
    axes.text(column, row, "bomb", **style, bbox=box)


def draw_policy(axes, q, truth):
    """Draw an arrow for each greedy action, in red where another action is better."""
    env = GridWorld()
    for (row, column), values in q.items():
        colour = "black" if is_optimal(q, truth, (row, column)) else "C3"
        arrow = "↑↓←→"[values.argmax()]
        style = {"ha": "center", "va": "center", "fontsize": 22, "color": colour}
        axes.text(column, row, arrow, **style)
    row, column = env.BOMB
    axes.text(column, row + 0.35, "bomb", ha="center", va="center", fontsize=9)


def draw_loss(axes, history, width=50):
    """Draw the loss of each episode, and the mean of `width` of them."""
    width = min(width, len(history))
    means = np.convolve(history, np.ones(width) / width, mode="valid")
    axes.semilogy(history, color="0.8", linewidth=0.8, label="an episode")
    axes.semilogy(np.arange(width - 1, len(history)), means, label=f"mean of {width}")
    axes.set(title="Loss", xlabel="episode")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper right")


def draw(q, truth, history):
    """Return a figure: Q; the greedy policy; the losses."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    places = figure.subplot_mosaic([["q", "policy"], ["q", "loss"]], width_ratios=[2, 1])
    draw_grid(places["q"], "Q")
    draw_q(places["q"], q)
    draw_grid(places["policy"], "Greedy policy (red: not the best action)")
    draw_policy(places["policy"], q, truth)
    draw_loss(places["loss"], history)
    return figure


# %% Main
def parse(arguments):
    """Return the options; a bad one ends the program with one line."""
    parser = argparse.ArgumentParser(f"{NAME}.py", argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, metavar="X")
    parser.add_argument("--output-dir", type=Path, default=Path("runs", NAME), metavar="DIR")
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**32:
        parser.error(f"seed must be from 0 to {2**32 - 1}, not {options.seed}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    return options


def main(arguments=()):
    """Train and draw; return the agent."""
    options = parse(arguments)
    config = Config(seed=options.seed)
    agent, history = train(config)
    q = q_values(agent)
    truth = optimal(config.gamma)
    right = [place for place in q if is_optimal(q, truth, place)]
    print(f"The greedy action is right in {len(right)} of {len(q)} places.")
    print("In places that are rarely visited it can be wrong.")
    draw(q, truth, history).savefig(options.output_dir / "gridworld.png", dpi=150)
    print(f"Results are in {options.output_dir}.")
    return agent


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    main([] if in_cell else sys.argv[1:])
