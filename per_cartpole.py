# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26", "pillow", "torch>=2.4",
# ]
# ///

# %% [markdown]
"""
# Prioritized experience replay on CartPole

Uniform replay spends most updates on transitions that the network knows well. Replay those with a
large TD error delta = y - Q(s, a) more often. New ideas since ddqn_cartpole.py:

1. Priorities: transition i is drawn with probability P(i), larger for a larger error. A new one
   has no error yet: it gets the largest priority so far. The priority is renewed at each replay.
2. Sum tree: draws by priority, and changes a priority, in O(log N) steps each.
3. Importance weights w undo the bias of drawing some more often: a little at first, fully once
   beta is 1 (here learning mostly ends before).

    y    = r + gamma * clip(Q_target(s', argmax_a' Q(s', a')))    (as in double DQN)
    p_i  = |delta_i| + eps
    P(i) = p_i^alpha / sum_k p_k^alpha
    w_i  = (N P(i))^-beta, divided by the largest of the batch    (N: transitions in the memory)
    loss = mean_i w_i * Huber(delta_i)

Paper: Schaul et al. 2016, "Prioritized experience replay", arXiv 1511.05952, algorithm 1. Book:
Ogawa 2018, chapter 6.4, whose list takes O(N) per draw and has no weights. What differs here:

- Target as in ddqn_cartpole.py: the Q network picks the next action, the target network values it.
- Reward, target network, clipping, random actions and tests: as in dqn_cartpole.py. For the reasons
  see docs/differences.md.

Read Agent.learn first, then ReplayMemory, then SumTree: nothing else is new.

Expect: 58 episodes, 7,006 steps, 1.5 s (medians; 100 of 100 seeds solved); greedy 200 steps.
CartPole is too easy to rank DQN and its successors: look at how they differ, not which is faster.
"""

# %% Imports
import argparse
import base64
import copy
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

NAME = "per_cartpole"
TITLE = "Prioritized replay on CartPole"


