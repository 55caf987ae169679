# /// script
# requires-python = ">=3.11"
# dependencies = ["gymnasium[classic-control]==1.4.0", "matplotlib==3.11.2", "numpy==2.4.6", "torch==2.13.0"]
# ///

# %% [markdown]
"""
# DQN on CartPole

A network learns Q(s, a), the return to expect after action a in state s, from
targets made of its own estimates. Two things keep that stable: transitions are
replayed from a memory in random order, and the targets come from a second
network, which follows the first one slowly.

    y = r + gamma * max_a Q_target(s', a)        (y = r where the pole fell)
    loss = Huber(Q(s, a) - y)          (the paper's error clipped to [-1, 1])

Paper: Mnih et al. 2015, "Human-level control through deep reinforcement
learning", algorithm 1; target network blended as in Lillicrap et al. 2015,
arXiv 1509.02971, algorithm 1. Chapter: DQN, 5 in the book of Ogawa (2018),
whose code is "the article" below.

Run: python dqn_cartpole.py [--seed 3] [--output-dir DIR] ...
Expect: solved after 46 episodes and 1.9 s (medians; 100 of 100 seeds), then a
greedy mean of 200 steps (worst seed 198.8).
"""

# %% Imports
import argparse
import copy
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames are drawn in memory: no display needed

import gymnasium as gym
import numpy as np
import torch
import torch._dynamo  # takes a second: else the first optimizer would load it, within the timed training
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

SCRIPT = "dqn_cartpole"


# %% Config
def setting(default, low, high, reason):
    """One field of Config: its default, the range it may have, and the reason that --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """Every hyperparameter; each is a command-line flag too. Raises ValueError where one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history")
    episodes: int = setting(500, 1, 10**6, "episodes after which to give up")
    max_steps: int = setting(200, 1, 10**5, "limit of an episode; CartPole-v1's own is 500")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(3e-3, 0, 1, "Adam's; above the article's 1e-4, to learn from fewer updates")
    batch_size: int = setting(64, 1, 10**5, "transitions per update; twice the article's 32, for steadier gradients")
    memory_size: int = setting(10_000, 1, 10**7, "transitions kept; the oldest is overwritten")
    hidden_size: int = setting(128, 1, 10**4, "units in each of two layers; the article's 32 need more episodes")
    epsilon: float = setting(0.5, 0, 1, "probability of a random action in episode 1; divided by k in episode k")
    update_every: int = setting(2, 1, 10**4, "steps from update to update; the article's 1 takes more time")
    tau: float = setting(0.05, 0, 1, "share of the Q network that the target takes at each update; a whole copy is 1")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, bool) or not isinstance(value, (int, f.type)) or not low <= value <= high:
                raise ValueError(f"{f.name} must be {f.type.__name__} between {low} and {high}, not {value!r}")
        if self.batch_size > self.memory_size:
            raise ValueError(f"batch_size must be at most memory_size ({self.memory_size}), not {self.batch_size}")

    @property
    def stood(self):
        """Steps from which an episode counts as stood: the article's 195 of 200, in proportion."""
        return 0.975 * self.max_steps


# %% Memory
class Batch(NamedTuple):
    """B transitions, one a row."""

    state: torch.Tensor  # (B, state_size) float32
    action: torch.Tensor  # (B, 1) int64
    reward: torch.Tensor  # (B,) float32
    next_state: torch.Tensor  # (B, state_size) float32
    terminated: torch.Tensor  # (B,) float32: 1 where the pole fell, 0 also at the step limit


