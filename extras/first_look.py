# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = ["gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26"]
# ///

# %% [markdown]
"""
# A first look at CartPole, and at a replay memory

Pushes the cart left and right at random: what the environment shows and returns, and what a replay
memory makes of it. Nothing learns here; dqn_cartpole.py does.

Beside 「倒立振子問題」 and 「経験再生」 in the notebook on ゼロから作る Deep Learning 4.
"""

# %% Imports
import argparse
import os
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure

NAME = "first_look"


# %% Settings
@dataclass
class Config:
    """All settings. ValueError if one is not valid."""

    seed: int = 0
    steps: int = 100  # as many pictures
    memory_size: int = 10_000
    batch_size: int = 32

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
        if not 0 < self.batch_size <= self.steps <= self.memory_size:
            raise ValueError("batch_size must be at most steps, and steps at most memory_size")


# %% Memory
class Transition(NamedTuple):
    """One step; or a batch of B steps, a column each."""

    state: np.ndarray  # (4,): position, velocity, angle, angular velocity; or (B, 4)
    action: int  # 0: push to the left, 1: to the right; or (B,)
    reward: float  # or (B,)
    next_state: np.ndarray  # as state
    terminated: bool  # whether the pole fell, or the cart went too far out; or (B,)


class ReplayMemory:
    """The last `memory_size` transitions, sampled uniformly."""

    def __init__(self, config):
        self.rng = np.random.default_rng(config.seed)
        self.transitions = deque(maxlen=config.memory_size)  # the oldest falls out

    def __len__(self):
        return len(self.transitions)

    def push(self, state, action, reward, next_state, terminated):
        """Store a transition."""
        self.transitions.append(Transition(state, action, reward, next_state, terminated))

    def sample(self, batch_size):
        """Return a Transition of columns: (B, 4) each state, (B,) the others."""
        index = self.rng.choice(len(self), batch_size, replace=False)
        drawn = [self.transitions[i] for i in index]
        return Transition(
            state=np.array([transition.state for transition in drawn]),
            action=np.array([transition.action for transition in drawn]),
            reward=np.array([transition.reward for transition in drawn]),
            next_state=np.array([transition.next_state for transition in drawn]),
            terminated=np.array([transition.terminated for transition in drawn]),
        )


# %% Play
def play(config):
    """Push at random; return the memory, and a picture (400, 600, 3) of each state."""
    os.environ["SDL_VIDEODRIVER"] = "dummy"  # no display is needed
    os.environ["SDL_NO_SIGNAL_HANDLERS"] = "1"  # or SDL would swallow SIGTERM from now on
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.action_space.seed(config.seed)
    state, _ = env.reset(seed=config.seed)
    memory = ReplayMemory(config)
    frames = []
    for _ in range(config.steps):
        frames.append(env.render())
        action = env.action_space.sample()
        next_state, reward, terminated, truncated, _ = env.step(action)
        memory.push(state, action, reward, next_state, terminated)
        state = next_state
        if terminated or truncated:
            state, _ = env.reset()
    env.close()
    del os.environ["SDL_VIDEODRIVER"]  # your own windows need the display
    return memory, frames


# %% Results
def draw(memory, frames, shown=12):
    """Return a figure of up to `shown` steps, from the first to the one in which the pole falls."""
    falls = [step for step, row in enumerate(memory.transitions) if row.terminated]
    last = falls[0] if falls else len(frames) - 1
    steps = np.unique(np.linspace(0, last, shown).round().astype(int))
    rows = -(-len(steps) // 3)  # rounded up
    figure = Figure(figsize=(9, 1.35 * rows + 0.4), layout="constrained")
    figure.suptitle("CartPole, pushed at random, until the pole falls", fontsize=14)
    places = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, step in zip(places, steps):
        transition = memory.transitions[step]
        axes.imshow(frames[step][140:340])  # the rows of cart and pole
        angle = np.degrees(transition.state[2])
        push = "right" if transition.action == 1 else "left"
        axes.set_title(f"step {step}: {angle:.1f}°, push {push}", fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.7")
        if transition.terminated:
            axes.set_title(f"step {step}: {angle:.1f}°, it falls", fontsize=10, color="C3")
            axes.spines[:].set(color="C3", linewidth=3)
    for axes in places[len(steps) :]:
        axes.set_axis_off()
    return figure


def table(memory, rows=10):
    """Return the first steps as text."""
    lines = ["step  position  velocity   angle  angular velocity  action  reward  terminated"]
    for step, transition in enumerate(memory.transitions):
        position, velocity, angle, angular_velocity = transition.state
        state = f"{position:8.3f}  {velocity:8.3f}  {angle:6.3f}  {angular_velocity:16.3f}"
        result = f"{transition.action:6}  {transition.reward:6}  {transition.terminated!s:>10}"
        lines.append(f"{step:4}  {state}  {result}")
    return "\n".join(lines[: rows + 1])


def shapes(memory, batch_size):
    """Return what the memory holds and returns, as text."""
    first = memory.transitions[0]
    batch = memory.sample(batch_size)
    lines = [
        f"The memory holds {len(memory)} of at most {memory.transitions.maxlen} transitions.",
        "column       of one transition   of a batch",
    ]
    for name in Transition._fields:
        one = np.shape(getattr(first, name))
        column = getattr(batch, name)
        lines.append(f"{name:12} {one!s:19} {column.shape!s:8} {column.dtype}")
    return "\n".join(lines)


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
    """Play, print and draw; return the memory."""
    options = parse(arguments)
    config = Config(seed=options.seed)
    memory, frames = play(config)
    print(table(memory))
    print()
    print(shapes(memory, config.batch_size))
    draw(memory, frames).savefig(options.output_dir / "first_look.png", dpi=150)
    print(f"\nResults are in {options.output_dir}.")
    return memory


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    main([] if in_cell else sys.argv[1:])