# %% Settings
def setting(default, reason, low=1, high=10**9):
    """A field of Config. --help shows the reason; values outside [low, high] are refused."""
    return field(default=default, metadata={"reason": reason, "low": low, "high": high})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one is not valid."""

    seed: int = setting(0, "same seed, same machine: same history", low=0, high=2**32 - 1)
    episodes: int = setting(500, "give up after so many")
    max_steps: int = setting(200, "length of a full episode, as in the book")
    solved_after: int = setting(20, "full tests in a row; the book's 10 can be luck")
    gamma: float = setting(0.99, "discount per step", low=0, high=1)
    learning_rate: float = setting(5e-3, "of Adam; the book's 1e-4 is slower", low=0, high=1)
    batch_size: int = setting(128, "transitions per update; the book has 32")
    memory_size: int = setting(10_000, "transitions kept; the oldest are overwritten", high=10**7)
    hidden_size: int = setting(64, "units in each of two layers; the book has 32", high=10**4)
    epsilon: float = setting(0.1, "probability of a random action", low=0, high=1)
    tau: float = setting(0.1, "soft update: share of Q blended into the target", low=0, high=1)
    q_limit: float = setting(1.0, "clips next values to [-X, X]; returns lie in [-1, 0]", low=0)
    alpha: float = setting(0.6, "0: uniform replay, 1: in proportion to the error", low=0, high=1)
    beta: float = setting(0.4, "exponent of the weights; rises to 1", low=0, high=1)
    beta_steps: int = setting(5_000, "environment steps until beta is 1")
    priority_epsilon: float = setting(1e-4, "keeps every probability above 0", low=1e-12, high=1)
    uniform_steps: int = setting(0, "steps with equal priorities; the book: 30 episodes", low=0)

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
        if self.memory_size < self.batch_size:  # it would never learn
            raise ValueError("memory_size must be at least batch_size")


# %% Memory
class Batch(NamedTuple):
    """B transitions, one in each row."""

    state: torch.Tensor  # (B, state_size)
    action: torch.Tensor  # (B, 1), int64, as gather needs it
    reward: torch.Tensor  # (B,)
    next_state: torch.Tensor  # (B, state_size)
    terminated: torch.Tensor  # (B,), 1 if the pole fell; else 0, even at the time limit
    weight: torch.Tensor  # (B,), importance weights
    index: np.ndarray  # (B,), places in the memory


class SumTree:
    """A binary tree: leaf i holds p_i^alpha, every other node the sum of its two children.

    Node 1 is the root; node n has the children 2n and 2n + 1. Here nodes 4 to 7 are leaves 0 to 3:

             8           find(3.5) compares with the left child each time:
         4       4       3.5 < 4, so go left;
       3   1   0   4     3.5 >= 3, so go right with 3.5 - 3 = 0.5, to leaf 1
    """

    def __init__(self, capacity):
        # Steps from a leaf to the root: log2, rounded up
        self.depth = (capacity - 1).bit_length()
        self.first_leaf = 2**self.depth
        self.nodes = np.zeros(2 * self.first_leaf)

    def __getitem__(self, leaf):
        """Return the value of a leaf, or of leaves (B,)."""
        return self.nodes[self.first_leaf + leaf]

    def __setitem__(self, leaf, value):
        """Set the value of a leaf, or the values of leaves (B,), and all the sums above."""
        node = self.first_leaf + leaf
        self.nodes[node] = value
        for _ in range(self.depth):
            # The parent; siblings set it twice, to the same sum
            node = node // 2
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def total(self):
        """Return the sum of all leaves."""
        return self.nodes[1]

    def find(self, value):
        """Return, for each value (B,), the first leaf where the leaves' running sum exceeds it.

        All values go down at once: to the left child if less than its sum; else to the right one,
        less the left one's sum.
        """
        # All start at the root
        node = np.ones(len(value), np.int64)
        for _ in range(self.depth):
            left = 2 * node
            right = 2 * node + 1
            # The second condition: rounding errors must not lead to an empty leaf
            go_right = (value >= self.nodes[left]) & (self.nodes[right] > 0)
            value = np.where(go_right, value - self.nodes[left], value)
            node = np.where(go_right, right, left)
        return node - self.first_leaf


class ReplayMemory:
    """The last `memory_size` transitions, sampled by priority (Schaul et al. 2016)."""

    def __init__(self, config, state_size):
        self.config = config
        self.tree = SumTree(config.memory_size)
        self.max_priority = 1.0  # the largest p so far; 1 as in algorithm 1
        self.capacity = config.memory_size
        self.pushed = 0  # transitions ever stored
        self.state = np.zeros((self.capacity, state_size), np.float32)
        self.action = np.zeros((self.capacity, 1), np.int64)
        self.reward = np.zeros(self.capacity, np.float32)
        self.next_state = np.zeros((self.capacity, state_size), np.float32)
        self.terminated = np.zeros(self.capacity, np.float32)

    def __len__(self):
        return min(self.pushed, self.capacity)

    def push(self, state, action, reward, next_state, terminated):
        """Store a transition in place of the oldest, with the largest priority so far."""
        place = self.pushed % self.capacity
        self.state[place] = state
        self.action[place] = action
        self.reward[place] = reward
        self.next_state[place] = next_state
        self.terminated[place] = terminated
        self.tree[place] = self.max_priority**self.config.alpha  # so that it is replayed soon
        self.pushed += 1

    def sample(self, batch_size):
        """Return a Batch of random transitions, drawn by priority."""
        index = self.draw(batch_size)
        return Batch(
            state=torch.from_numpy(self.state[index]),
            action=torch.from_numpy(self.action[index]),
            reward=torch.from_numpy(self.reward[index]),
            next_state=torch.from_numpy(self.next_state[index]),
            terminated=torch.from_numpy(self.terminated[index]),
            weight=torch.from_numpy(self.weights(index)).float(),
            index=index,
        )

    def draw(self, batch_size):
        """Draw places (B,) by priority: one from each of batch_size equal parts of the total.

        This stratified sampling leaves less to chance than independent draws.
        """
        offset = torch.rand(batch_size, dtype=torch.float64).numpy()
        fraction = (np.arange(batch_size) + offset) / batch_size  # (B,), of the total
        return self.tree.find(fraction * self.tree.total())

    def weights(self, index):
        """w_i = (N P(i))^-beta, divided by the largest of the batch, shape (B,).

        What is drawn more often weighs less; the largest weight is 1, so that no step is too long.
        (N cancels.)
        """
        progress = min(1, self.pushed / self.config.beta_steps)
        beta = self.config.beta + progress * (1 - self.config.beta)
        probability = self.tree[index] / self.tree.total()  # P(i)
        weight = (len(self) * probability) ** -beta
        return weight / weight.max()

    def update_priorities(self, index, td_error):
        """Set the priorities of the transitions at index (B,) from their TD errors (B,)."""
        # For the first uniform_steps transitions all keep the same priority
        if self.pushed < self.config.uniform_steps:
            return
        priority = np.abs(td_error) + self.config.priority_epsilon
        self.tree[index] = priority**self.config.alpha
        self.max_priority = max(self.max_priority, priority.max())


# %% Network
class QNetwork(nn.Module):
    """Maps states (..., state_size) to action values (..., num_actions). The book: Net."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden1 = nn.Linear(state_size, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.q = nn.Linear(hidden_size, num_actions)

    def forward(self, state):
        hidden = torch.relu(self.hidden1(state))
        hidden = torch.relu(self.hidden2(hidden))
        return self.q(hidden)


