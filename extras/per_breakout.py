# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "ale-py>=0.11.2", "gymnasium>=1.1", "matplotlib>=3.8", "numpy>=1.26", "torch>=2.4", "tqdm",
# ]
# ///

# %% [markdown]
"""
# Prioritized replay on Breakout

Double DQN with prioritized replay, as on CartPole, here with a convolutional network, n-step
returns and a memory of single pictures. Switches take parts out, or put one in:

    --alpha 0: double DQN      --dueling 1: dueling network      --double 0: DQN's target

    y_t  = r_t + ... + gamma^(n-1) r_t+n-1 + gamma^n Q_target(s_t+n, argmax_a Q(s_t+n, a))
    P(i) = p_i^alpha / sum_k p_k^alpha,    p_i = |y_i - Q(s_i, a_i)| + eps
    loss = mean_i w_i * Huber(y_i - Q(s_i, a_i)),    w_i = (N P(i))^-beta / max_j w_j

Papers: Schaul et al. 2016, "Prioritized experience replay", arXiv 1511.05952, algorithm 1; Mnih et
al. 2015, "Human-level control through deep reinforcement learning". Article: the one on the sum
tree, 優先順位付き経験再生 (Prioritized Experience Replay).

The task: python extras/per_breakout.py random
Trained:  python extras/per_breakout.py play [--weights FILE]  (and --dueling 1, if trained so)
Train:    python extras/per_breakout.py [--seed 3] [--output-dir DIR] ...      (for hours)
Go on:    python extras/per_breakout.py --resume
Expect: the agent in weights/: mean score 126 in 100 whole games (2.0 million steps, one training).
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
import warnings
from collections import namedtuple
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # idle threads of torch give way to others
    warnings.filterwarnings("ignore", "Attempting to run cuBLAS")  # harmless: CUDA starts up

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

try:
    import ale_py.vector_env
except ImportError as error:
    sys.exit(f"per_breakout.py needs ale-py 0.11.2 and gymnasium 1.1 or newer: {error}")

SCRIPT, NOTEBOOK = "per_breakout", "ipykernel" in sys.modules


# %% Config
def setting(default, low, high, reason):
    """A field of Config: its default, the range it may have, and the reason, which --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history, unless resumed")
    steps: int = setting(2_000_000, 1, 10**12, "environment steps, of 4 frames each")
    num_envs: int = setting(8, 1, 10**4, "games played at once; the article has 1")
    double: int = setting(1, 0, 1, "1: target of double DQN; 0: of DQN")
    dueling: int = setting(0, 0, 1, "1: a head for V, one for the advantages; 0: one for Q")
    n_step: int = setting(3, 1, 100, "rewards in a return; the papers above have 1")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(2e-4, 0, 1, "of Adam")
    max_grad_norm: float = setting(10.0, 0, 10**3, "longer gradients are clipped")
    batch_size: int = setting(32, 1, 10**5, "transitions per update, one update a step")
    memory_size: int = setting(200_000, 1, 10**9, "transitions kept, as in the article")
    learn_start: int = setting(20_000, 1, 10**9, "transitions in memory from which on it learns")
    target_every: int = setting(250, 1, 10**9, "updates between copies of the target network")
    epsilon: float = setting(0.01, 0, 1, "probability of a random action in the end; first it is 1")
    epsilon_steps: int = setting(250_000, 1, 10**9, "environment steps until it gets there")
    alpha: float = setting(0.5, 0, 1, "0 replays uniformly, 1 fully in proportion to the TD error")
    beta: float = setting(0.4, 0, 1, "share of the bias corrected at first; it rises to 1; 0: none")
    priority_epsilon: float = setting(0.01, 1e-12, 1, "eps: what has no error is drawn too")
    fire: int = setting(1, 0, 1, "1: FIRE starts each life; 0: the policy has to find out")
    clip_rewards: int = setting(1, 0, 1, "1: a brick pays 1, as in the article; 0: 1, 4 or 7")
    bfloat16: int = setting(1, 0, 1, "half the precision, on CPUs that are faster so; 0: float32")
    checkpoint_every: int = setting(100_000, 1, 10**12, "environment steps between checkpoints")
    checkpoint_memory: int = setting(0, 0, 1, "1: with the replay memory, 7 KB a transition")
    max_frames: int = setting(108_000, 100, 10**9, "the longest game: half an hour, as usual")
    games: int = setting(10, 1, 1000, "games to play, after a training too")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, (str, bool)) or not low <= value <= high or f.type(value) != value:
                raise ValueError(f"{f.name} {value!r} is no {f.type.__name__} from {low} to {high}")
            setattr(self, f.name, f.type(value))  # NumPy's numbers become Python's
        least, most = self.num_envs * (self.n_step + 5), self.memory_size - self.num_envs
        if most < least:
            raise ValueError(f"memory_size {self.memory_size} is too small for so many games")
        if not least <= self.learn_start <= most:  # else it learns from nothing, or never
            raise ValueError(f"learn_start {self.learn_start} is not from {least} to {most}")


