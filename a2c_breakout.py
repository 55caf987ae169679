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
# A2C on Breakout

The actor and critic of CartPole, here playing from pictures. A paddle keeps a ball in play, which
breaks the bricks of a wall; a ball that is missed costs one of five lives. The best agents find
out that a ball behind the wall, sent through a tunnel, hits brick after brick. New ideas since
a2c_cartpole.py:

1. Pictures as states: a convolutional network sees the last four; one shows no motion.
2. A lost life ends the return: nothing after it counts for the actions before. But the game goes
   on, with the same wall.
3. FIRE serves the ball. The script presses it when a life begins.
4. Hours of training: the learning rate falls to 0, and a checkpoint lets you stop and go on.

    R_t  = r_t + gamma * r_(t+1) + ... + gamma^k * V(s_(t+k))  (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))                 (actor; V without gradient)
           + c_v * (R_t - V(s_t))^2                            (critic)
           - c_e * entropy of pi(. | s_t)                      (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv 1602.01783,
algorithm S3. Book: Ogawa 2018, chapter 7. What differs here:

- Environments in lockstep, as in the book (paper: threads).
- In training a brick is worth 1, not 1, 4 or 7 (book); scores stay in points.
- FIRE is pressed for the policy (book and paper: it has to find out).
- 32 games, and a learning rate that falls from 1e-3 (book: 16 games, 7e-4 throughout).
- RMSprop forgets faster: alpha 0.9 (book: 0.99).
- In play the policy is sharpened, by a temperature of 0.7, as long as it scores (book: as in
  training).

Read Games first, then run_steps, ActorCritic and train: Agent.returns and Agent.learn are those of
a2c_cartpole.py.

How to run it:

    python a2c_breakout.py random                 # see the task
    python a2c_breakout.py play [--weights FILE]  # see a trained agent
    python a2c_breakout.py [--seed 3] ...         # train, for hours
    python a2c_breakout.py --resume               # go on

Expect: mean of the last 100 games of 3 trainings: 17 to 20 at 0.5, 48 to 57 at 1, 160 to 183 at 2,
359 to 392 at 5, 440 to 478 at 10 million steps. The agent in weights/, trained with alpha 0.95:
mean score 505 in 100 games of up to 5 minutes.
"""

# %% Imports
import argparse
import base64
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
import torch.distributed as dist
from ale_py.vector_env import AtariVectorEnv
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image
from torch import nn
from torch.distributions import Categorical
from tqdm import tqdm

NAME = "a2c_breakout"
TITLE = "A2C on Breakout"
TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ  # whether torchrun runs this in several processes
RANK = int(os.environ["RANK"]) if TORCHRUN else 0  # the number of this process


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
    steps: int = setting(10_000_000, "environment steps, of 4 frames each")
    num_envs: int = setting(32, "games played at once; the book has 16", high=10**4)
    num_steps: int = setting(5, "steps of each game per update, as in the book")
    gamma: float = setting(0.99, "discount per step", low=0, high=1)
    learning_rate: float = setting(1e-3, "of RMSprop, falls to 0; book: 7e-4", low=0, high=1)
    rmsprop_alpha: float = setting(0.9, "share of old squares; book: 0.99", low=0, high=0.9999)
    value_coef: float = setting(0.5, "c_v, weight of the critic's loss, as in the book", low=0)
    entropy_coef: float = setting(0.01, "c_e, weight of the entropy, as in the book", low=0)
    max_grad_norm: float = setting(0.5, "longer gradients are clipped, as in the book", low=0)
    clip_rewards: bool = setting(True, "a brick is worth 1; the book: 1, 4 or 7", low=0, high=1)
    bfloat16: bool = setting(True, "lower precision, on CPUs where that is faster", low=0, high=1)
    fire: bool = setting(True, "press FIRE at each new life; else the policy must", low=0, high=1)
    max_frames: int = setting(18_000, "longest game: 5 minutes; usual: 30", low=100, high=10**9)
    games: int = setting(10, "games to play, after a training too", high=1000)
    temperature: float = setting(0.7, "in play: 1 as in training, near 0 greedy", low=0.01)
    patience: int = setting(500, "in play: steps without a point until temperature 1", low=0)
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


# %% Environment
FIRE = 1  # the action's number; 0 does nothing, 2 and 3 move right and left


def make_env(num_envs, max_frames, colour=False):
    """Return num_envs games of Breakout, prepared as in the book, or in colour for people."""
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
        stack_num=1 if colour else 4,  # four are a state, since one hides the ball's course
        reward_clipping=False,  # scores are points
        use_fire_reset=False,  # it would press FIRE in a game's first life only; see Games
        max_num_frames_per_episode=max_frames,  # a ball can bounce forever
        repeat_action_probability=0.0,  # no sticky actions, as in the book
    )


class Games:
    """N games of Breakout that are played at once. All arrays are (N,), `state` (N, 4, 84, 84).

    After the step that ends a game comes one that only resets it (next-step autoreset). The state
    is the one before the step, in which the action was chosen:

        step      t                 t + 1             t + 2
        state     the last but one  the last          the first of a new game
        action    ends the game     ignored           FIRE: the script serves
        valid     True              False             False

    The script serves after each lost life, too. A step is valid only if the policy chose its action
    (so with --no-fire step t + 2 is valid).
    """

    def __init__(self, num_envs, seed, max_frames, fire):
        self.env = make_env(num_envs, max_frames)
        self.fire = fire
        self.seeds = np.random.default_rng(seed).integers(2**31, size=num_envs)
        self.state, info = self.env.reset(seed=self.seeds)
        self.action = np.zeros(num_envs, int)  # the last one, FIRE included
        self.lives = info["lives"]
        self.life_begins = np.ones(num_envs, bool)  # there is no ball until FIRE
        self.ended = np.zeros(num_envs, bool)  # whether the game is over
        self.score = np.zeros(num_envs, int)  # points in this game
        self.idle = np.zeros(num_envs, int)  # steps since the last point
        self.finished = []  # scores of the games that ended, until take_finished()

    def step(self, action):
        """Play a step; return reward, terminated, truncated and valid, (N,) each."""
        resets = self.ended
        serves = self.life_begins & self.fire
        action = np.where(serves, FIRE, action)
        self.score[resets] = 0
        self.state, reward, terminated, truncated, info = self.env.step(action)
        self.action = action
        life_lost = info["lives"] < self.lives
        self.life_begins = life_lost | resets
        self.lives = info["lives"]
        self.ended = terminated | truncated
        self.score += reward
        self.idle = np.where((reward > 0) | resets, 0, self.idle + 1)
        self.finished += self.score[self.ended].tolist()
        valid = ~(resets | serves)
        # The return ends with the life, though the game goes on and the wall stays
        return reward.astype(np.float32), terminated | life_lost, truncated, valid

    def take_finished(self):
        """Return the scores of the games that ended since the last call."""
        finished = self.finished
        self.finished = []
        return finished


# %% Memory
class Rollout(NamedTuple):
    """T steps (rows) of N environments (columns)."""

    log_prob: torch.Tensor  # (T, N), log pi(a | s) of the action taken, with gradient
    entropy: torch.Tensor  # (T, N), of pi(. | s), with gradient
    value: torch.Tensor  # (T, N), V(s), with gradient
    reward: torch.Tensor  # (T, N)
    terminated: torch.Tensor  # (T, N), whether a life was lost, or the game with the last
    truncated: torch.Tensor  # (T, N), whether only the time was up
    valid: torch.Tensor  # (T, N), False where the policy did not choose: at resets and serves


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
def layer_init(layer, gain):
    """Orthogonal weights, zero biases, as in the book."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class ActorCritic(nn.Module):
    """Maps states (N, 4, 84, 84) of bytes to logits (N, num_actions) and values (N,).

    The names and shapes of the weights are the book's, so that its weight files load.
    """

    def __init__(self, num_actions, bfloat16=False):
        super().__init__()
        self.bfloat16 = bfloat16
        relu_gain = 2**0.5  # keeps the size of activations from layer to layer
        self.conv = nn.Sequential(
            layer_init(nn.Conv2d(4, 32, 8, stride=4), relu_gain),  # (N, 32, 20, 20)
            nn.ReLU(),
            layer_init(nn.Conv2d(32, 64, 4, stride=2), relu_gain),  # (N, 64, 9, 9)
            nn.ReLU(),
            layer_init(nn.Conv2d(64, 64, 3, stride=1), relu_gain),  # (N, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            layer_init(nn.Linear(64 * 7 * 7, 512), relu_gain),
            nn.ReLU(),
        )
        self.actor = layer_init(nn.Linear(512, num_actions), 0.01)  # at first all equally likely
        self.critic = layer_init(nn.Linear(512, 1), 1)
        self.to(memory_format=torch.channels_last)  # the order that CPUs convolve fastest

    def forward(self, state):
        device = self.actor.weight.device
        state = state.to(device, memory_format=torch.channels_last) / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            hidden = self.conv(state)
            logits = self.actor(hidden)
            value = self.critic(hidden)
        return logits.float().cpu(), value.float().cpu().squeeze(-1)


# %% Agent
class Agent:
    """Samples actions from its policy; trains actor and critic on rollouts. The book: Brain."""

    def __init__(self, config, num_actions=4):
        torch.manual_seed(config.seed + RANK)
        self.config = config
        device = best_device()
        bfloat16 = config.bfloat16 and device.type == "cpu" and cpu_has_bfloat16()
        self.network = ActorCritic(num_actions, bfloat16).to(device)
        # After small gradients a large one moves a weight up to 1 / sqrt(1 - alpha) times as far as
        # the rate says: 3.2 times with 0.9, 10 times with the book's 0.99. See
        # docs/results_breakout.md
        self.optimizer = torch.optim.RMSprop(
            self.network.parameters(),
            lr=config.learning_rate,
            alpha=config.rmsprop_alpha,
            eps=1e-5,
        )

    def sample(self, state):
        """Sample actions in states (N, 4, 84, 84); return them, log_prob, entropy, value: (N,)."""
        logits, value = self.network(torch.from_numpy(state))
        policy = Categorical(logits=logits)
        action = policy.sample()
        return action.numpy(), policy.log_prob(action), policy.entropy(), value

    @torch.no_grad()
    def act(self, state, idle):
        """Sample an action in each state, surer than in training: from pi^(1 / temperature).

        idle: steps since the last point, (N,); from config.patience on, as in training.
        """
        logits, _ = self.network(torch.from_numpy(state))
        # Training must explore, play need not: below 1, likely actions become likelier. But a sure
        # policy may send the ball round and round where no brick is left; chance ends that
        impatient = torch.from_numpy(idle) >= self.config.patience
        temperature = torch.where(impatient, 1.0, self.config.temperature)  # (N,)
        policy = Categorical(logits=logits / temperature.unsqueeze(1))
        return policy.sample().numpy()

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
        if agent.config.clip_rewards:
            reward = np.sign(reward)
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


def train(config, agent=None, progress=None, checkpoint=None):
    """Train for config.steps, or until Ctrl-C or SIGTERM; return (agent, progress).

    agent, progress: a training to go on with, in new games. checkpoint: the path to write it to.
    """
    agent = agent or Agent(config)
    progress = progress or Progress()
    # New games when resumed, and in each process; the 1 tells them from those of play()
    seed = [config.seed, progress.env_steps, RANK, 1]
    games = Games(config.num_envs, seed, config.max_frames, config.fire)
    update_steps = config.num_envs * config.num_steps
    start = time.perf_counter() - progress.seconds
    bar = tqdm(total=config.steps, initial=progress.env_steps, unit=" steps", disable=RANK > 0)
    try:
        while progress.env_steps < config.steps:
            # At step 0, so that no other training starts in this folder; then whenever a multiple
            # of checkpoint_every was passed
            if checkpoint and progress.env_steps % config.checkpoint_every < update_steps:
                save_checkpoint(checkpoint, agent, progress)
            # The rate falls to 0: late updates must not spoil a good policy
            remaining = 1 - progress.env_steps / config.steps
            agent.optimizer.param_groups[0]["lr"] = remaining * config.learning_rate

            rollout = run_steps(agent, games)
            loss = agent.learn(rollout, games.state)

            progress.add(update_steps, loss, games.take_finished())
            progress.seconds = time.perf_counter() - start
            bar.update(update_steps)
            bar.set_postfix_str(progress.mean_score(), refresh=False)
    except KeyboardInterrupt:
        pass  # what was learned is kept
    bar.close()
    progress.record()
    if checkpoint:
        save_checkpoint(checkpoint, agent, progress)
    return agent, progress


# %% Results: no reinforcement learning from here on
class Update(NamedTuple):
    """A line of history.csv: the last hundred updates, or those until a training stopped."""

    env_steps: int  # since the start, resets included; of this process only, like the scores
    games: int  # that ended since the start; of torchrun's processes, the first one's
    mean: float | None  # score of the last 100 games, None if none is over
    min: int | None  # of the same games
    max: int | None
    loss: float  # mean over these updates


@dataclass
class Progress:
    """How far a training is; with the agent, all that a checkpoint holds."""

    env_steps: int = 0
    seconds: float = 0.0
    scores: list = field(default_factory=list)  # of all games that ended
    losses: list = field(default_factory=list)  # of the updates since the last line of history
    history: list = field(default_factory=list)  # of Update

    def add(self, env_steps, loss, scores):
        """Count an update; every hundredth adds a line to the history."""
        self.env_steps += env_steps
        self.losses.append(loss)
        self.scores += scores
        if len(self.losses) == 100:
            self.record()

    def record(self):
        """Add a line to the history, if there is anything new."""
        if not self.losses:
            return
        last = self.scores[-100:]
        update = Update(
            env_steps=self.env_steps,
            games=len(self.scores),
            mean=float(np.mean(last)) if last else None,
            min=min(last, default=None),
            max=max(last, default=None),
            loss=float(np.mean(self.losses)),
        )
        self.history.append(update)
        self.losses = []

    def mean_score(self):
        """Return words such as "mean score 12.3", on the last 100 games."""
        return f"mean score {np.mean(self.scores[-100:]):.1f}" if self.scores else "no score yet"


def play(agent, config):
    """Play config.games whole games at once, and print their scores; return (scores, pictures).

    scores: {number of the game: its score}; after Ctrl-C, of the games that were over.
    pictures: of the first game, at most 4,500, three minutes of GIF.
    """
    torch.manual_seed(config.seed)
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
            games.step(agent.act(games.state, games.idle))
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
    half = {name: weight.half() for name, weight in agent.network.state_dict().items()}
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
    """Give an agent the weights of a file or checkpoint (the book's, too); no code in it is run."""
    with reading(path):
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = weights.get("network", weights)  # a checkpoint has more
        agent.network.load_state_dict(weights)


def save_checkpoint(path, agent, progress):
    """Write a new file, then put it in place of the old one: one of them is always whole."""
    content = {
        "network": agent.network.state_dict(),
        "optimizer": agent.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "config": asdict(agent.config),
        "progress": asdict(progress) | {"history": [tuple(row) for row in progress.history]},
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
        agent.network.load_state_dict(saved["network"])
        agent.optimizer.load_state_dict(saved["optimizer"])
        if RANK == 0:  # the others act differently
            torch.set_rng_state(saved["random"])
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
MOST_THREADS = torch.get_num_threads()  # OMP_NUM_THREADS or torchrun may limit them
try:
    HERE = Path(__file__).resolve().parent
except NameError:  # pasted into a notebook
    HERE = Path()


def parse(arguments):
    """Return the settings that were given, a dictionary, and the other options."""
    parser = argparse.ArgumentParser(
        prog=f"{NAME}.py",
        usage=argparse.SUPPRESS,
        description=f"{TITLE}. Usage: python {NAME}.py [train | play | random] [--seed 3] ...",
        allow_abbrev=False,
    )
    parser.add_argument("mode", nargs="?", choices=("train", "play", "random"), default="train")
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
    """Return the GPU if there is one (one for each of torchrun's processes), or the CPU."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.device_count() >= processes:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    # Processes of torchrun average their gradients, which Apple's GPU can't
    if torch.backends.mps.is_available() and not TORCHRUN:
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


def average_gradient(parameter):
    """Replace a gradient by its mean over the processes of torchrun."""
    parameter.grad /= dist.get_world_size()
    dist.all_reduce(parameter.grad)


def join_processes(network):
    """Give all processes of torchrun the weights of the first one, and the same gradients."""
    cuda = next(network.parameters()).is_cuda
    dist.init_process_group("nccl" if cuda and dist.is_nccl_available() else "gloo")
    for parameter in network.parameters():
        dist.broadcast(parameter.data, 0)
        parameter.register_post_accumulate_grad_hook(average_gradient)


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
    if TORCHRUN:
        join_processes(agent.network)
    train(config, agent, progress, path if RANK == 0 else None)
    if RANK > 0:
        return agent

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


def run_random(given, options, folder):
    """Show the task: what is seen and done, and how random play does; return the agent."""
    config = Config(**given)
    agent = Agent(config)
    nn.init.zeros_(agent.network.actor.weight)  # every action is equally likely
    env = make_env(1, config.max_frames)
    print(f"States: {env.single_observation_space.shape}, {env.single_observation_space.dtype}")
    print(f"Actions: {[action.name for action in env.ale.get_action_set()]}")
    play_and_save(agent, config, options, folder)
    return agent


def main(arguments=()):
    """Train, play or look at the task, and write the results; return the agent."""
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
    modes = {"train": run_train, "play": run_play, "random": run_random}
    agent = modes[options.mode](given, options, folder)
    if RANK == 0:
        print(f"Results are in {folder}.")
    return agent


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    if "ipykernel" not in sys.modules:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    agent = main([] if in_cell else sys.argv[1:])