class ReplayMemory:
    """The last `config.memory_size` transitions, drawn uniformly (Mnih et al. 2015, "experience replay")."""

    def __init__(self, config, state_size):
        capacity = config.memory_size
        self.state = np.zeros((capacity, state_size), np.float32)
        self.action = np.zeros((capacity, 1), np.int64)
        self.reward = np.zeros(capacity, np.float32)
        self.next_state = np.zeros((capacity, state_size), np.float32)
        self.terminated = np.zeros(capacity, np.float32)
        self.pushed = 0  # transitions ever stored

    def __len__(self):
        return min(self.pushed, len(self.state))

    def push(self, state, action, reward, next_state, terminated):
        """Stores one transition in the place of the oldest."""
        i = self.pushed % len(self.state)
        self.state[i], self.action[i], self.reward[i] = state, action, reward
        self.next_state[i], self.terminated[i] = next_state, terminated
        self.pushed += 1

    def sample(self, batch_size):
        """Returns a Batch, drawn with replacement; at least one transition must have been pushed."""
        index = torch.randint(len(self), (batch_size,)).numpy()
        columns = (self.state, self.action, self.reward, self.next_state, self.terminated)
        return Batch(*(torch.from_numpy(column[index]) for column in columns))


# %% Network
class QNetwork(nn.Module):
    """Maps states (..., state_size) to the value of each action (..., num_actions)."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(state_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size), nn.ReLU()
        )
        self.q = nn.Linear(hidden_size, num_actions)

    def forward(self, state):
        return self.q(self.hidden(state))


# %% Agent
class Agent:
    """Acts epsilon-greedily on its Q network and trains it on transitions from its memory."""

    def __init__(self, config, state_size, num_actions):
        self.config = config
        self.num_actions = num_actions
        self.rng = np.random.default_rng([config.seed, 2])  # not [seed] alone: that is the environment's stream
        self.memory = ReplayMemory(config, state_size)
        self.q_network = QNetwork(state_size, config.hidden_size, num_actions)
        self.target_network = copy.deepcopy(self.q_network)
        self.optimizer = torch.optim.Adam(self.q_network.parameters(), lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def act(self, state, epsilon=0.0):
        """Returns the greedy action in each state (..., state_size), or with probability epsilon one random action."""
        if self.rng.random() < epsilon:
            return self.rng.integers(self.num_actions)
        return self.q_network(torch.from_numpy(state)).argmax(-1).numpy()

    @torch.no_grad()
    def td_target(self, batch):
        """Returns y (B,) = r + gamma * max_a Q_target(s', a) (Mnih et al. 2015, algorithm 1)."""
        next_q = self.target_network(batch.next_state).amax(1)  # (B,)
        return batch.reward + self.config.gamma * (1 - batch.terminated) * next_q

    def learn(self):
        """Makes one gradient step on a batch and returns its loss."""
        batch = self.memory.sample(self.config.batch_size)
        q = self.q_network(batch.state).gather(1, batch.action).squeeze(1)  # (B,)
        loss = F.smooth_l1_loss(q, self.td_target(batch))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def sync(self):
        """Blends the Q network into the target network: target = (1 - tau) * target + tau * q."""
        for target, q in zip(self.target_network.parameters(), self.q_network.parameters(), strict=True):
            target.lerp_(q, self.config.tau)


# %% Train
class Row(NamedTuple):
    """One episode: a line of history.csv."""

    episode: int  # from 1
    steps: int
    mean_of_10: float  # steps of the last ten episodes
    epsilon: float
    loss: float  # mean over the episode's updates, nan where there was none
    env_steps: int  # since the start
    checks: int  # by the greedy policy since the start; their steps are not in env_steps
    solved: bool


def train(config, stop=lambda: False):
    """Trains until solved, until `config.episodes` are over or until stop() is true; returns (agent, list of Row).

    Whenever an episode stood, the greedy policy is checked on 100 fresh ones. While it passes, all of them standing,
    learning rests: updates may spoil what works. Solved: it passes, and the last ten training episodes stood.
    """
    torch.set_num_threads(1)  # so small a network gains nothing from a second thread, and crawls on a busy machine
    torch.manual_seed(config.seed)
    # -1 for a fall, else 0: the article's +1 for reaching the limit made sense while that counted as an end
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, sutton_barto_reward=True)
    env.reset(seed=config.seed)  # once: every episode goes on with this stream of random numbers
    agent = Agent(config, env.observation_space.shape[0], env.action_space.n)
    history, env_steps, checks, at_rest, start = [], 0, 0, False, time.perf_counter()
    print("episode  steps  mean of 10  epsilon     loss  steps/s")
    for episode in range(1, config.episodes + 1):
        epsilon, losses = config.epsilon / episode, []
        state, _ = env.reset()
        for step in range(1, config.max_steps + 1):
            action = agent.act(state, epsilon)
            next_state, reward, terminated, truncated, _ = env.step(action)
            agent.memory.push(state, action, reward, next_state, terminated)  # not truncated: time up is no fall
            state, env_steps = next_state, env_steps + 1
            if not at_rest and env_steps >= config.batch_size and env_steps % config.update_every == 0:
                losses.append(agent.learn())
                agent.sync()
            if terminated or truncated or stop():
                break
        if stop():
            break
        if step < config.stood:
            at_rest = False
        elif not at_rest:
            at_rest = evaluate(agent, config, seed=agent.rng.integers(2**32)).min() >= config.stood
            checks += 1
        last = [row.steps for row in history[-9:]] + [step]
        solved = at_rest and len(last) == 10 and min(last) >= config.stood
        mean, loss = np.mean(last), np.mean(losses or [np.nan])
        history.append(Row(episode, step, mean, epsilon, loss, env_steps, checks, solved))
        if episode % 10 == 0 or solved or episode == config.episodes:
            speed = env_steps / (time.perf_counter() - start)
            print(f"{episode:7}  {step:5}  {mean:10.1f}  {epsilon:7.4f}  {loss:7.5f}  {speed:7,.0f}", flush=True)
        if solved:
            break
    return agent, history