# %% Agent
class Agent:
    """Acts epsilon-greedily on its Q network, and trains it from its memory. The book: Brain."""

    def __init__(self, config, state_size, num_actions):
        self.config = config
        self.num_actions = num_actions
        self.memory = ReplayMemory(config, state_size)
        self.q_network = QNetwork(state_size, config.hidden_size, num_actions)
        self.target_network = copy.deepcopy(self.q_network)
        # fused: all weights in one call, which is faster
        self.optimizer = torch.optim.Adam(
            self.q_network.parameters(), lr=config.learning_rate, fused=True
        )

    @torch.no_grad()
    def greedy(self, state):
        """Return the action with the largest Q in a state (state_size,), or in many (N, ...)."""
        return self.q_network(torch.from_numpy(state)).argmax(-1).numpy()

    def act(self, state, explore):
        """Return an action (int) for a state (state_size,). The book: Brain.decide_action."""
        if explore and torch.rand(1) < self.config.epsilon:
            return torch.randint(self.num_actions, (1,)).item()
        return self.greedy(state).item()

    @torch.no_grad()
    def td_target(self, batch):
        """y = r + gamma * clip(Q_target(s', argmax_a' Q(s', a'))), r after a fall; shape (B,)."""
        best_action = self.q_network(batch.next_state).argmax(1, keepdim=True)  # (B, 1)
        next_q = self.target_network(batch.next_state)  # (B, num_actions)
        next_q = next_q.gather(1, best_action).squeeze(1)  # (B,), of the best actions
        next_q = next_q.clamp(-self.config.q_limit, self.config.q_limit)
        return batch.reward + self.config.gamma * (1 - batch.terminated) * next_q

    def learn(self):
        """Make one gradient step on a batch, and return its loss. The book: Brain.replay."""
        batch = self.memory.sample(self.config.batch_size)
        q = self.q_network(batch.state)  # (B, num_actions)
        q = q.gather(1, batch.action).squeeze(1)  # (B,), of the actions taken
        target = self.td_target(batch)  # (B,)
        td_error = target - q.detach()  # (B,), delta
        # Huber's loss: squared for small errors, linear for large ones
        losses = nn.functional.smooth_l1_loss(q, target, reduction="none")  # (B,)
        loss = (batch.weight * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update_target()
        self.memory.update_priorities(batch.index, td_error.numpy())
        return loss.item()

    @torch.no_grad()
    def update_target(self):
        """target = (1 - tau) * target + tau * q, weight by weight."""
        for target, new in zip(self.target_network.parameters(), self.q_network.parameters()):
            target.lerp_(new, self.config.tau)


# %% Train
def run_episode(agent, env, learning):
    """Play an episode and store its steps; if learning, explore, and update after each step.

    Return its steps, whether the pole fell, and the losses. The book: the inner loop of
    Environment.run.
    """
    state, _ = env.reset()
    steps = 0
    losses = []
    done = False
    while not done:
        action = agent.act(state, explore=learning)
        next_state, reward, terminated, truncated, _ = env.step(action)
        # Only a fall ends the return: at the time limit (truncated) the pole still stands
        agent.memory.push(state, action, reward, next_state, terminated)
        if learning and len(agent.memory) >= agent.config.batch_size:
            losses.append(agent.learn())
        state = next_state
        steps += 1
        done = terminated or truncated
    return steps, terminated, losses


def train(config):
    """Train until solved, for config.episodes, or until Ctrl-C; return (agent, history).

    An episode is full if the pole does not fall. config.solved_after full tests in a row solve the
    task. The steps of tests count, and go into the memory, like all others.
    """
    torch.set_num_threads(1)  # more would slow so small a network down
    torch.manual_seed(config.seed)
    # The reward is -1 for a fall, else 0. Another task: docs/own_task.md
    env = gym.make("CartPole-v1", max_episode_steps=config.max_steps, sutton_barto_reward=True)
    env.reset(seed=config.seed)  # the resets that follow go on from it
    agent = Agent(config, env.observation_space.shape[0], env.action_space.n)
    history = []
    full_tests = 0
    fell = True  # so that the first episode learns
    print("episode  steps  kind      loss  full tests  env steps")
    try:
        while len(history) < config.episodes and full_tests < config.solved_after:
            # After a full episode come tests, without exploring or learning, until the pole falls
            learning = fell
            steps, fell, losses = run_episode(agent, env, learning)
            if not learning:
                full_tests += 1
            if fell:
                full_tests = 0
            row = Episode(
                episode=len(history) + 1,
                steps=steps,
                test=not learning,
                full_tests=full_tests,
                loss=float(np.mean(losses)) if losses else None,
                env_steps=agent.memory.pushed,  # every step was stored
            )
            history.append(row)
            if row.episode % 10 == 0 or full_tests == config.solved_after:
                print_row(row)
    except KeyboardInterrupt:
        print("Interrupted: what was learned is kept.")
    return agent, history


class Episode(NamedTuple):
    """A line of history.csv."""

    episode: int
    steps: int
    test: bool  # whether the agent neither explored nor learned
    full_tests: int  # in a row, up to here
    loss: float | None  # mean over the updates, None if there was none
    env_steps: int  # since the start of the training


def print_row(row):
    """Print an episode as a line of the table."""
    kind = "test" if row.test else "learn"
    loss = "-" if row.loss is None else f"{row.loss:.5f}"
    progress = f"{row.full_tests:10}  {row.env_steps:9,}"
    print(f"{row.episode:7}  {row.steps:5}  {kind:5}  {loss:>7}  {progress}")


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
        state, _, terminated, truncated, _ = env.step(agent.act(state, explore=False))
        done = terminated or truncated
    env.close()
    del os.environ["SDL_VIDEODRIVER"]  # your own windows need the display
    return pictures


def animate(pictures, path):
    """Write every second picture as a GIF, 40 ms each, which is real time."""
    frames = pictures[::2]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)


