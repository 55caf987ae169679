# /// script
# requires-python = ">=3.10"
# dependencies = ["gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26", "torch>=2.4"]
# ///

# %% [markdown]
"""
# Double DQN on CartPole

The maximum over noisy estimates is too large: it picks what the target network overrates. In
double DQN the Q network picks the next action, and the target network says what it is worth.

    y    = r + gamma * Q_target(s', argmax_a' Q(s', a'))        (y = r if the pole fell)
    loss = Huber(Q(s, a) - y)

Paper: van Hasselt et al. 2016, arXiv 1509.06461. Book: Ogawa 2018, chapter 6.2.
Expect: 53 episodes, 6,916.5 steps, 2.0 s (medians; 100 of 100 seeds solved); greedy 200 steps.
"""

# %% Imports
import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections import namedtuple
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from PIL import Image
from torch import nn

SCRIPT, NOTEBOOK = "ddqn_cartpole", "ipykernel" in sys.modules


# %% Config
def setting(default, low, high, reason):
    """A field of Config: its default, the range it may have, and the reason, which --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history")
    episodes: int = setting(500, 1, 10**6, "give up after so many")
    max_steps: int = setting(200, 1, 10**5, "length of a full episode, as in the book")
    solved_after: int = setting(20, 1, 10**6, "full episodes in a row; the book's 10 can be luck")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(3e-3, 0, 1, "of Adam; the book's 1e-4 needs more episodes")
    batch_size: int = setting(64, 1, 10**5, "transitions per update; the book has 32")
    memory_size: int = setting(10_000, 1, 10**7, "transitions kept; the oldest are overwritten")
    hidden_size: int = setting(128, 1, 10**4, "units in each of two layers; the book has 32")
    epsilon: float = setting(0.1, 0, 1, "probability of a random action; the book: 0.5 / episode")
    tau: float = setting(0.05, 0, 1, "share of the Q network blended into the target per update")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, (str, bool)) or not low <= value <= high or f.type(value) != value:
                raise ValueError(f"{f.name} {value!r} is no {f.type.__name__} from {low} to {high}")
            setattr(self, f.name, f.type(value))  # NumPy's numbers become Python's


# %% Memory
# B transitions, a row each: state and next_state (B, state_size), action (B, 1) int64, reward and
# terminated (B,); terminated is 1 if the pole fell, else 0, also at the time limit
Batch = namedtuple("Batch", "state action reward next_state terminated")


class ReplayMemory:
    """The last `memory_size` transitions, sampled uniformly (Mnih et al. 2015)."""

    def __init__(self, config, state_size):
        self.pushed, n = 0, config.memory_size  # transitions ever stored, and kept
        state, next_state = np.zeros((2, n, state_size), np.float32)
        reward, terminated = np.zeros((2, n), np.float32)
        self.columns = state, np.zeros((n, 1), np.int64), reward, next_state, terminated

    def __len__(self):
        return min(self.pushed, len(self.columns[0]))

    def push(self, *transition):
        """Store (state, action, reward, next_state, terminated) in place of the oldest."""
        for column, value in zip(self.columns, transition, strict=True):
            column[self.pushed % len(column)] = value
        self.pushed += 1

    def sample(self, batch_size):
        """Return a Batch of random transitions, drawn with replacement."""
        index = torch.randint(len(self), (batch_size,)).numpy()
        return Batch(*(torch.from_numpy(column[index]) for column in self.columns))


# %% Network
class QNetwork(nn.Module):
    """Maps states (..., state_size) to action values (..., num_actions)."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden1 = nn.Linear(state_size, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.q = nn.Linear(hidden_size, num_actions)

    def forward(self, state):
        hidden = self.hidden2(self.hidden1(state).relu()).relu()
        return self.q(hidden)


