# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "ale-py>=0.11.2", "gymnasium>=1.1", "matplotlib>=3.8", "numpy>=1.26", "pillow", "torch>=2.4",
#     "tqdm",
# ]
# ///

# %% [markdown]
"""
# Prioritized replay on Breakout

Double DQN with prioritized replay, as in per_cartpole.py, here playing from pictures, as in
a2c_breakout.py. New ideas since these two:

1. The memory holds each picture once. Four make a state when it is drawn: stacks would hold each
   picture eight times.
2. n-step returns, as in A2C, here from a memory. News of a brick travels faster; but all rewards
   after the first are of an older policy. Nothing corrects that (nor in Rainbow).
3. Epsilon falls: at first every action is random, in the end one in a hundred. In play it is one in
   a thousand.
4. The target network is a copy, made anew every 250 updates. Next values are not clipped.

    y_t  = r_t + ... + gamma^(n-1) r_(t+n-1) + gamma^n Q_target(s_(t+n), argmax_a Q(s_(t+n), a))
    P(i) = p_i^alpha / sum_k p_k^alpha,    p_i = |y_i - Q(s_i, a_i)| + eps
    loss = mean_i w_i * Huber(y_i - Q(s_i, a_i)),    w_i = (N P(i))^-beta / max_j w_j

Papers: Schaul et al. 2016, "Prioritized experience replay", arXiv 1511.05952, algorithm 1; Mnih et
al. 2015, "Human-level control through deep reinforcement learning"; idea 2 as in Hessel et al.
2018, "Rainbow", arXiv 1710.02298. Article: 優先順位付き経験再生
(Prioritized Experience Replay), see docs/articles/sum_tree.md. What differs here:

- 8 games in lockstep, an update for the 8 steps (Schaul, Mnih: 1 game, an update every 4 steps).
- 200,000 transitions, as in the article (Schaul, Mnih: a million); 2 million steps (50 million).
- Adam (Schaul, Mnih: RMSProp). Returns of 3 rewards (Schaul, Mnih, article: 1).
- A lost life ends the return (article: the end of the game). FIRE is pressed for the policy.
- Importance weights (the article's agent did not learn with them: --beta 0 leaves them out).

Read run_step first, then Games, ReplayMemory and Agent.learn.

Switches: --alpha 0: double DQN; --no-double: DQN's target; --dueling: dueling network.

How to run it:

    python a2c_breakout.py random                        # see the task
    python extras/per_breakout.py play [--weights FILE]  # see an agent (--dueling if trained so)
    python extras/per_breakout.py [--seed 3] ...         # train, for hours
    python extras/per_breakout.py --resume               # go on

Expect: mean of the last 100 games of one training: 35 at 0.5, 77 at 1, 110 at 2 million steps. The
agent in weights/, of that training by an earlier version: mean score 163 in 100 games of up to half
an hour.
"""

# %% Imports
import argparse
import base64
import copy
import csv
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image
from torch import nn
from tqdm import tqdm

NAME = "per_breakout"
TITLE = "Prioritized replay on Breakout"


