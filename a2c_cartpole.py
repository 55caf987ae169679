# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26", "pillow", "torch>=2.4",
# ]
# ///

# %% [markdown]
"""
# A2C on CartPole

No action values, no replay: an actor learns the policy pi(a | s) itself, and a critic the value
V(s) of a state. An action becomes likelier if it turned out better than V(s) predicted, and less
likely if worse, in proportion to the difference, the advantage. New ideas since the Q scripts:

1. Actor and critic: one network, with a head for the policy and a head for V.
2. Many environments at once, a few steps each: their states differ, which is what replay was for.
   Old steps can't be replayed: the gradient only holds for actions of the present policy
   (on-policy).
3. n-step returns: up to five rewards that were seen, and only then the critic's guess.
4. Entropy: a bonus for policies that still try things.

    R_t  = r_t + gamma * r_(t+1) + ... + gamma^k * V(s_(t+k))  (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))                 (actor; V without gradient)
           + c_v * (R_t - V(s_t))^2                            (critic)
           - c_e * entropy of pi(. | s_t)                      (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv 1602.01783,
algorithm S3. Book: Ogawa 2018, chapter 6.5. What differs here:

- Environments in lockstep, as in the book (paper: threads).
- The reward is -1 for a fall (the pole falls, or the cart leaves the track), else 0. gymnasium: +1
  a step. Book: -1 and 0, too, but +1 at the time limit, which ends the return.
- If in the steps of an update an episode is full, and no pole falls, a test follows: 20 greedy
  episodes at once, without learning.

Read run_steps first, then Games, then Agent.returns and Agent.learn.

Expect: 287 episodes, 21,120 steps, 0.4 s (medians; 100 of 100 seeds solved); greedy 200 steps.
"""

# %% Imports
import argparse
import base64
import csv
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.distributions import Categorical

NAME = "a2c_cartpole"
TITLE = "A2C on CartPole"


# %% Settings
def setting(default, reason, low=1, high=10**9):
    """A field of Config. --help shows the reason; values outside [low, high] are refused."""
    return field(default=default, metadata={"reason": reason, "low": low, "high": high})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one is not valid."""

    seed: int = setting(0, "same seed, same machine: same history", low=0, high=2**32 - 1)
    steps: int = setting(500_000, "give up after so many, of all environments", high=10**12)
    max_steps: int = setting(200, "length of a full episode, as in the book")
    solved_after: int = setting(20, "full test episodes, played at once", high=10**4)
    num_envs: int = setting(16, "environments played at once; the book has 32", high=10**4)
    num_steps: int = setting(5, "steps of each environment per update, as in the book")
    gamma: float = setting(0.99, "discount per step", low=0, high=1)
    learning_rate: float = setting(5e-3, "of Adam; the book has 0.01", low=0, high=1)
    hidden_size: int = setting(64, "units in each of two layers; the book has 32", high=10**4)
    value_coef: float = setting(0.5, "c_v, weight of the critic's loss, as in the book", low=0)
    entropy_coef: float = setting(3e-3, "c_e, weight of the entropy; book: 0.01", low=0)
    max_grad_norm: float = setting(0.5, "longer gradients are clipped, as in the book", low=0)

    def __post_init__(self):
        """Refuse invalid settings. There is no lesson here."""
        for f in fields(self):
            value = getattr(self, f.name)
            low = f.metadata["low"]
            high = f.metadata["high"]
            kind = Integral if type(f.default) is int else Real
            if not isinstance(value, kind) or not low <= value <= high:
                number = "a whole number " if kind is Integral else ""
                raise ValueError(f"{f.name} must be {number}from {low} to {high}, not {value!r}")
            setattr(self, f.name, type(f.default)(value))  # NumPy's numbers become Python's


# %% Environment
class Games:
    """N games of CartPole that are played at once. All arrays are (N,), `state` (N, state_size).

    After the step that ends a game comes one that only resets it (next-step autoreset). The state
    is the one before the step, in which the action was chosen:

        step      t                 t + 1             t + 2
        state     the last but one  the last          the first of a new game
        action    ends the game     ignored           counts
        valid     True              False             True
    """

    def __init__(self, num_envs, seed, max_steps):
        # The reward is -1 for a fall, else 0. Another task: docs/own_task.md
        self.env = gym.make_vec(
            "CartPole-v1", num_envs, max_episode_steps=max_steps, sutton_barto_reward=True
        )
        self.state, _ = self.env.reset(seed=seed)
        self.ended = np.zeros(num_envs, bool)  # whether the game is over
        self.steps = np.zeros(num_envs, int)  # of this game
        self.finished = []  # steps of all games that ended, for the table

    def step(self, action):
        """Play a step; return reward, terminated, truncated and valid, (N,) each."""
        valid = ~self.ended  # not the step that only resets a game
        self.steps[self.ended] = 0
        self.state, reward, terminated, truncated, _ = self.env.step(action)
        self.steps[valid] += 1
        self.ended = terminated | truncated
        self.finished += self.steps[self.ended].tolist()
        return reward.astype(np.float32), terminated, truncated, valid

    def mean_steps(self):
        """Return the mean steps of the last N games that ended, None before the first."""
        last = self.finished[-len(self.steps) :]
        return float(np.mean(last)) if last else None


# %% Memory
class Rollout(NamedTuple):
    """T steps (rows) of N environments (columns)."""

    log_prob: torch.Tensor  # (T, N), log pi(a | s) of the action taken, with gradient
    entropy: torch.Tensor  # (T, N), of pi(. | s), with gradient
    value: torch.Tensor  # (T, N), V(s), with gradient
    reward: torch.Tensor  # (T, N)
    terminated: torch.Tensor  # (T, N), whether the pole fell
    truncated: torch.Tensor  # (T, N), whether only the time was up
    valid: torch.Tensor  # (T, N), False where the step only reset its environment


class RolloutStorage:
    """The steps of all environments since the last update."""

    def __init__(self):
        self.steps = []

    def insert(self, **step):
        """Store one step: the fields of a Rollout, (N,) each."""
        self.steps.append(step)

    def take(self):
        """Return all steps as one Rollout, (T, N) each, and forget them."""
        columns = {}
        for name in Rollout._fields:
            rows = [torch.as_tensor(step[name]) for step in self.steps]
            columns[name] = torch.stack(rows)  # (T, N)
        self.steps = []
        return Rollout(**columns)


# %% Network
class ActorCritic(nn.Module):
    """Maps states (..., state_size) to logits (..., num_actions) and values (...)."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden1 = nn.Linear(state_size, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.actor = nn.Linear(hidden_size, num_actions)
        self.critic = nn.Linear(hidden_size, 1)

    def forward(self, state):
        hidden = torch.relu(self.hidden1(state))
        hidden = torch.relu(self.hidden2(hidden))
        return self.actor(hidden), self.critic(hidden).squeeze(-1)