# %% Results
def evaluate(agent, config, seed, episodes=100):
    """Plays fresh episodes greedily, all at once; returns the steps of each: (episodes,) int."""
    env = gym.make_vec("CartPole-v1", num_envs=episodes, max_episode_steps=config.max_steps)
    state, _ = env.reset(seed=int(seed))
    steps, running = np.zeros(episodes, int), np.ones(episodes, bool)
    while running.any():
        state, _, terminated, truncated, _ = env.step(agent.act(state))
        steps += running
        running &= ~(terminated | truncated)  # an environment that starts over counts no more
    return steps


def learning_curve(history, config):
    """Returns a figure of the steps of every episode and their running mean."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    episodes = [row.episode for row in history]
    axes.plot(episodes, [row.steps for row in history], ".-", color="0.75", label="steps of the episode")
    axes.plot(episodes, [row.mean_of_10 for row in history], label="mean of the last 10")
    axes.axhline(config.stood, color="tab:green", linestyle="--", label=f"stood: {config.stood:g} steps")
    axes.set(title=f"{SCRIPT}, seed {config.seed}", xlabel="episode", ylabel="steps")
    axes.legend(loc="lower right")
    return figure


def animation(agent, config, seed):
    """Plays one greedy episode; returns its pictures, 25 a second."""
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, render_mode="rgb_array")
    state, _ = env.reset(seed=seed)
    frames = []
    for step in range(1000):  # 20 seconds are enough to see
        if step % 2 == 0:  # 25 frames a second: CartPole makes 50 steps
            frames.append(Image.fromarray(env.render()).resize((300, 200)).quantize(32))
        state, _, terminated, truncated, _ = env.step(agent.act(state))
        if terminated or truncated:
            break
    env.close()
    return frames


def save(path, write):
    """Fills a file by write(file), whole or not at all: under another name first, renamed once it is complete."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        write(file)
    os.replace(part, path)


def show(*paths):
    """Shows pictures in a notebook, and does nothing elsewhere."""
    if "ipykernel" in sys.modules:
        from IPython import display

        for path in paths:
            display.display(display.Image(path))