# %% Memory
# B transitions, a row each: state and next_state (B, 4, 84, 84) of bytes, action (B, 1) int64;
# reward (B,): of n steps, discounted; discount (B,): of Q(next_state), 0 if the life was lost;
# weight (B,): the importance weights; index (B,): the places in the memory
Batch = namedtuple("Batch", "state action reward next_state discount weight index")


class SumTree:
    """A binary tree: leaves hold p^alpha, every other node the sum of its two children."""

    def __init__(self, capacity):
        self.depth = (capacity - 1).bit_length()
        self.first_leaf = 2**self.depth
        self.nodes = np.zeros(2 * self.first_leaf)  # 1 is the root; 2n, 2n + 1 are n's children

    def __getitem__(self, leaf):
        return self.nodes[self.first_leaf + leaf]

    def __setitem__(self, leaf, priority):
        """Set one leaf, or leaves (B,), and all the sums above."""
        node = self.first_leaf + leaf
        self.nodes[node] = priority
        for _ in range(self.depth):
            parent = node // 2
            self.nodes[parent] = self.nodes[node] + self.nodes[node ^ 1]  # ^ 1: its sibling
            node = parent

    def find(self, value):
        """Return the leaves (B,) in which the running sum of the leaves passes the values (B,)."""
        node = np.ones(len(value), np.int64)
        for _ in range(self.depth):
            node = 2 * node
            left = self.nodes[node]
            right = (value >= left) & (self.nodes[node + 1] > 0)  # rounding finds no empty leaf
            value = value - left * right
            node = node + right
        return node - self.first_leaf


