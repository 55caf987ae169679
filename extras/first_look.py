# /// script
# requires-python = ">=3.10"
# dependencies = ["gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26"]
# ///

# %% [markdown]
"""
# A first look at CartPole, and at a replay memory

Pushes the cart left and right by chance: what the environment shows and returns, and what a replay
memory makes of it. Nothing learns here; dqn_cartpole.py does.

Beside 「倒立振子問題」 and 「経験再生」 in the notebook on ゼロから作る Deep Learning 4.
"""

# %% Imports
import argparse
import os
import sys
from collections import deque, namedtuple
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import gymnasium as gym
import numpy as np


# %% Config
@dataclass
class Config:
    """All settings. ValueError if one makes no sense."""

    seed: int = 0
    steps: int = 100  # as many pictures
    memory_size: int = 10_000
    batch_size: int = 32

    def __post_init__(self):
        if not (self.seed >= 0 and self.memory_size >= self.steps >= self.batch_size > 0):
            raise ValueError(f"{self} makes no sense")


# %% Memory
# state and next_state (4,): position, speed, angle, angular velocity; terminated: the pole fell
Transition = namedtuple("Transition", "state action reward next_state terminated")


class ReplayMemory:
    """The last `memory_size` transitions, sampled uniformly."""

    def __init__(self, config):
        self.rng = np.random.default_rng(config.seed)
        self.transitions = deque(maxlen=config.memory_size)  # the oldest falls out

    def __len__(self):
        return len(self.transitions)

    def push(self, *transition):
        self.transitions.append(Transition(*transition))

    def sample(self, batch_size):
        """Return a Transition of columns: (B, 4) each state, (B,) the others."""
        index = self.rng.choice(len(self), batch_size, replace=False)
        return Transition(*map(np.array, zip(*(self.transitions[i] for i in index))))


# %% Play
@patch.dict(os.environ, SDL_VIDEODRIVER="dummy")  # no display is needed
def play(config):
    """Push by chance; return the memory, and a picture (400, 600, 3) of each state."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    memory, frames = ReplayMemory(config), []
    state, _ = env.reset(seed=config.seed)
    env.action_space.seed(config.seed)
    for _ in range(config.steps):
        frames.append(env.render())
        action = env.action_space.sample()
        next_state, reward, terminated, truncated, _ = env.step(action)
        memory.push(state, action, reward, next_state, terminated)
        state = env.reset()[0] if terminated or truncated else next_state
    env.close()
    return memory, frames


# %% Results
def draw(memory, frames):
    """Return a figure of all pictures, ten in a row; a red frame: the pole falls in this step."""
    from matplotlib.figure import Figure

    rows = -(-len(frames) // 10)
    figure = Figure((12, 0.85 * rows), layout="constrained")
    for axes in (all_axes := figure.subplots(rows, 10, squeeze=False)).flat:
        axes.set_axis_off()
    for step, (axes, frame) in enumerate(zip(all_axes.flat, frames)):
        axes.set_axis_on()
        axes.imshow(frame[150:320:2, ::2])
        axes.set(xticks=[], yticks=[])
        axes.set_title(step, fontsize=6, pad=1)
        fell = memory.transitions[step].terminated
        axes.spines[:].set(color="red" if fell else "0.8", linewidth=2 if fell else 0.5)
    return figure


def table(memory, rows=10):
    """Return the first steps as text."""
    lines = ["step  position   speed   angle  angular velocity  action  reward  terminated"]
    for step, (state, action, reward, _, terminated) in enumerate(memory.transitions):
        numbers = "{:8.3f}  {:6.3f}  {:6.3f}  {:16.3f}".format(*state)
        lines.append(f"{step:4}  {numbers}  {action:6}  {reward:6}  {terminated!s:>10}")
    return "\n".join(lines[: rows + 1])


def shapes(memory, batch_size):
    """Return what the memory holds and returns, as text."""
    batch = memory.sample(batch_size)
    lines = [f"The memory holds {len(memory)} of at most {memory.transitions.maxlen} transitions."]
    lines.append("column       of one transition   of a batch")
    for name, one, column in zip(batch._fields, memory.transitions[0], batch):
        lines.append(f"{name:12} {np.shape(one)!s:19} {column.shape!s:8} {column.dtype}")
    return "\n".join(lines)


# %% Main
def main(arguments=()):
    """Play, print and draw; return the memory."""
    parser = argparse.ArgumentParser("first_look.py", argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/first_look"))
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed {options.seed} is not from 0 to {2**32 - 1}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        memory, frames = play(config := Config(options.seed))
        draw(memory, frames).savefig(options.output_dir / "first_look.png", dpi=150)
    except OSError as error:
        parser.error(error)
    print(table(memory), shapes(memory, config.batch_size), sep="\n\n")
    print(f"\nAll {len(frames)} pictures are in {options.output_dir}.")
    return memory


if __name__ == "__main__":
    main([] if "ipykernel" in sys.modules else sys.argv[1:])