# %% Agent
class Agent:
    """Samples actions from its policy; trains actor and critic on rollouts. The book: Brain."""

    def __init__(self, config, state_size, num_actions):
        self.config = config
        self.network = ActorCritic(state_size, config.hidden_size, num_actions)
        # With Adam's usual eps of 1e-8, tiny gradients become full steps and can ruin a good policy
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, eps=1e-5, fused=True
        )

    def sample(self, state):
        """Sample actions in states (N, state_size); return them, log_prob, entropy, value: (N,)."""
        logits, value = self.network(torch.from_numpy(state))
        policy = Categorical(logits=logits)
        action = policy.sample()
        return action.numpy(), policy.log_prob(action), policy.entropy(), value

    @torch.no_grad()
    def greedy(self, state):
        """Return the likeliest action in each state (..., state_size), an array (...)."""
        logits, _ = self.network(torch.from_numpy(state))
        return logits.argmax(-1).numpy()

    @torch.no_grad()
    def returns(self, rollout, next_state):
        """R_t = r_t + gamma * R_(t+1), backwards from V(next_state): (T, N) (algorithm S3).

        The book: RolloutStorage.compute_returns.
        """
        _, last_value = self.network(torch.from_numpy(next_state))  # (N,)
        values = torch.cat([rollout.value, last_value.unsqueeze(0)])  # (T + 1, N), for time up
        returns = torch.empty_like(rollout.value)  # (T, N)
        next_return = last_value  # for all that comes after the rollout
        for t in reversed(range(len(returns))):
            # Time up: the game would have gone on. So take the value of its last state, which is
            # the state of step t + 1 (see Games)
            next_return = torch.where(rollout.truncated[t], values[t + 1], next_return)
            # An end: nothing follows
            next_return = torch.where(rollout.terminated[t], 0.0, next_return)
            returns[t] = rollout.reward[t] + self.config.gamma * next_return
            next_return = returns[t]
        return returns

    def learn(self, rollout, next_state):
        """Make one gradient step on a rollout, after which came next_state; return the loss.

        The book: Brain.update.
        """
        advantage = self.returns(rollout, next_state) - rollout.value  # (T, N)
        # For the actor it is a mere number: without detach, its loss would train the critic, too
        actor_loss = -rollout.log_prob * advantage.detach()
        critic_loss = self.config.value_coef * advantage.square()
        entropy_bonus = self.config.entropy_coef * rollout.entropy
        loss = actor_loss + critic_loss - entropy_bonus  # (T, N)
        # Only valid steps teach; where games and steps are few there may be none
        count = rollout.valid.sum().clamp(min=1)
        loss = loss[rollout.valid].sum() / count
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()