class ReplayMemory:
    """The last `memory_size` transitions, sampled by priority (Schaul et al. 2016).

    A row is one step of all games, with one picture of each: stacks would hold each four times.
    ValueError if the machine has too little memory.
    """

    def __init__(self, config):
        if hasattr(os, "sysconf"):  # not on Windows
            there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
            if (need := config.memory_size * 84 * 84 / 2**30) > there:
                raise ValueError(f"memory_size needs {need:.1f} GiB, {there:.1f} are there")
        self.config, self.pushed, self.max_priority = config, 0, 1.0  # pushed: rows, ever
        shape = config.memory_size // config.num_envs, config.num_envs
        self.frames = np.zeros((*shape, 84, 84), np.uint8)
        self.action, self.reward = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        self.terminated, self.truncated, self.valid = ends = [*np.zeros((3, *shape), bool)]
        self.columns = self.frames, self.action, self.reward, *ends  # a step in each row
        self.tree = SumTree(self.valid.size)

    def __len__(self):
        return min(self.pushed * self.config.num_envs, self.valid.size)

    def push(self, *step):
        """Store frame (N, 84, 84), action, reward, terminated, truncated and valid, (N,) each."""
        rows, games = self.valid.shape
        for column, value in zip(self.columns, step, strict=True):
            column[self.pushed % rows] = value
        spoiled = (self.pushed + 3) % rows  # its state begins with the picture just overwritten
        self.tree[spoiled * games + np.arange(games)] = 0.0
        ready = (self.pushed - self.config.n_step) % rows  # now the state after n steps is there
        self.tree[ready * games + np.arange(games)] = self.max_priority * self.valid[ready]
        self.pushed += 1

    def restore(self, pushed, max_priority, *arrays):
        """Go back to what was saved."""
        self.pushed, self.max_priority = pushed, max_priority
        for column, array in zip((*self.columns, self.tree.nodes), arrays, strict=True):
            column[:] = array.numpy()

    def end_games(self):
        """New games follow, so that the last step leads nowhere."""
        last = (self.pushed - 1) % len(self.valid)
        self.valid[last], self.truncated[last - 1] = False, True

    def stack(self, row, game):
        """Return the states (B, 4, 84, 84) of games (B,) at rows (B,)."""
        rows, game = (row[:, None] + np.arange(-3, 1)) % len(self.valid), game[:, None]
        first = self.terminated[rows - 1, game] | ~self.valid[rows - 1, game]  # of a life
        state = self.frames[rows, game]
        for k in 2, 1, 0:
            state[first[:, k + 1], k] = 0  # no picture of the life before
            first[:, k] |= first[:, k + 1]
        return torch.from_numpy(state)

    def sample(self, batch_size, beta):
        """Return a Batch, one transition from each of batch_size equal parts of the total."""
        part = np.arange(batch_size) + torch.rand(batch_size, dtype=torch.float64).numpy()
        index = self.tree.find(part / batch_size * self.tree.nodes[1])
        row, game = np.divmod(index, self.config.num_envs)
        state, action = self.stack(row, game), torch.from_numpy(self.action[row, game, None])
        reward, discount = np.zeros(batch_size), np.ones(batch_size)
        going = np.ones(batch_size, int)  # 0 from the end of the life or the game on
        for _ in range(self.config.n_step):
            reward += going * discount * self.reward[row, game]
            discount *= np.where(going, self.config.gamma * ~self.terminated[row, game], 1)
            ended = self.terminated[row, game] | self.truncated[row, game]
            row = (row + going) % len(self.valid)
            going *= ~ended
        columns = reward, discount, self.weights(index, beta)
        reward, discount, weight = (torch.from_numpy(column).float() for column in columns)
        return Batch(state, action, reward, self.stack(row, game), discount, weight, index)

    def weights(self, index, beta):
        """w_i = (N P(i))^-beta, divided by the largest of the batch, shape (B,)."""
        weight = (len(self) * self.tree[index] / self.tree.nodes[1]) ** -beta
        return weight / weight.max()

    def update(self, index, td_error):
        """Set the priorities of the transitions at index (B,) from their TD errors (B,)."""
        priority = (np.abs(td_error) + self.config.priority_epsilon) ** self.config.alpha
        self.tree[index] = priority
        self.max_priority = max(self.max_priority, priority.max())


# %% Network
class QNetwork(nn.Module):
    """Maps states (N, 4, 84, 84) of bytes to action values (N, num_actions), on the CPU."""

    def __init__(self, num_actions, dueling=False, bfloat16=False):
        super().__init__()
        self.dueling, self.bfloat16 = dueling, bfloat16
        self.conv = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),  # (N, 32, 20, 20)
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),  # (N, 64, 9, 9)
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1),  # (N, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 512),
            nn.ReLU(),
        )
        self.head = nn.Linear(512, num_actions + dueling)  # Q, or V and then the advantages
        self.to(memory_format=torch.channels_last)  # the order that CPUs convolve fastest

    def forward(self, state):
        state = state.to(self.head.weight.device, memory_format=torch.channels_last) / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            q = self.head(self.conv(state))
            if self.dueling:
                value, advantage = q[:, :1], q[:, 1:]
                q = value + advantage - advantage.mean(-1, keepdim=True)
        return q.float().cpu()