def plot(history, title, path):
    """Draw the steps of every episode, those of tests in another colour."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([row.episode for row in history], [row.steps for row in history], color="0.8")
    for test, label in ((False, "learning"), (True, "test: no learning, no exploring")):
        rows = [row for row in history if row.test == test]
        axes.plot([row.episode for row in rows], [row.steps for row in rows], "o", label=label)
    axes.set(title=title, xlabel="episode", ylabel="steps")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def save_training(folder, agent, history):
    """Write weights.pth and history.csv, before anything else can go wrong."""
    torch.save(agent.q_network.state_dict(), folder / "weights.pth")
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Episode._fields)
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
    solved = bool(history) and history[-1].full_tests == config.solved_after
    verdict = f"{'Solved' if solved else 'Not solved'} after {len(history)} episodes"
    print(f"{verdict}, {agent.memory.pushed:,} steps, {seconds:.1f} s.")
    save_training(folder, agent, history)

    new_seed = config.seed + 2**32  # above all seeds of trainings
    steps = evaluate(agent, config, new_seed)
    print(f"Greedy, 100 new episodes: mean {steps.mean():.1f}, {steps.min()} to {steps.max()}.")
    summary = {
        "script": NAME,
        "config": asdict(config),
        "solved": solved,
        "episodes": len(history),
        "env_steps": agent.memory.pushed,
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