# %% Train
def run_steps(agent, games):
    """Play config.num_steps steps of every game; return them as a Rollout.

    The book: the inner loop of Environment.run.
    """
    storage = RolloutStorage()
    for _ in range(agent.config.num_steps):
        # These keep their gradients, so that learning needs no second pass through the network
        action, log_prob, entropy, value = agent.sample(games.state)
        reward, terminated, truncated, valid = games.step(action)
        storage.insert(
            log_prob=log_prob,
            entropy=entropy,
            value=value,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            valid=valid,
        )
    return storage.take()


def train(config):
    """Train until solved, for config.steps, or until Ctrl-C; return (agent, history).

    An episode is full if the pole does not fall. If in the steps of an update an episode is full,
    and no pole falls, the policy is tested: if config.solved_after new episodes are full, the task
    is solved; else learning goes on. The steps of tests count like all others.
    """
    torch.set_num_threads(1)  # more would slow so small a network down
    torch.manual_seed(config.seed)
    games = Games(config.num_envs, config.seed, config.max_steps)
    # A seed of its own: not the episodes of the training
    test_env = Games(config.solved_after, config.seed + 1, config.max_steps).env
    agent = Agent(config, games.state.shape[1], games.env.single_action_space.n)
    history = []
    env_steps = 0
    passed = False
    print("update  episodes  mean steps     loss  test steps  env steps")
    try:
        while env_steps < config.steps and not passed:
            rollout = run_steps(agent, games)
            loss = agent.learn(rollout, games.state)
            env_steps += int(rollout.valid.sum())
            test_steps = None
            if rollout.truncated.any() and not rollout.terminated.any():
                test_steps, fell = run_test(agent, test_env)
                env_steps += test_steps * config.solved_after
                passed = not fell
            row = Update(
                update=len(history) + 1,
                episodes=len(games.finished),
                mean_steps=games.mean_steps(),
                loss=loss,
                test_steps=test_steps,
                passed=passed,
                env_steps=env_steps,
            )
            history.append(row)
            if row.update % 50 == 0 or test_steps:
                print_row(row)
    except KeyboardInterrupt:
        print("Interrupted: what was learned is kept.")
    return agent, history


def run_test(agent, env):
    """Play an episode in each environment, all at once, with the likeliest actions.

    Return how many steps the test took (it ends at the first fall), and whether a pole fell.
    """
    state, _ = env.reset()
    steps = 0
    done = False
    while not done:
        state, _, terminated, truncated, _ = env.step(agent.greedy(state))
        steps += 1
        done = terminated.any() or truncated.any()
    return steps, terminated.any()


class Update(NamedTuple):
    """A line of history.csv."""

    update: int
    episodes: int  # that ended while learning, since the start
    mean_steps: float | None  # of the last num_envs of them
    loss: float
    test_steps: int | None  # of the test after this update, None if there was none
    passed: bool  # whether no pole fell in the test
    env_steps: int  # of all environments, since the start of the training


def print_row(row):
    """Print an update as a line of the table."""
    mean = "-" if row.mean_steps is None else f"{row.mean_steps:.1f}"
    test = "-" if row.test_steps is None else row.test_steps
    progress = f"{test:>10}  {row.env_steps:9,}"
    print(f"{row.update:6}  {row.episodes:8}  {mean:>10}  {row.loss:7.4f}  {progress}")


def evaluate(agent, config, seed, episodes=100):
    """Play `episodes` greedy episodes side by side; return the steps of each, (episodes,)."""
    env = gym.make_vec("CartPole-v1", episodes, max_episode_steps=config.max_steps)
    state, _ = env.reset(seed=seed)
    steps = np.zeros(episodes, int)
    running = np.ones(episodes, bool)
    while running.any():
        state, _, terminated, truncated, _ = env.step(agent.greedy(state))
        steps[running] += 1
        running &= ~(terminated | truncated)  # one that starts over no longer counts
    return steps