# %% Agent
class Agent:
    """Acts epsilon-greedily on its Q network and trains it from a replay memory."""

    def __init__(self, config, num_actions=4):
        torch.manual_seed(config.seed)
        self.config, self.num_actions = config, num_actions
        self.rng = np.random.default_rng([config.seed, 2])  # not the environment's random stream
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        device = "cuda" if cuda else "mps" if mps else "cpu"
        cpuinfo = Path("/proc/cpuinfo")  # some CPUs only imitate bfloat16; Linux alone says so
        native = device == "cpu" and cpuinfo.exists() and "bf16" in cpuinfo.read_text()
        bfloat16 = native and config.bfloat16 == 1
        self.q_network = QNetwork(num_actions, config.dueling == 1, bfloat16).to(device)
        self.target_network = copy.deepcopy(self.q_network)
        parameters, rate = self.q_network.parameters(), config.learning_rate
        # eps as in Hessel et al. 2018, "Rainbow", arXiv 1710.02298
        self.optimizer = torch.optim.Adam(parameters, rate, eps=1.5e-4, fused=device != "mps")
        self.memory = None  # playing needs none
        self.env_steps, self.updates, self.seconds, self.scores, self.history = 0, 0, 0.0, [], []

    @torch.no_grad()
    def act(self, state, epsilon=None):
        """Return actions (N,) for states (N, 4, 84, 84): greedy or random; FIRE in a new life."""
        epsilon = self.config.epsilon if epsilon is None else epsilon
        greedy = self.q_network(torch.from_numpy(state)).argmax(-1).numpy()
        random = self.rng.integers(self.num_actions, size=len(state))
        action = np.where(self.rng.random(len(state)) < epsilon, random, greedy)
        if self.config.fire:
            action[~state[:, :3].any((1, 2, 3))] = 1  # no older picture: a life begins, with FIRE
        return action

    @torch.no_grad()
    def td_target(self, batch):
        """y = R + gamma^n * Q_target(s', argmax_a' Q(s', a')), shape (B,); DQN: max Q_target."""
        next_q = self.target_network(batch.next_state)  # (B, A)
        best_q = self.q_network(batch.next_state) if self.config.double else next_q
        best_action = best_q.argmax(1, keepdim=True)  # (B, 1)
        return batch.reward + batch.discount * next_q.gather(1, best_action).squeeze(1)

    def learn(self):
        """Make one gradient step on a batch, at times copy the target network; return the loss."""
        progress = min(1, self.env_steps / self.config.steps)
        beta = self.config.beta + (1 - self.config.beta) * progress if self.config.beta else 0.0
        batch = self.memory.sample(self.config.batch_size, beta)
        q = self.q_network(batch.state).gather(1, batch.action).squeeze(1)  # (B,)
        target = self.td_target(batch)
        loss = (batch.weight * nn.functional.smooth_l1_loss(q, target, reduction="none")).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.q_network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target_network.load_state_dict(self.q_network.state_dict())
        self.memory.update(batch.index, (target - q.detach()).numpy())
        return loss.item()

    def checkpoint(self):
        """Return what is needed to go on; no running games, and the memory only if asked for."""
        progress = [self.env_steps, self.updates, self.seconds, self.scores]
        rows, random = [tuple(row) for row in self.history], torch.get_rng_state()
        saved = {"config": asdict(self.config), "progress": progress, "history": rows}
        saved |= {"random": random, "rng": self.rng.bit_generator.state}
        for name in "q_network", "target_network", "optimizer":
            saved[name] = getattr(self, name).state_dict()
        if self.config.checkpoint_memory:
            arrays = map(torch.from_numpy, (*self.memory.columns, self.memory.tree.nodes))
            saved["memory"] = [self.memory.pushed, float(self.memory.max_priority), *arrays]
        return saved

    def restore(self, saved):
        """Go back to what checkpoint() returned."""
        for name in "q_network", "target_network", "optimizer":
            getattr(self, name).load_state_dict(saved[name])
        self.env_steps, self.updates, self.seconds, self.scores = saved["progress"]
        self.history = [Update(*row) for row in saved["history"]]
        self.rng.bit_generator.state = saved["rng"]
        torch.set_rng_state(saved["random"])
        if "memory" in saved:
            self.memory = ReplayMemory(self.config)
            self.memory.restore(*saved["memory"])