# %% Main
def parse(arguments):
    """Returns (config, output_dir, media) from command-line arguments; one that makes no sense ends the program."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(f"{SCRIPT}.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.error = lambda problem: parser.exit(2, f"{SCRIPT}.py: error: {problem} (--help lists the settings)\n")
    for f in fields(Config):
        flag, reason = "--" + f.name.replace("_", "-"), f"{f.metadata['reason']} (default: {f.default})"
        parser.add_argument(flag, type=f.type, default=f.default, metavar=f.type.__name__, help=reason)
    runs = Path("runs", SCRIPT)
    parser.add_argument("--output-dir", type=Path, default=runs, metavar="dir", help=f"for results (default: {runs})")
    parser.add_argument("--no-media", dest="media", action="store_false", help="write no picture and no animation")
    values = vars(parser.parse_args(arguments))
    output_dir, media = values.pop("output_dir"), values.pop("media")
    try:
        config = Config(**values)
        output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir).close()  # fails now rather than after the training
    except ValueError as error:
        parser.error(error)
    except OSError as error:
        parser.error(f"can't write into {output_dir}: {error.strerror}; choose another --output-dir")
    return config, output_dir, media


@contextmanager
def caught_signals():
    """Yields a list that collects Ctrl-C and SIGTERM, so that a run ends between two steps and saves what it has."""
    caught = []
    before = {n: signal.signal(n, lambda number, _: caught.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments=()):
    """Trains, evaluates and saves; returns (agent, history), for a notebook to go on with."""
    config, output_dir, media = parse(arguments)
    with caught_signals() as signals:
        start = time.perf_counter()
        agent, history = train(config, stop=lambda: bool(signals))
        seconds = time.perf_counter() - start
        last = history[-1] if history else Row(*[0] * len(Row._fields))  # stopped in the first episode: no row
        verdict = "Solved" if last.solved else "Interrupted" if signals else "Not solved"
        print(f"{verdict} after {last.episode} episodes, {last.env_steps:,} steps, {seconds:.1f} s.")

        seed = 2**32 + config.seed  # beyond all seeds of the training and its checks
        steps = evaluate(agent, config, seed)
        mean, std, low, high = steps.mean(), steps.std(), int(steps.min()), int(steps.max())
        print(f"Greedy evaluation, {len(steps)} episodes: mean {mean:.1f}, std {std:.1f}, min {low}, max {high} steps.")

        summary = {
            "script": SCRIPT,
            "config": asdict(config),
            "solved": bool(last.solved),
            "episodes": last.episode,
            "env_steps": last.env_steps,
            "checks": last.checks,
            "train_seconds": seconds,
            "steps_per_second": last.env_steps / seconds,
            "interrupted": bool(signals),
            "evaluation": {"episodes": len(steps), "mean": mean, "std": std, "min": low, "max": high},
        }
        names = ",".join(Row._fields)
        save(output_dir / "weights.pth", lambda file: torch.save(agent.q_network.state_dict(), file))
        save(output_dir / "summary.json", lambda file: file.write(json.dumps(summary, indent=2).encode()))
        save(output_dir / "history.csv", lambda file: np.savetxt(file, history, "%.9g", ",", header=names, comments=""))
        if media:
            curve, (frame, *frames) = learning_curve(history, config), animation(agent, config, seed)
            gif = {"format": "gif", "save_all": True, "append_images": frames, "duration": 40, "loop": 0}
            save(output_dir / "learning_curve.png", lambda file: curve.savefig(file, format="png"))
            save(output_dir / "play.gif", lambda file: frame.save(file, **gif))
            show(output_dir / "learning_curve.png", output_dir / "play.gif")
        print(f"Wrote the results to {output_dir}.")
    if summary["interrupted"] and "ipykernel" not in sys.modules:
        sys.exit(128 + signals[0])
    return agent, history


if __name__ == "__main__":
    # In a notebook the arguments are the kernel's
    agent, history = main([] if "ipykernel" in sys.modules else sys.argv[1:])