# %% Results: no reinforcement learning from here on
def film(agent, config, seed):
    """Play a greedy episode, and return a picture of each step, at most 1000."""
    os.environ["SDL_VIDEODRIVER"] = "dummy"  # no display is needed
    # Otherwise SDL would swallow SIGTERM
    os.environ["SDL_NO_SIGNAL_HANDLERS"] = "1"
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, render_mode="rgb_array")
    state, _ = env.reset(seed=seed)
    pictures = []
    done = False
    while not done and len(pictures) < 1000:
        rows = env.render()[140:340]  # those of cart and pole, (200, 600, 3)
        pictures.append(Image.fromarray(rows).resize((450, 150)))
        state, _, terminated, truncated, _ = env.step(agent.greedy(state).item())
        done = terminated or truncated
    env.close()
    del os.environ["SDL_VIDEODRIVER"]  # your own windows need the display
    return pictures


def animate(pictures, path):
    """Write every second picture as a GIF, 40 ms each, which is real time."""
    frames = pictures[::2]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)


def plot(history, title, path):
    """Draw the mean steps while learning, and the tests."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    steps = [row.env_steps for row in history]
    means = [row.mean_steps for row in history]  # None is not drawn
    tests = [row.test_steps for row in history]
    axes.plot(steps, means, label="learning: mean of the last episodes")
    axes.plot(steps, tests, "o", label="test: steps until the first pole fell")
    axes.set(title=title, xlabel="environment steps", ylabel="steps")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def save_training(folder, agent, history):
    """Write weights.pth and history.csv, before anything else can go wrong."""
    torch.save(agent.network.state_dict(), folder / "weights.pth")
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Update._fields)
        writer.writerows(history)
    for result in ("learning_curve.png", "play.gif", "summary.json"):
        (folder / result).unlink(missing_ok=True)  # of an earlier run


def show(path):
    """In a notebook, show a picture below the cell."""
    if "ipykernel" in sys.modules:
        from IPython.display import HTML, display

        content = base64.b64encode(path.read_bytes()).decode()
        display(HTML(f'<img src="data:image/{path.suffix[1:]};base64,{content}" width="600">'))


# %% Main
def parse(arguments):
    """Return a Config and the other options; a bad one ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog=f"{NAME}.py",
        usage=argparse.SUPPRESS,
        description=f"{TITLE}. Usage: python {NAME}.py [--seed 3] [--output-dir DIR] ...",
        allow_abbrev=False,
    )
    for f in fields(Config):
        flag = "--" + f.name.replace("_", "-")
        reason = f"{f.metadata['reason']} ({f.default})"
        kind = type(f.default)
        parser.add_argument(flag, type=kind, default=f.default, metavar="X", help=reason)
    parser.add_argument("--output-dir", type=Path, default=Path("runs", NAME), metavar="DIR")
    parser.add_argument("--no-media", action="store_true", help="write no pictures")
    options = parser.parse_args(arguments)
    try:
        config = Config(**{f.name: getattr(options, f.name) for f in fields(Config)})
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return config, options


def main(arguments=()):
    """Train, evaluate, and write the results; return the agent."""
    config, options = parse(arguments)
    folder = options.output_dir

    start = time.perf_counter()
    agent, history = train(config)
    seconds = time.perf_counter() - start
    solved = bool(history) and history[-1].passed
    episodes = history[-1].episodes if history else 0
    env_steps = history[-1].env_steps if history else 0
    verdict = f"{'Solved' if solved else 'Not solved'} after {env_steps:,} steps"
    print(f"{verdict}, {episodes} episodes, {seconds:.1f} s.")
    save_training(folder, agent, history)

    new_seed = config.seed + 2**32  # above all seeds of trainings
    steps = evaluate(agent, config, new_seed)
    print(f"Greedy, 100 new episodes: mean {steps.mean():.1f}, {steps.min()} to {steps.max()}.")
    summary = {
        "script": NAME,
        "config": asdict(config),
        "solved": solved,
        "episodes": episodes,
        "env_steps": env_steps,
        "train_seconds": seconds,
        "greedy_mean": float(steps.mean()),
        "greedy_min": int(steps.min()),
        "greedy_max": int(steps.max()),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))

    if not options.no_media:
        plot(history, f"{TITLE}. {verdict}", folder / "learning_curve.png")
        animate(film(agent, config, new_seed), folder / "play.gif")
        show(folder / "learning_curve.png")
        show(folder / "play.gif")
    print(f"Results are in {folder}.")
    return agent


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    agent = main([] if in_cell else sys.argv[1:])