# %% Train
def make_env(num_envs, max_frames, colour=False):
    """Return num_envs games of Breakout, prepared as in the book, or in colour for people."""
    return ale_py.vector_env.AtariVectorEnv(
        "breakout",
        num_envs,
        noop_max=30,  # preparation 1: a game starts after 0 to 29 frames without action
        episodic_life=False,  # preparation 2, a lost life ends the return, is in Games
        frameskip=4,  # preparation 3: an action lasts four frames, ...
        maxpool=True,  # ... and the brighter of the last two makes the picture
        reward_clipping=False,
        use_fire_reset=False,  # FIRE is an action like others; see act
        max_num_frames_per_episode=max_frames,  # a ball can bounce forever
        repeat_action_probability=0.0,
        img_height=210 if colour else 84,  # preparation 4: 84 x 84 and grey
        img_width=160 if colour else 84,
        grayscale=not colour,
        stack_num=1,
    )


class Games:
    """Games of Breakout that are played at once; keeps their states, lives and scores."""

    def __init__(self, num_envs, seed, max_frames):
        self.env = make_env(num_envs, max_frames)
        self.seeds = np.random.default_rng(seed).integers(2**31, size=num_envs)
        frame, info = self.env.reset(seed=self.seeds)
        # Four pictures are a state, since one hides the ball's course: (N, 4, 84, 84)
        self.state = np.concatenate([np.zeros((num_envs, 3, 84, 84), np.uint8), frame], 1)
        self.lives, self.ended = info["lives"], np.zeros(num_envs, bool)
        self.score, self.life, self.best_life = self.points = np.zeros((3, num_envs), int)

    def step(self, action):
        """Play a step; return (N,) each: reward, terminated, truncated, valid."""
        self.points[:, self.ended] = 0
        valid = ~self.ended  # after the end of a game, a step only resets it
        frame, reward, terminated, truncated, info = self.env.step(action)
        self.score += reward
        self.life += reward
        np.maximum(self.best_life, self.life, out=self.best_life)
        lost = info["lives"] < self.lives  # the return ends with the life, the wall stays
        self.life[info["lives"] != self.lives] = 0
        self.lives, self.ended = info["lives"], terminated | truncated
        self.state = np.concatenate([self.state[:, 1:], frame], 1)
        self.state[terminated | lost | ~valid, :3] = 0  # no pictures of the life before
        return np.float32(reward), terminated | lost, truncated, valid


# A line of history.csv, one every 16,000 steps. Steps and games: since the start;
# mean, min, max: of the scores of the last 100 games, nan if none is over; loss: mean
Update = namedtuple("Update", "env_steps games mean min max loss")


def train(config, agent=None, path=None):
    """Train for `config.steps`, or until Ctrl-C or SIGTERM; return (agent, history).

    Goes on with an agent, in new games, and writes checkpoints to path, where they are given.
    """
    agent = agent or Agent(config)
    if agent.memory is None:
        agent.memory = ReplayMemory(config)
    agent.memory.end_games()
    games = Games(config.num_envs, [config.seed, agent.env_steps], config.max_frames)
    # Freed at once, this makes glibc keep what is freed later: up to a fourth faster
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
    losses, start, written = [], time.perf_counter() - agent.seconds, agent.env_steps
    hidden = not sys.stderr  # delay: the bar is first written where a closed pipe may be
    bar = tqdm(total=config.steps, initial=written, unit=" steps", delay=0.1, disable=hidden)
    with suppress(KeyboardInterrupt):  # what was learned is kept
        while agent.env_steps < config.steps:
            epsilon = max(config.epsilon, 1 - agent.env_steps / config.epsilon_steps)
            frame, action = games.state[:, -1], agent.act(games.state, epsilon)
            reward, *ends = games.step(action)
            reward = np.sign(reward) if config.clip_rewards else reward
            agent.memory.push(frame, action, reward, *ends)
            agent.env_steps += int(ends[-1].sum())
            agent.scores += games.score[games.ended].tolist()
            agent.seconds = time.perf_counter() - start
            if len(agent.memory) >= config.learn_start:
                losses.append(agent.learn())
            with suppress(OSError):  # `2>&1 | tee log` ends before us at Ctrl-C
                bar.update(agent.env_steps - bar.n)
            latest = agent.history[-1].env_steps if agent.history else 0
            if agent.env_steps // 16_000 > latest // 16_000 or agent.env_steps >= config.steps:
                last, games_over = agent.scores[-100:] or [np.nan], len(agent.scores)
                row = float(np.mean(last)), min(last), max(last), float(np.mean(losses or [np.nan]))
                agent.history.append(Update(agent.env_steps, games_over, *row))
                bar.set_postfix_str(f"mean score {row[0]:.1f}" if games_over else "", False)
                losses = []
            if path and agent.env_steps - written >= config.checkpoint_every:
                written = agent.env_steps
                save(path, partial(torch.save, agent.checkpoint()))
    with suppress(OSError):
        bar.close()
    if path:
        save(path, partial(torch.save, agent.checkpoint()))
    return agent, agent.history


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