# %% Agent
class Agent:
    """Acts epsilon-greedily on its Q network and trains it from its replay memory."""

    def __init__(self, config, state_size, num_actions):
        self.config, self.num_actions = config, num_actions
        self.rng = np.random.default_rng([config.seed, 2])  # not the environment's random stream
        self.memory = ReplayMemory(config, state_size)
        self.q_network = QNetwork(state_size, config.hidden_size, num_actions)
        self.target_network = copy.deepcopy(self.q_network)
        parameters = self.q_network.parameters()
        self.optimizer = torch.optim.Adam(parameters, config.learning_rate, fused=True)

    @torch.no_grad()
    def act(self, state, epsilon=0.0):
        """Return the greedy action in each state (..., state_size), or one random action."""
        if epsilon and self.rng.random() < epsilon:
            return self.rng.integers(self.num_actions)
        return self.q_network(torch.from_numpy(state)).argmax(-1).numpy()

    @torch.no_grad()
    def td_target(self, batch):
        """y = r + gamma * Q_target(s', argmax_a' Q(s', a')), shape (B,)."""
        best_action = self.q_network(batch.next_state).argmax(1, keepdim=True)  # (B, 1)
        next_q = self.target_network(batch.next_state).gather(1, best_action).squeeze(1)
        return batch.reward + self.config.gamma * (1 - batch.terminated) * next_q

    def learn(self):
        """Make one gradient step on a batch, then move the target network; return the loss."""
        batch = self.memory.sample(self.config.batch_size)
        q = self.q_network(batch.state).gather(1, batch.action).squeeze(1)  # (B,)
        loss = nn.functional.smooth_l1_loss(q, self.td_target(batch))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update_target()
        return loss.item()

    @torch.no_grad()
    def update_target(self):
        """target = (1 - tau) * target + tau * q, weight by weight."""
        for target, q in zip(self.target_network.parameters(), self.q_network.parameters()):
            target.lerp_(q, self.config.tau)


# %% Train
# A line of history.csv. loss: mean of the updates, nan without one; env_steps: since the start
Episode = namedtuple("Episode", "episode steps mean_of_10 full_in_a_row loss env_steps")


def train(config):
    """Train until solved, or for `config.episodes`, or until Ctrl-C; return (agent, history).

    A full episode has no fall. From the first one to the next fall, exploring and learning pause:
    the greedy policy is tested. `config.solved_after` full episodes in a row solve the task.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only slow so small a network down
    torch.manual_seed(config.seed)
    # The reward is -1 for a fall, else 0. Another task: docs/own_task.md
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, sutton_barto_reward=True)
    agent = Agent(config, env.observation_space.shape[0], env.action_space.n)
    history, full, start = [], 0, time.perf_counter()
    try:
        say("episode  steps  mean of 10  full in a row     loss  env steps")
        while len(history) < config.episodes and full < config.solved_after:
            episode, steps, losses, done = len(history) + 1, 0, [], False
            state, _ = env.reset(seed=None if history else config.seed)
            while not done:
                action = agent.act(state, 0.0 if full else config.epsilon)
                next_state, reward, terminated, truncated, _ = env.step(action)
                # Only a fall ends the return: at the time limit (truncated) the pole still stands
                agent.memory.push(state, action, reward, next_state, terminated)
                state, steps, done = next_state, steps + 1, terminated or truncated
                if full == 0 and agent.memory.pushed >= config.batch_size:
                    losses.append(agent.learn())
            full = 0 if terminated else full + 1
            mean = float(np.mean([*(row.steps for row in history[-9:]), steps]))
            loss, env_steps = float(np.mean(losses or [np.nan])), agent.memory.pushed
            history.append(Episode(episode, steps, mean, full, loss, env_steps))
            if episode % 10 == 0 or full == config.solved_after:
                say("{:7}  {:5}  {:10.1f}  {:13}  {:7.5f}  {:9,}".format(*history[-1]))
        agent.verdict = "Solved" if full == config.solved_after else "Not solved"
    except KeyboardInterrupt:
        agent.verdict = "Interrupted"
    torch.set_num_threads(threads)
    agent.seconds = time.perf_counter() - start
    return agent, history


def evaluate(agent, config, seed, episodes=100, frames=None):
    """Play new episodes greedily, all at once, the first into frames; return steps (episodes,)."""
    limit, mode = config.max_steps, None if frames is None else "rgb_array"
    env = gym.make_vec("CartPole-v1", episodes, max_episode_steps=limit, render_mode=mode)
    state, _ = env.reset(seed=seed)
    steps, running = np.zeros(episodes, int), np.ones(episodes, bool)
    while running.any():
        if mode and steps[0] % 2 == 0 and steps[0] < 1000:  # 25 pictures a second, 20 seconds
            frames.append(Image.fromarray(env.render()[0]).resize((300, 200)).quantize(32))
        state, _, terminated, truncated, _ = env.step(agent.act(state))
        steps += running
        running &= ~(terminated | truncated)  # an environment that starts over counts no more
    return steps


# %% Results
def say(line, file=None):
    """Print at once; what the terminal can't show, or a reader who left, must not end the run."""
    try:
        print(line, file=file, flush=True)
    except UnicodeEncodeError:
        print(ascii(line), file=file, flush=True)
    except OSError:  # the reader left, the terminal is closed, the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), (file or sys.stdout).fileno())


