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
from torch import nn


# %% Config
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

    MOVES, ARROWS = ((-1, 0), (1, 0), (0, -1), (0, 1)), "↑↓←→"
    SHAPE, START, GOAL, WALL, BOMB = (3, 4), (2, 0), (0, 3), (1, 1), (1, 3)
    observation_space = gym.spaces.Box(0, 1, (12,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def one_hot(self, place):
        return np.eye(12, dtype=np.float32)[np.ravel_multi_index(place, self.SHAPE)]

    def states(self):
        return [p for p in np.ndindex(self.SHAPE) if p not in (self.WALL, self.GOAL)]

    def move(self, place, action):
        """Return where an action leads, and its reward."""
        there = place[0] + self.MOVES[action][0], place[1] + self.MOVES[action][1]
        if there not in [*self.states(), self.GOAL]:
            there = place
        return there, {self.GOAL: 1.0, self.BOMB: -1.0}.get(there, 0.0)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.START
        return self.one_hot(self.place), {}

    def step(self, action):
        self.place, reward = self.move(self.place, action)
        return self.one_hot(self.place), reward, self.place == self.GOAL, False, {}


# %% Network
class QNetwork(nn.Module):
    """Maps states (..., 12) to action values (..., 4)."""

    def __init__(self, hidden_size):
        super().__init__()
        self.hidden = nn.Linear(12, hidden_size)
        self.q = nn.Linear(hidden_size, 4)

    def forward(self, state):
        return self.q(self.hidden(state).relu())


# %% Agent
class Agent:
    """Acts epsilon-greedily and learns from each transition at once."""

    def __init__(self, config):
        self.config, self.rng = config, np.random.default_rng(config.seed)
        self.q_network = QNetwork(config.hidden_size)
        self.optimizer = torch.optim.SGD(self.q_network.parameters(), config.learning_rate)

    @torch.no_grad()
    def act(self, state, epsilon=0.0):
        """Return the greedy action in a state (12,), or a random one."""
        if epsilon and self.rng.random() < epsilon:
            return int(self.rng.integers(4))
        return self.q_network(torch.from_numpy(state)).argmax().item()

    def learn(self, state, action, reward, next_state, terminated):
        """Make one gradient step on one transition; return the loss."""
        with torch.no_grad():
            next_q = 0.0 if terminated else self.q_network(torch.from_numpy(next_state)).max()
        target = torch.as_tensor(reward + self.config.gamma * next_q)
        loss = (self.q_network(torch.from_numpy(state))[action] - target).square()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


# %% Train
def train(config):
    """Train for `config.episodes`; return the agent and the mean loss of each episode."""
    torch.manual_seed(config.seed)
    env, agent, history = GridWorld(), Agent(config), []
    for _ in range(config.episodes):
        (state, _), losses, terminated = env.reset(), [], False
        while not terminated:
            action = agent.act(state, config.epsilon)
            next_state, reward, terminated, _, _ = env.step(action)
            losses.append(agent.learn(state, action, reward, next_state, terminated))
            state = next_state
        history.append(float(np.mean(losses)))
    return agent, history


@torch.no_grad()
def q_values(agent):
    """Return {place: Q (4,)} for all places but the wall and the goal."""
    env = GridWorld()
    return {p: agent.q_network(torch.from_numpy(env.one_hot(p))).numpy() for p in env.states()}


def optimal(gamma):
    """Return the true {place: Q (4,)}, by value iteration."""
    env, q = GridWorld(), {place: np.zeros(4) for place in GridWorld().states()}
    for _ in range(100):  # more than enough: the goal is at most six steps away
        for place, action in itertools.product(q, range(4)):
            there, reward = env.move(place, action)
            q[place][action] = reward + gamma * (q[there].max() if there in q else 0)
    return q


# %% Results
def draw(q, history):
    """Return a figure: the losses; Q, a triangle an action; the greedy policy."""
    from matplotlib import colormaps, colors, figure

    curve, values, policy = figure.Figure((14, 3.8), layout="constrained").subplots(1, 3)
    curve.plot(history)
    curve.set(title="Loss", xlabel="episode", ylabel="mean loss")
    env, scale, colour = GridWorld(), colors.Normalize(-1, 1), colormaps["RdYlGn"]
    for (row, column), q4 in q.items():
        for (down, right), value in zip(env.MOVES, q4):
            side = (right - abs(down)) / 2, (right + abs(down)) / 2, 0  # of a triangle, from column
            level = (down - abs(right)) / 2, (down + abs(right)) / 2, 0
            values.fill(np.add(column, side), np.add(row, level), ec="0.5", fc=colour(scale(value)))
            values.text(column + right / 3, row + down / 3, f"{value:.2f}", ha="center", fontsize=6)
        policy.text(column, row, env.ARROWS[q4.argmax()], ha="center", va="center", fontsize=20)
    for axes, title in (values, "Q"), (policy, "Greedy policy"):
        for (row, column), name in (env.GOAL, "goal"), (env.WALL, "wall"), (env.BOMB, "bomb"):
            axes.text(column - 0.45, row - 0.35, name, fontsize=8, color="red")
        axes.set(title=title, xlim=(-0.5, 3.5), ylim=(2.5, -0.5), xticks=[], yticks=[], aspect=1)
    return curve.figure


# %% Main
def main(arguments=()):
    """Train and draw; return the agent."""
    parser = argparse.ArgumentParser("gridworld.py", argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/gridworld"))
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed {options.seed} is not from 0 to {2**32 - 1}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(error)
    agent, history = train(Config(options.seed))
    q, truth = q_values(agent), optimal(agent.config.gamma)
    right = sum(truth[p][q[p].argmax()] > truth[p].max() - 1e-9 for p in q)
    draw(q, history).savefig(options.output_dir / "gridworld.png")
    print(f"The greedy action is right in {right} of {len(q)} places; rare ones can be wrong.")
    return agent


if __name__ == "__main__":
    main([] if "ipykernel" in sys.modules else sys.argv[1:])