def learning_curve(history):
    """Return a figure of the scores of the last 100 games along the training."""
    from matplotlib.figure import Figure  # not earlier: see MPLBACKEND below

    axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
    steps, _, mean, low, high, _ = zip(*history)
    axes.fill_between(steps, low, high, color="0.9", label="range of the last 100 games")
    axes.plot(steps, mean, label="mean score of the last 100 games")
    axes.set(title=SCRIPT, xlabel="environment steps", ylabel="score of a game")
    axes.legend(loc="upper left")
    return axes.figure


def play(agent, config):
    """Play whole games at once; return the statistics, and what writes the scores and a GIF."""
    agent.rng = np.random.default_rng([config.seed, 3])
    games, frames = Games(config.games, config.seed, config.max_frames), []
    screen = make_env(1, config.max_frames, colour=True)
    screen.reset(seed=games.seeds[:1])
    running, table = np.ones(config.games, bool), np.zeros((config.games, 3), int)
    if config.mode == "random":
        say(f"States: {games.state.shape[1:]}, {games.state.dtype}")
        say(f"Actions: {[action.name for action in games.env.ale.get_action_set()]}")
    say("game  score  best life")
    while running.any():
        action = agent.act(games.state)
        games.step(action)
        if running[0] and len(frames) < 4500:  # game 1 in pictures, at most three minutes
            picture = Image.fromarray(screen.step(action[:1])[0][0, 0])
            frames.append(picture.quantize(16, dither=Image.Dither.NONE))
        for i in np.flatnonzero(running & games.ended):
            table[i], running[i] = (i + 1, games.score[i], games.best_life[i]), False
            say("{:4}  {:5}  {:9}".format(*table[i]))
    test = {name: float(getattr(table[:, 1], name)()) for name in ("mean", "std", "min", "max")}
    test |= {"episodes": config.games, "best_life": int(table[:, 2].max())}
    say("{episodes} games: mean {mean:.1f}, std {std:.1f}, {min:.0f} to {max:.0f}.".format(**test))
    rows = [("game", "score", "best_life"), *table]
    gif = partial(frames[0].save, save_all=True, append_images=frames[1:], duration=40, loop=0)
    return test, lambda path: np.savetxt(path, rows, "%s", ","), gif


# %% Main
def load(path, use, hint=""):
    """Return use(content) of a file that torch.save wrote, and run no code in it; or ValueError."""
    try:
        return use(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}{hint}") from None
    except Exception:  # whatever the bytes make the loader raise
        raise ValueError(f"{path} is damaged, or is no such file of this script") from None


def parse(arguments):
    """Return a Config, with the other options, and the agent; nonsense ends the program."""
    parser = argparse.ArgumentParser(f"{SCRIPT}.py", argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("mode", nargs="?", choices=("train", "play", "random"), default="train")
    for f in fields(Config):
        flag, reason = "--" + f.name.replace("_", "-"), f"{f.metadata['reason']} ({f.default})"
        parser.add_argument(flag, type=f.type, metavar="", help=reason)
    parser.add_argument("--output-dir", help=f"for the results (runs/{SCRIPT})")
    parser.add_argument("--no-media", dest="media", action="store_false", help="write no pictures")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint there")
    weights = Path(globals().get("__file__", "extras/file")).resolve().parent.parent / "weights"
    parser.add_argument("--weights", default=weights / f"{SCRIPT}.pth", help="to play with (ours)")
    config = parser.parse_args(arguments, Config())
    folder = config.output_dir or f"runs/{SCRIPT}/{config.mode}".removesuffix("/train")
    folder = Path(os.path.expanduser(folder))
    try:
        for module, oldest in (torch, "2.4.0"), (np, "1.26.0"), (ale_py, "0.11.2"):
            if np.lib.NumpyVersion(module.__version__.split("+")[0]) < oldest:
                raise ValueError(f"{module.__name__} is older than {oldest}")
        if config.resume and config.mode != "train":
            raise ValueError(f"--resume makes no sense with {config.mode}")
        if config.resume:  # the settings of the checkpoint, then those of the command line
            made = load(folder / "checkpoint.pth", lambda saved: asdict(Config(**saved["config"])))
            config = parser.parse_args(arguments, Config(**made))
            for name in sorted(made.keys() - {"steps", "bfloat16", "checkpoint_every", "games"}):
                if getattr(config, name) != made[name]:
                    raise ValueError(f"{name} is {made[name]} there, not {getattr(config, name)}")
        config.__post_init__()
        config.output_dir = folder
        agent = prepare(config)
        config.output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=config.output_dir).close()  # fails now, not after the training
    except (ValueError, OSError) as error:
        parser.error(error)
    return config, agent