def save(path, write):
    """Fill a file by write(path), whole or not at all; return whether that worked."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
            write(part := Path(folder, path.name))
            part.replace(path)
        return True
    except (OSError, RuntimeError) as error:  # RuntimeError: torch.save on a full disk
        say(f"{SCRIPT}.py: can't write {path}: {error}", sys.stderr)


@patch.dict(os.environ, SDL_VIDEODRIVER="dummy")  # no display is needed
def pictures(agent, config, history):
    """Return what writes each picture: the learning curve, and one greedy episode."""
    from matplotlib.figure import Figure  # not earlier: see MPLBACKEND below

    axes, frames = Figure(figsize=(8, 4.5), layout="constrained").subplots(), []
    episodes, steps, mean, *_ = zip(*history)
    axes.plot(episodes, steps, ".-", color="0.75", label="steps")
    axes.plot(episodes, mean, label="mean of the last 10")
    axes.set(title=SCRIPT, xlabel="episode", ylabel="steps")
    axes.legend()
    evaluate(agent, config, 2**32 + config.seed, 1, frames)
    play = partial(frames[0].save, save_all=True, append_images=frames[1:], duration=40, loop=0)
    return {"learning_curve.png": axes.figure.savefig, "play.gif": play}


# %% Main
def parse(arguments):
    """Return a Config, with output_dir and media; arguments without sense end the program."""
    parser = argparse.ArgumentParser(f"{SCRIPT}.py", argparse.SUPPRESS, allow_abbrev=False)
    for f in fields(Config):
        flag, reason = "--" + f.name.replace("_", "-"), f"{f.metadata['reason']} ({f.default})"
        parser.add_argument(flag, type=f.type, metavar="", help=reason)
    parser.add_argument("--output-dir", default=f"runs/{SCRIPT}", help="for the results")
    parser.add_argument("--no-media", dest="media", action="store_false", help="write no pictures")
    config = parser.parse_args(arguments, Config())
    config.output_dir = Path(os.path.expanduser(config.output_dir))
    try:
        for module, oldest in (torch, "2.4.0"), (gym, "1.0.0"), (np, "1.26.0"):
            if np.lib.NumpyVersion(module.__version__.split("+")[0]) < oldest:
                raise ValueError(f"{module.__name__} is older than {oldest}")
        config.__post_init__()
        config.output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=config.output_dir).close()  # fails now, not after the training
    except (ValueError, OSError) as error:
        parser.error(error)
    return config


def main(arguments=()):
    """Train, evaluate and save; return the agent."""
    config = parse(arguments)
    agent, history = train(config)
    episodes, env_steps, seconds = len(history), agent.memory.pushed, agent.seconds
    say(f"{agent.verdict} after {episodes} episodes, {env_steps:,} steps, {seconds:.1f} s.")
    ten = next((f"met in episode {r.episode}" for r in history if r.full_in_a_row == 10), "not met")
    say(f"The book's criterion, ten full episodes in a row: {ten}.")
    steps = evaluate(agent, config, 2**32 + config.seed)  # of episodes that no training has seen
    test = {name: float(getattr(steps, name)()) for name in ("mean", "std", "min", "max")}
    say("Greedy, 100 new episodes: mean {mean:.1f}, {min:.0f} to {max:.0f} steps.".format(**test))
    solved, interrupted = agent.verdict == "Solved", agent.verdict == "Interrupted"
    summary = {"script": SCRIPT, "config": asdict(config), "solved": solved, "episodes": episodes}
    summary |= {"env_steps": env_steps, "train_seconds": seconds, "interrupted": interrupted}
    summary |= {"steps_per_second": env_steps / seconds, "evaluation": {"episodes": 100, **test}}
    files = {"weights.pth": partial(torch.save, agent.q_network.state_dict())}
    files["history.csv"] = lambda path: np.savetxt(path, [Episode._fields, *history], "%s", ",")
    files["summary.json"] = lambda path: path.write_text(json.dumps(summary, indent=2))
    shown = pictures(agent, config, history) if config.media and history else {}
    files, folder = files | shown, config.output_dir
    saved = [folder / name for name, write in files.items() if save(folder / name, write)]
    say(f"Results are in {folder}.")
    if NOTEBOOK:
        from IPython import display

        display.display(*(display.Image(path) for path in saved if path.name in shown))
    elif interrupted or len(saved) < len(files):
        sys.exit(130 if interrupted else 1)
    return agent


if __name__ == "__main__":
    if not NOTEBOOK:
        os.environ["MPLBACKEND"] = "agg"  # one inherited from a notebook may not load here
    # A kernel's own arguments are not ours, but those of %run are
    agent = main(sys.argv[1:] if not NOTEBOOK or sys.argv[0] == globals().get("__file__") else ())