# %% Settings
def setting(default, reason, low=1, high=10**12):
    """A field of Config. --help shows the reason; values outside [low, high] are refused."""
    return field(default=default, metadata={"reason": reason, "low": low, "high": high})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3 or --no-fire.

    ValueError if one is not valid.
    """

    seed: int = setting(0, "same seed, CPU, --threads: same history", low=0, high=2**32 - 1)
    steps: int = setting(2_000_000, "environment steps, of 4 frames each")
    num_envs: int = setting(8, "games played at once; the article has 1", high=10**4)
    double: bool = setting(True, "target of double DQN; else of DQN", low=0, high=1)
    dueling: bool = setting(False, "heads for V and advantages; else one for Q", low=0, high=1)
    n_step: int = setting(3, "rewards in a return; the article has 1", high=100)
    gamma: float = setting(0.99, "discount per step", low=0, high=1)
    learning_rate: float = setting(2e-4, "of Adam", low=0, high=1)
    max_grad_norm: float = setting(10.0, "longer gradients are clipped", low=0)
    batch_size: int = setting(32, "transitions per update, one per step of all games", high=10**5)
    memory_size: int = setting(200_000, "transitions kept, as in the article; 7 KB each")
    learn_start: int = setting(20_000, "transitions in memory before learning starts")
    target_every: int = setting(250, "updates between copies of Q into the target network")
    epsilon: float = setting(0.01, "random actions in the end of training", low=0, high=1)
    epsilon_steps: int = setting(250_000, "environment steps in which epsilon falls from 1")
    alpha: float = setting(0.5, "0: uniform replay, 1: in proportion to the error", low=0, high=1)
    beta: float = setting(0.4, "exponent of the weights, rises to 1; 0: stays 0", low=0, high=1)
    priority_epsilon: float = setting(0.01, "keeps every probability above 0", low=1e-12, high=1)
    clip_rewards: bool = setting(True, "a brick is worth 1; else 1, 4 or 7", low=0, high=1)
    bfloat16: bool = setting(True, "lower precision, on CPUs where that is faster", low=0, high=1)
    fire: bool = setting(True, "press FIRE at each new life; else the policy must", low=0, high=1)
    max_frames: int = setting(108_000, "longest game: half an hour, as usual", low=100, high=10**9)
    games: int = setting(10, "games to play, after a training too", high=1000)
    play_epsilon: float = setting(0.001, "random actions in play", low=0, high=1)
    checkpoint_every: int = setting(100_000, "environment steps between checkpoints")

    def __post_init__(self):
        """Refuse invalid settings. There is no lesson here."""
        for f in fields(self):
            value = getattr(self, f.name)
            low = f.metadata["low"]
            high = f.metadata["high"]
            kind = Real if type(f.default) is float else Integral  # for a bool, too
            if not isinstance(value, kind) or not low <= value <= high:
                number = "a whole number " if kind is Integral else ""
                raise ValueError(f"{f.name} must be {number}from {low} to {high}, not {value!r}")
            setattr(self, f.name, type(f.default)(value))  # NumPy's numbers become Python's
        # Below this, no transition may have its next state yet
        least = self.num_envs * (self.n_step + 5)
        # Only whole rows are kept: above this, the memory may never hold so many
        most = self.memory_size - self.num_envs
        if not least <= self.learn_start <= most:
            which = f"num_envs * (n_step + 5), {least}, to memory_size - num_envs, {most}"
            raise ValueError(f"learn_start must be from {which}, not {self.learn_start}")


# %% Environment
FIRE = 1  # the action's number; 0 does nothing, 2 and 3 move right and left


def make_env(num_envs, max_frames, colour=False):
    """Return num_envs games of Breakout, prepared as by Mnih, or in colour for people."""
    return AtariVectorEnv(
        "breakout",
        num_envs,
        noop_max=30,  # preparation 1: a game starts after 0 to 29 frames without action
        episodic_life=False,  # preparation 2, a lost life ends the return, is in Games
        frameskip=4,  # preparation 3: an action lasts four frames, ...
        maxpool=True,  # ... and each pixel is the brighter one of the last two
        img_height=210 if colour else 84,  # preparation 4: 84 x 84 and grey
        img_width=160 if colour else 84,
        grayscale=not colour,
        stack_num=1,  # Games and ReplayMemory stack the pictures
        reward_clipping=False,  # scores are points
        use_fire_reset=False,  # it would press FIRE in a game's first life only; see Games
        max_num_frames_per_episode=max_frames,  # a ball can bounce forever
        repeat_action_probability=0.0,  # no sticky actions
    )


class Games:
    """N games of Breakout that are played at once. All arrays are (N,), `state` (N, 4, 84, 84).

    After the step that ends a game comes one that only resets it (next-step autoreset). The state
    is the one before the step, in which the action was chosen:

        step      t                 t + 1             t + 2
        state     the last but one  the last          the first of a new game
        action    ends the game     ignored           FIRE: the script serves
        valid     True              False             True

    It serves after each lost life, too. That step is valid: Q-learning learns from any action.
    """

    def __init__(self, num_envs, seed, max_frames, fire):
        self.env = make_env(num_envs, max_frames)
        self.fire = fire
        self.seeds = np.random.default_rng(seed).integers(2**31, size=num_envs)
        frame, info = self.env.reset(seed=self.seeds)  # (N, 1, 84, 84)
        # Four pictures are a state, since one hides the ball's course; those not there are black
        self.state = np.concatenate([np.zeros((num_envs, 3, 84, 84), np.uint8), frame], 1)
        self.action = np.zeros(num_envs, int)  # the last one, FIRE included
        self.lives = info["lives"]
        self.life_begins = np.ones(num_envs, bool)  # there is no ball until FIRE
        self.ended = np.zeros(num_envs, bool)  # whether the game is over
        self.score = np.zeros(num_envs, int)  # points in this game
        self.finished = []  # scores of the games that ended, until take_finished()

    def step(self, action):
        """Play a step; return reward, terminated, truncated and valid, (N,) each."""
        resets = self.ended
        serves = self.life_begins & self.fire
        action = np.where(serves, FIRE, action)
        self.score[resets] = 0
        frame, reward, terminated, truncated, info = self.env.step(action)
        self.action = action
        life_lost = info["lives"] < self.lives
        self.life_begins = life_lost | resets
        self.lives = info["lives"]
        self.ended = terminated | truncated
        self.score += reward
        self.finished += self.score[self.ended].tolist()
        self.state = np.concatenate([self.state[:, 1:], frame], 1)
        # No pictures of the life before
        self.state[self.life_begins, :3] = 0
        # The return ends with the life, though the game goes on and the wall stays
        return reward.astype(np.float32), terminated | life_lost, truncated, ~resets

    def take_finished(self):
        """Return the scores of the games that ended since the last call."""
        finished = self.finished
        self.finished = []
        return finished


# %% Memory
class Batch(NamedTuple):
    """B transitions, one in each row."""

    state: torch.Tensor  # (B, 4, 84, 84), bytes
    action: torch.Tensor  # (B, 1), int64
    reward: torch.Tensor  # (B,), of n steps, discounted
    next_state: torch.Tensor  # (B, 4, 84, 84), bytes: the state after n steps
    discount: torch.Tensor  # (B,), of the value of next_state; 0 if the life was lost
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
    """The last `memory_size` transitions, sampled by priority (Schaul et al. 2016).

    A row holds a step of all N games, with one picture of each. Place i of the tree is row i // N,
    game i % N; its leaf is 0 while its state or next state is not complete.
    """

    def __init__(self, config):
        self.config = config
        self.rows = config.memory_size // config.num_envs
        self.tree = SumTree(self.rows * config.num_envs)
        self.max_priority = 1.0  # the largest p so far; 1 as in algorithm 1
        self.pushed = 0  # rows ever stored
        shape = (self.rows, config.num_envs)
        self.frame = np.zeros((*shape, 84, 84), np.uint8)
        self.action = np.zeros(shape, np.int64)
        self.reward = np.zeros(shape, np.float32)
        self.terminated = np.zeros(shape, bool)
        self.truncated = np.zeros(shape, bool)
        self.valid = np.zeros(shape, bool)

    def __len__(self):
        return min(self.pushed, self.rows) * self.config.num_envs

    def push(self, frame, action, reward, terminated, truncated, valid):
        """Store a step in place of the oldest: frame (N, 84, 84), the others (N,)."""
        row = self.pushed % self.rows
        self.frame[row] = frame
        self.action[row] = action
        self.reward[row] = reward
        self.terminated[row] = terminated
        self.truncated[row] = truncated
        self.valid[row] = valid
        games = np.arange(self.config.num_envs)
        # Three rows on, a state begins with the picture just overwritten
        spoiled = (row + 3) % self.rows
        self.tree[spoiled * len(games) + games] = 0.0
        # The step n rows ago has its next state now. The largest priority: it is replayed soon
        ready = (row - self.config.n_step) % self.rows
        value = np.where(self.valid[ready], self.max_priority**self.config.alpha, 0.0)
        self.tree[ready * len(games) + games] = value
        self.pushed += 1

    def sample(self, batch_size, share):
        """Return a Batch drawn by priority; share: how much of the training is done (0 to 1)."""
        index = self.draw(batch_size)
        row, game = np.divmod(index, self.config.num_envs)
        reward, discount, next_row = self.n_step_return(row, game)
        return Batch(
            state=self.stack(row, game),
            action=torch.from_numpy(self.action[row, game]).unsqueeze(1),
            reward=torch.from_numpy(reward).float(),
            next_state=self.stack(next_row, game),
            discount=torch.from_numpy(discount).float(),
            weight=torch.from_numpy(self.weights(index, share)).float(),
            index=index,
        )

    def draw(self, batch_size):
        """Draw places (B,) by priority: one from each of batch_size equal parts of the total.

        This stratified sampling leaves less to chance than independent draws.
        """
        offset = torch.rand(batch_size, dtype=torch.float64).numpy()
        fraction = (np.arange(batch_size) + offset) / batch_size  # (B,), of the total
        return self.tree.find(fraction * self.tree.total())

    def stack(self, row, game):
        """Return the states (B, 4, 84, 84) of games (B,) at rows (B,): the last four pictures."""
        rows = (row[:, None] + np.arange(-3, 1)) % self.rows  # (B, 4)
        game = game[:, None]
        state = self.frame[rows, game]
        # As Games.life_begins: whether the step after picture k ended a life, or reset the game
        ended = self.terminated[rows, game] | ~self.valid[rows, game]  # (B, 4)
        before = np.zeros(len(row), bool)  # whether picture k is of the life before
        for k in (2, 1, 0):
            before = before | ended[:, k]
            state[before, k] = 0
        return torch.from_numpy(state)

    def n_step_return(self, row, game):
        """Return reward, discount and row of the next state, (B,) each, of games (B,) at rows (B,).

        reward: r_t + gamma * r_(t+1) + ..., n of them, or up to the end of the life or the game.
        """
        reward = np.zeros(len(row))
        discount = np.ones(len(row))
        going = np.ones(len(row), bool)  # whether neither life nor game has ended
        for _ in range(self.config.n_step):
            terminated = self.terminated[row, game]
            truncated = self.truncated[row, game]
            reward += np.where(going, discount * self.reward[row, game], 0.0)
            next_discount = np.where(terminated, 0.0, discount * self.config.gamma)
            discount = np.where(going, next_discount, discount)
            row = np.where(going, (row + 1) % self.rows, row)
            going = going & ~(terminated | truncated)
        return reward, discount, row

    def weights(self, index, share):
        """w_i = (N P(i))^-beta, divided by the largest of the batch, shape (B,).

        What is drawn more often weighs less; the largest weight is 1, so that no step is too long.
        (N cancels.)
        """
        if self.config.beta == 0:
            return np.ones(len(index))
        beta = self.config.beta + share * (1 - self.config.beta)
        probability = self.tree[index] / self.tree.total()  # P(i)
        weight = (len(self) * probability) ** -beta
        return weight / weight.max()

    def update_priorities(self, index, td_error):
        """Set the priorities of the transitions at index (B,) from their TD errors (B,)."""
        priority = np.abs(td_error) + self.config.priority_epsilon
        self.tree[index] = priority**self.config.alpha
        self.max_priority = max(self.max_priority, priority.max())


# %% Network
class QNetwork(nn.Module):
    """Maps states (N, 4, 84, 84) of bytes to action values (N, num_actions)."""

    def __init__(self, num_actions, dueling=False, bfloat16=False):
        super().__init__()
        self.dueling = dueling
        self.bfloat16 = bfloat16
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
        # V and the advantages, or Q
        outputs = 1 + num_actions if dueling else num_actions
        self.head = nn.Linear(512, outputs)
        self.to(memory_format=torch.channels_last)  # the order that CPUs convolve fastest

    def forward(self, state):
        device = self.head.weight.device
        # bfloat16 holds every byte exactly; the way through float32 would take longer
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        state = state.to(device).to(dtype).contiguous(memory_format=torch.channels_last) / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            hidden = self.conv(state)
        # In float32: bfloat16 rounds values near 5 to 1/32, while actions often differ by less
        q = self.head(hidden.float())
        if self.dueling:
            value, advantage = q.tensor_split([1], dim=1)  # (N, 1), (N, num_actions)
            q = value + advantage - advantage.mean(-1, keepdim=True)
        return q.cpu()


# %% Agent
class Agent:
    """Acts epsilon-greedily on its Q network, and trains it from a replay memory."""

    def __init__(self, config, num_actions=4):
        torch.manual_seed(config.seed)
        self.config = config
        self.num_actions = num_actions
        # Draws the actions; torch's generator draws the batches
        self.rng = np.random.default_rng([config.seed, 2])
        device = best_device()
        bfloat16 = config.bfloat16 and device.type == "cpu" and cpu_has_bfloat16()
        self.q_network = QNetwork(num_actions, config.dueling, bfloat16).to(device)
        self.target_network = copy.deepcopy(self.q_network)
        # Converted once for each copy; autocast would convert the weights at each use
        if bfloat16:
            self.target_network.conv.to(torch.bfloat16)
        self.optimizer = torch.optim.Adam(
            self.q_network.parameters(),
            lr=config.learning_rate,
            eps=1.5e-4,  # as in Rainbow
            fused=device.type != "mps",
        )

    @torch.no_grad()
    def act(self, state, epsilon):
        """Return actions (N,) in states (N, 4, 84, 84), each random with probability epsilon."""
        greedy = self.q_network(torch.from_numpy(state)).argmax(-1).numpy()
        random = self.rng.integers(self.num_actions, size=len(state))
        explores = self.rng.random(len(state)) < epsilon
        return np.where(explores, random, greedy)

    @torch.no_grad()
    def td_target(self, batch):
        """y = R + gamma^n * Q_target(s', argmax_a' Q(s', a')), shape (B,); DQN: max Q_target."""
        next_q = self.target_network(batch.next_state)  # (B, A)
        best_action = next_q.argmax(1, keepdim=True)  # (B, 1)
        if self.config.double:
            best_action = self.q_network(batch.next_state).argmax(1, keepdim=True)
        return batch.reward + batch.discount * next_q.gather(1, best_action).squeeze(1)

    def learn(self, memory, share):
        """Make one gradient step on a batch, and return its loss.

        share: how much of the training is done, from 0 to 1.
        """
        batch = memory.sample(self.config.batch_size, share)
        q = self.q_network(batch.state).gather(1, batch.action).squeeze(1)  # (B,)
        target = self.td_target(batch)  # (B,)
        losses = nn.functional.smooth_l1_loss(q, target, reduction="none")  # (B,)
        loss = (batch.weight * losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.q_network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        memory.update_priorities(batch.index, (target - q.detach()).numpy())
        return loss.item()

    def update_target(self):
        """Make the target network a copy of the Q network."""
        self.target_network.load_state_dict(self.q_network.state_dict())


# %% Train
def run_step(agent, games, memory, progress):
    """Play a step of every game, and learn from one batch; return its loss.

    The loss is None while the memory holds less than config.learn_start.
    """
    config = agent.config
    epsilon = max(config.epsilon, 1 - progress.env_steps / config.epsilon_steps)
    frame = games.state[:, -1]
    action = agent.act(games.state, epsilon)
    reward, terminated, truncated, valid = games.step(action)
    if config.clip_rewards:
        reward = np.sign(reward)
    memory.push(frame, games.action, reward, terminated, truncated, valid)
    progress.env_steps += int(valid.sum())
    if len(memory) < config.learn_start:
        return None
    loss = agent.learn(memory, min(1, progress.env_steps / config.steps))
    progress.updates += 1
    if progress.updates % config.target_every == 0:
        agent.update_target()
    return loss


def train(config, agent=None, progress=None, checkpoint=None):
    """Train for config.steps, or until Ctrl-C or SIGTERM; return (agent, progress).

    agent, progress: a training to go on with, in new games and with an empty memory.
    checkpoint: the path to write it to.
    """
    agent = agent or Agent(config)
    progress = progress or Progress()
    memory = ReplayMemory(config)
    # New games when resumed; the 1 tells them from those of play()
    seed = [config.seed, progress.env_steps, 1]
    games = Games(config.num_envs, seed, config.max_frames, config.fire)
    # Large blocks that are freed go back to the system, and each update asks for them anew. Once
    # one of almost 32 MiB was freed, as here, glibc keeps them: up to a fourth faster
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
    start = time.perf_counter() - progress.seconds
    bar = tqdm(total=config.steps, initial=progress.env_steps, unit=" steps")
    # At once, so that no other training starts in this folder
    if checkpoint:
        save_checkpoint(checkpoint, agent, progress)
    try:
        while progress.env_steps < config.steps:
            before = progress.env_steps
            loss = run_step(agent, games, memory, progress)
            if loss is not None:
                progress.losses.append(loss)
            progress.scores += games.take_finished()
            progress.seconds = time.perf_counter() - start
            bar.update(progress.env_steps - before)
            bar.set_postfix_str(progress.mean_score(), refresh=False)
            if passed(16_000, before, progress.env_steps):
                progress.record()
            if checkpoint and passed(config.checkpoint_every, before, progress.env_steps):
                save_checkpoint(checkpoint, agent, progress)
    except KeyboardInterrupt:
        pass  # what was learned is kept
    bar.close()
    progress.record()
    if checkpoint:
        save_checkpoint(checkpoint, agent, progress)
    return agent, progress


def passed(interval, before, now):
    """Whether a multiple of interval was passed on the way from before to now."""
    return now // interval > before // interval


# %% Results: no reinforcement learning from here on
class Update(NamedTuple):
    """A line of history.csv, one every 16,000 environment steps."""

    env_steps: int  # since the start of the training; the steps that reset a game do not count
    games: int  # that ended since the start
    mean: float | None  # score of the last 100 games, None if none is over
    min: int | None  # of the same games
    max: int | None
    loss: float | None  # mean over the updates since the last line, None if there was none


@dataclass
class Progress:
    """How far a training is; with the agent, all that a checkpoint holds."""

    env_steps: int = 0
    updates: int = 0  # gradient steps
    seconds: float = 0.0
    scores: list = field(default_factory=list)  # of all games that ended
    losses: list = field(default_factory=list)  # of the updates since the last line of history
    history: list = field(default_factory=list)  # of Update

    def mean_score(self):
        """Return words such as "mean score 12.3", on the last 100 games."""
        return f"mean score {np.mean(self.scores[-100:]):.1f}" if self.scores else "no score yet"

    def record(self):
        """Add a line to the history, if there is anything new."""
        recorded = self.history[-1].env_steps if self.history else 0
        if self.env_steps == recorded:
            return
        last = self.scores[-100:]
        update = Update(
            env_steps=self.env_steps,
            games=len(self.scores),
            mean=float(np.mean(last)) if last else None,
            min=min(last, default=None),
            max=max(last, default=None),
            loss=float(np.mean(self.losses)) if self.losses else None,
        )
        self.history.append(update)
        self.losses = []


def play(agent, config):
    """Play config.games whole games at once, and print their scores; return (scores, pictures).

    scores: {number of the game: its score}; after Ctrl-C, of the games that were over.
    pictures: of the first game, at most 4,500, three minutes of GIF.
    """
    # The same games, whatever was drawn before
    agent.rng = np.random.default_rng([config.seed, 3])
    games = Games(config.games, config.seed, config.max_frames, config.fire)
    # The first game again, for people
    screen = make_env(1, config.max_frames, colour=True)
    screen.reset(seed=games.seeds[:1])
    scores = {}
    pictures = []
    running = np.ones(config.games, bool)
    print(f"Playing {config.games} whole games at once. Scores appear as the games end:")
    print("game  score", flush=True)
    try:
        while running.any():
            games.step(agent.act(games.state, config.play_epsilon))
            if running[0] and len(pictures) < 4500:
                picture, _, _, _, _ = screen.step(games.action[:1])  # (1, 1, 210, 160, 3)
                image = Image.fromarray(picture[0, 0])
                # Sixteen colours are enough, and take a tenth of the memory
                pictures.append(image.quantize(16, dither=Image.Dither.NONE))
            for i in np.flatnonzero(running & games.ended):
                scores[int(i) + 1] = int(games.score[i])
                print(f"{i + 1:4}  {games.score[i]:5}", flush=True)
            running &= ~games.ended
    except KeyboardInterrupt:
        print("Interrupted.")
    if scores:
        values = list(scores.values())
        print(f"{len(values)} games: mean {np.mean(values):.1f}, {min(values)} to {max(values)}.")
    return scores, pictures


def plot(history, path):
    """Draw the scores of the last 100 games over the training."""
    rows = [row for row in history if row.games > 0]
    steps = [row.env_steps for row in rows]
    low = [row.min for row in rows]
    high = [row.max for row in rows]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(steps, low, high, alpha=0.2, linewidth=0, label="lowest to highest")
    axes.plot(steps, [row.mean for row in rows], label="mean of the last 100 games")
    axes.set(title=TITLE, xlabel="environment steps", ylabel="score of a game")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def animate(pictures, path):
    """Write a GIF, twice as large, 40 ms a picture, which is faster than the game."""
    # One at a time: a list of all would take twice the memory
    frames = (picture.resize((320, 420)) for picture in pictures)
    next(frames).save(path, save_all=True, append_images=frames, duration=40, loop=0)


def save_table(path, header, rows):
    """Write a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def save_training(folder, agent, progress):
    """Write weights.pth, history.csv and summary.json, before anything else can go wrong."""
    # Half the precision is enough to play
    half = {name: weight.half() for name, weight in agent.q_network.state_dict().items()}
    torch.save(half, folder / "weights.pth")
    save_table(folder / "history.csv", Update._fields, progress.history)
    summary = {
        "script": NAME,
        "config": asdict(agent.config),
        "env_steps": progress.env_steps,
        "train_seconds": progress.seconds,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    for result in ("scores.csv", "play.gif"):
        (folder / result).unlink(missing_ok=True)  # of an earlier agent


def show(path):
    """In a notebook, show a picture below the cell."""
    if "ipykernel" in sys.modules:
        from IPython.display import HTML, display

        content = base64.b64encode(path.read_bytes()).decode()
        display(HTML(f'<img src="data:image/{path.suffix[1:]};base64,{content}" width="600">'))


def fail(message):
    """End the program with one line and exit code 2."""
    print(f"{NAME}.py: error: {message}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def reading(path):
    """Fail with one line, whatever a missing, damaged or foreign file raises."""
    try:
        yield
    except OSError as error:
        fail(f"can't read {path}: {error.strerror}")
    except Exception:  # the bytes decide what the loader raises
        fail(f"{path} is damaged, or not a file that this script can use")


def load_weights(agent, path):
    """Give an agent the weights of a file or checkpoint; no code in it is run."""
    with reading(path):
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = weights.get("q_network", weights)  # a checkpoint has more
        if len(weights["head.bias"]) != agent.q_network.head.out_features:
            fail(f"{path} is of the other head: was it trained with --dueling, or without?")
        agent.q_network.load_state_dict(weights)


def save_checkpoint(path, agent, progress):
    """Write a new file, then put it in place of the old one: one of them is always whole."""
    # Only plain types are loaded again
    history = [tuple(row) for row in progress.history]
    content = {
        "q_network": agent.q_network.state_dict(),
        "target_network": agent.target_network.state_dict(),
        "optimizer": agent.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_actions": agent.rng.bit_generator.state,
        "config": asdict(agent.config),
        "progress": asdict(progress) | {"history": history},
    }
    part = path.with_suffix(".part")
    try:
        torch.save(content, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch.save on a full disk
        tqdm.write(f"Can't write {path}, training goes on: {error}", file=sys.stderr)


def load_checkpoint(path, given):
    """Return (config, agent, progress) of a checkpoint; of `given`, only steps may differ."""
    with reading(path):
        saved = torch.load(path, map_location="cpu", weights_only=True)
        config = Config(**saved["config"])
    agent = Agent(config)  # its errors are not the file's fault
    with reading(path):
        agent.q_network.load_state_dict(saved["q_network"])
        agent.target_network.load_state_dict(saved["target_network"])
        agent.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        agent.rng.bit_generator.state = saved["random_actions"]
        progress = Progress(**saved["progress"])
        progress.history = [Update(*row) for row in progress.history]
    steps = given.get("steps", config.steps)
    if steps < min(config.steps, progress.env_steps):
        fail(f"steps must be at least the {progress.env_steps} already done, not {steps}")
    config.steps = steps
    for name, value in given.items():
        kept = getattr(config, name)
        if value != kept:
            fail(f"{name} is {kept} in {path}, not {value}; only steps may change")
    return config, agent, progress


# %% Main
MOST_THREADS = torch.get_num_threads()  # OMP_NUM_THREADS may limit them
try:
    HERE = Path(__file__).resolve().parent.parent
except NameError:  # pasted into a notebook
    HERE = Path()


def parse(arguments):
    """Return the settings that were given, a dictionary, and the other options."""
    parser = argparse.ArgumentParser(
        prog=f"{NAME}.py",
        usage=argparse.SUPPRESS,
        description=f"{TITLE}. Usage: python {NAME}.py [train | play] [--seed 3] ...",
        allow_abbrev=False,
    )
    parser.add_argument("mode", nargs="?", choices=("train", "play"), default="train")
    switch = argparse.BooleanOptionalAction
    for f in fields(Config):
        flag = "--" + f.name.replace("_", "-")
        kind = type(f.default)
        form = {"action": switch} if kind is bool else {"type": kind, "metavar": "X"}
        reason = f"{f.metadata['reason']} ({f.default})"
        parser.add_argument(flag, default=argparse.SUPPRESS, help=reason, **form)
    weights = HERE / "weights" / f"{NAME}.pth"
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="for the results")
    parser.add_argument("--no-media", action="store_true", help="write no pictures")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--weights", type=Path, metavar="FILE", help=f"to play: weights/{NAME}.pth")
    parser.add_argument("--threads", type=int, default=0, metavar="X", help="0: half the cores (0)")
    options = parser.parse_args(arguments)
    if not 0 <= options.threads <= 256:
        fail(f"threads must be from 0 to 256, not {options.threads}")
    if options.mode == "play":
        options.weights = options.weights or weights
    elif options.weights:
        fail(f"--weights is for play, not {options.mode}")
    given = {f.name: getattr(options, f.name) for f in fields(Config) if f.name in options}
    try:
        Config(**given)
    except ValueError as error:
        fail(error)
    return given, options


def best_device():
    """Return the GPU if there is one, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def cpu_has_bfloat16():
    """Whether the CPU itself computes in bfloat16. Others imitate it, which is slow."""
    cpuinfo = Path("/proc/cpuinfo")  # only Linux has it
    return cpuinfo.exists() and "bf16" in cpuinfo.read_text()


def set_threads(threads):
    """Let torch compute with so many threads; 0: half of the cores, in case others are busy."""
    if threads < 1:
        threads = max(1, min(MOST_THREADS, os.cpu_count() // 2))
    torch.set_num_threads(threads)


def check_memory(config):
    """Fail with one line if the replay memory is larger than the machine's."""
    if hasattr(os, "sysconf"):  # not on Windows
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        needed = config.memory_size * 84 * 84 / 2**30
        if needed > there:
            fail(f"memory_size needs {needed:.1f} GiB, the machine has {there:.1f}")


def run_train(given, options, folder):
    """Train, or go on with a training, then play; return the agent."""
    path = folder / "checkpoint.pth"
    if options.resume:
        config, agent, progress = load_checkpoint(path, given)
    elif path.exists():
        fail(f"{path} is there: --resume it, or choose another --output-dir")
    else:
        config = Config(**given)
        agent = Agent(config)
        progress = Progress()
    check_memory(config)
    train(config, agent, progress, path)

    save_training(folder, agent, progress)
    games = len(progress.scores)
    print(f"{progress.env_steps:,} steps, {games:,} games, {progress.seconds:,.0f} s.")
    if progress.scores and not options.no_media:
        plot(progress.history, folder / "learning_curve.png")
        show(folder / "learning_curve.png")
    if progress.env_steps < config.steps:
        print(f'Interrupted. Go on with --resume --output-dir "{folder}".')
    else:
        play_and_save(agent, config, options, folder)
    return agent


def play_and_save(agent, config, options, folder):
    """Play, and write scores.csv, and the first game as play.gif."""
    scores, pictures = play(agent, config)
    if not scores:
        return  # interrupted: what is there stays
    save_table(folder / "scores.csv", ("game", "score"), sorted(scores.items()))
    (folder / "play.gif").unlink(missing_ok=True)  # of other games
    if not options.no_media:
        animate(pictures, folder / "play.gif")
        show(folder / "play.gif")
        print(f"The first game is in {folder / 'play.gif'}.")


def run_play(given, options, folder):
    """Play with trained weights; return the agent."""
    config = Config(**given)
    agent = Agent(config)
    load_weights(agent, options.weights)
    play_and_save(agent, config, options, folder)
    return agent


def main(arguments=()):
    """Train or play, and write the results; return the agent."""
    given, options = parse(arguments)
    if options.resume and options.mode != "train":
        fail(f"--resume is for train, not {options.mode}")
    subfolder = "" if options.mode == "train" else options.mode
    folder = options.output_dir or Path("runs", NAME, subfolder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Find out now, not after the training, that a folder can't be written to
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        fail(error)
    set_threads(options.threads)
    modes = {"train": run_train, "play": run_play}
    agent = modes[options.mode](given, options, folder)
    print(f"Results are in {folder}.")
    return agent


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    if "ipykernel" not in sys.modules:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    agent = main([] if in_cell else sys.argv[1:])