def prepare(config):
    """Return the agent that trains, goes on or plays; ValueError if it can't."""
    checkpoint, agent = config.output_dir / "checkpoint.pth", Agent(config)
    if config.resume:
        load(checkpoint, agent.restore)
    elif config.mode == "play":
        hint = "; trained weights are in the folder weights of this project"
        load(os.path.expanduser(config.weights), agent.q_network.load_state_dict, hint)
    elif config.mode == "random":
        config.epsilon = 1.0
    elif checkpoint.exists():
        raise ValueError(f"{checkpoint} is there: --resume it, or choose an --output-dir")
    if config.mode == "train" and agent.memory is None:
        agent.memory = ReplayMemory(config)  # if it is too large, this fails before files are made
    if not all(p.isfinite().all() for p in agent.q_network.parameters()):
        raise ValueError(f"{checkpoint if config.resume else config.weights} is not finite")
    return agent


def main(arguments=()):
    """Train, play or look at the task; return the agent."""
    config, agent = parse(arguments)
    files, shown, test, games, env_steps, seconds = {}, {}, None, 0, 0, 0.0
    if config.mode == "train":
        if config.resume and not agent.memory.pushed:
            say(f"The replay memory starts empty: it learns again from {config.learn_start:,} on.")
        agent, history = train(config, agent, config.output_dir / "checkpoint.pth")
        games, env_steps, seconds = len(agent.scores), agent.env_steps, agent.seconds
        say(f"Trained for {env_steps:,} steps, {games:,} games, {seconds:,.0f} s.")
        half = {name: weight.half() for name, weight in agent.q_network.state_dict().items()}
        files["weights.pth"] = partial(torch.save, half)  # half the precision is enough to play
        files["history.csv"] = lambda path: np.savetxt(path, [Update._fields, *history], "%s", ",")
        if config.media and history and history[-1].games:
            shown["learning_curve.png"] = learning_curve(history).savefig
    if config.mode != "train" or env_steps >= config.steps:
        with suppress(KeyboardInterrupt):  # what was trained is written
            test, files["scores.csv"], shown["play.gif"] = play(agent, config)
    interrupted, shown = test is None, shown if config.media else {}
    summary = {"script": SCRIPT, "config": asdict(config), "games": games, "evaluation": test}
    summary |= {"env_steps": env_steps, "train_seconds": seconds, "interrupted": interrupted}
    summary |= {"steps_per_second": env_steps / (seconds or 1)}
    files["summary.json"] = lambda path: path.write_text(json.dumps(summary, indent=2))
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
    arguments = sys.argv[1:]
    if not NOTEBOOK:
        os.environ["MPLBACKEND"] = "agg"  # one inherited from a notebook may not load here
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
        tqdm.monitor_interval = 0  # its thread would never end where stderr was closed
    elif sys.argv[0] != globals().get("__file__"):
        # A kernel's own arguments are not ours, but those of %run are. Run again, the cell goes on
        arguments = ["--resume"] if Path("runs", SCRIPT, "checkpoint.pth").exists() else []
    try:
        agent = main(arguments)
    except KeyboardInterrupt:  # not while training or playing
        sys.exit(130)
