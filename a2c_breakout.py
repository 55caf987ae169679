# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "ale-py==0.12.1",
#     "gymnasium[classic-control]==1.4.0",
#     "matplotlib==3.11.2",
#     "numpy==2.4.6",
#     "torch==2.13.0",
#     "tqdm==4.70.1",
# ]
# ///

# %% [markdown]
"""
# A2C on Breakout

The same actor and critic as on CartPole, here with a convolutional network that
sees the last four pictures of the game. Upper bricks pay more, so that it is
worth digging a tunnel through the wall for the ball.

    R_t = r_t + gamma * r_t+1 + ... + gamma^k * V(s_t+k)     (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))               (the actor)
           + c_v * (R_t - V(s_t))^2                          (the critic)
           - c_e * entropy of pi(. | s_t)                    (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning",
arXiv 1602.01783, algorithm S3, with environments in step instead of threads.
Chapter: Breakout, 7 in the book of Ogawa (2018), whose code is "the article"
below.

The task: python a2c_breakout.py random
Trained:  python a2c_breakout.py play [--weights FILE]
Run:      python a2c_breakout.py [--seed 3] [--output-dir DIR] ... (for hours)
Go on:    python a2c_breakout.py --resume
Several:  torchrun --nproc-per-node 4 a2c_breakout.py
Expect: a mean score of 383 in whole games after 9.0 million steps
(the agent that play shows; 100 games, one training).
"""

# %% Imports
import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "40000")  # idle threads of PyTorch leave the cores to the games sooner

import numpy as np
import torch
import torch._dynamo  # takes a second: else the first optimizer would load it, within the timed training
import torch.distributed as dist
from ale_py.vector_env import AtariVectorEnv
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from tqdm import tqdm

SCRIPT = "a2c_breakout"


# %% Config
def setting(default, low, high, reason):
    """One field of Config: its default, the range it may have, and the reason that --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """Every hyperparameter; each is a command-line flag too. Raises ValueError where one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history, up to a stop")
    steps: int = setting(10_000_000, 1, 10**12, "environment steps to train for, of 4 frames each, as in the article")
    num_envs: int = setting(32, 1, 10**4, "games played at once; the article's 16 take more time a step")
    num_steps: int = setting(5, 1, 10**4, "steps of each game from update to update, as in the article")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(1e-3, 0, 1, "RMSprop's at first, 0 in the end; the article's is 7e-4 throughout")
    value_coef: float = setting(0.5, 0, 10**3, "weight of the critic's loss, as in the article")
    entropy_coef: float = setting(0.01, 0, 10**3, "weight of the entropy, as in the article")
    max_grad_norm: float = setting(0.5, 0, 10**3, "length to which a longer gradient is clipped, as in the article")
    clip_rewards: int = setting(0, 0, 1, "0: a brick is worth 1, 4 or 7, as in the article; 1: every brick is worth 1")
    bfloat16: int = setting(1, 0, 1, "1: half the precision, on CPUs that compute it faster; 0: float32 everywhere")
    checkpoint_every: int = setting(100_000, 1, 10**12, "environment steps from checkpoint to checkpoint")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, bool) or not isinstance(value, (int, f.type)) or not low <= value <= high:
                raise ValueError(f"{f.name} must be {f.type.__name__} between {low} and {high}, not {value!r}")


# %% Memory
class Rollout(NamedTuple):
    """T steps (rows) of N environments (columns); gradients still flow back through logits and value."""

    logits: torch.Tensor  # (T, N, num_actions) float32
    value: torch.Tensor  # (T, N) float32
    action: torch.Tensor  # (T, N) int64
    reward: torch.Tensor  # (T, N) float32
    terminated: torch.Tensor  # (T, N) bool: the return ends here
    truncated: torch.Tensor  # (T, N) bool: only time is up
    valid: torch.Tensor  # (T, N) bool: False where an environment only starts over, whatever the action


class RolloutStorage:
    """The steps of all environments since the last update."""

    def __init__(self):
        self.steps = []

    def __len__(self):
        return len(self.steps)

    def insert(self, *step):
        """Stores one step: logits (N, num_actions), then (N,) of each other column of Rollout."""
        self.steps.append([torch.as_tensor(column) for column in step])

    def take(self, device):
        """Returns all steps as a Rollout on the device and forgets them."""
        steps, self.steps = self.steps, []
        return Rollout(*(torch.stack(column).to(device) for column in zip(*steps, strict=True)))


# %% Network
def initialized(layer, gain):
    """Returns the layer with orthogonal weights and biases of 0, as in the article."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class ActorCritic(nn.Module):
    """Maps states (N, 4, 84, 84) of bytes to logits (N, num_actions), the policy's, and values (N,).

    The names and shapes of the weights are the article's, so that its weight files load.
    """

    def __init__(self, num_actions, bfloat16=False):
        super().__init__()
        self.bfloat16 = bfloat16
        self.conv = nn.Sequential(
            initialized(nn.Conv2d(4, 32, 8, stride=4), 2**0.5),  # (N, 32, 20, 20)
            nn.ReLU(),
            initialized(nn.Conv2d(32, 64, 4, stride=2), 2**0.5),  # (N, 64, 9, 9)
            nn.ReLU(),
            initialized(nn.Conv2d(64, 64, 3, stride=1), 2**0.5),  # (N, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            initialized(nn.Linear(64 * 7 * 7, 512), 2**0.5),
            nn.ReLU(),
        )
        self.actor = initialized(nn.Linear(512, num_actions), 0.01)  # near 0: all actions start equally likely
        self.critic = initialized(nn.Linear(512, 1), 1)
        self.to(memory_format=torch.channels_last)  # the order of pixels that convolutions on a CPU are fastest with

    def forward(self, state):
        state = state.contiguous(memory_format=torch.channels_last) / 255
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self.bfloat16):
            hidden = self.conv(state)
            logits, value = self.actor(hidden), self.critic(hidden)
        return logits.float(), value.float().squeeze(-1)


# %% Agent
def average(*tensors):
    """Replaces tensors by their mean over all processes that torchrun started; alone it changes nothing."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor.div_(dist.get_world_size()))


class Agent:
    """Draws actions from its policy, and trains policy and critic on what came of them."""

    def __init__(self, config, num_actions, device="cpu"):
        self.config = config
        self.device = torch.device(device)
        self.storage = RolloutStorage()
        bfloat16 = bool(config.bfloat16) and self.device.type == "cpu" and has_bfloat16()
        self.network = ActorCritic(num_actions, bfloat16).to(self.device)
        self.optimizer = torch.optim.RMSprop(self.network.parameters(), config.learning_rate, alpha=0.99, eps=1e-5)
        self.env_steps, self.games, self.seconds = 0, 0, 0.0  # of training since the start
        self.scores, self.history = deque(maxlen=100), []  # of the last hundred games; list of Row

    def sample(self, state):
        """Draws an action in each state (N, 4, 84, 84); returns logits (N, num_actions), values (N,), actions (N,)."""
        logits, value = self.network(torch.from_numpy(state).to(self.device))
        action = torch.multinomial(logits.detach().cpu().softmax(-1), 1).squeeze(1)
        return logits, value, action

    @torch.no_grad()
    def act(self, state):
        """Draws an action in each state (N, 4, 84, 84): the likeliest alone might never press FIRE."""
        return self.sample(state)[2].numpy()

    @torch.no_grad()
    def returns(self, rollout, next_value):
        """Returns R (T, N), backwards from the values (N,) of the states after the last step (algorithm S3)."""
        returns, following, value = torch.empty_like(rollout.value), next_value, next_value
        for t in reversed(range(len(returns))):
            following = torch.where(rollout.truncated[t], value, following)  # the state after this step: its last one
            following = rollout.reward[t] + self.config.gamma * ~rollout.terminated[t] * following
            returns[t], value = following, rollout.value[t]
        return returns

    def learn(self, next_state):
        """Makes one gradient step on the stored rollout, after which came next_state (N, ...); returns its loss."""
        rollout = self.storage.take(self.device)
        with torch.no_grad():
            _, next_value = self.network(torch.from_numpy(next_state).to(self.device))
        advantage = self.returns(rollout, next_value) - rollout.value  # (T, N)
        log_probs = rollout.logits.log_softmax(-1)  # (T, N, num_actions)
        log_prob = log_probs.gather(-1, rollout.action.unsqueeze(-1)).squeeze(-1)  # (T, N)
        actor_loss = -log_prob * advantage.detach()
        entropy = -(log_probs.exp() * log_probs).sum(-1)  # (T, N)
        loss = actor_loss + self.config.value_coef * advantage.square() - self.config.entropy_coef * entropy
        loss = (loss * rollout.valid).mean()
        self.optimizer.zero_grad()
        loss.backward()
        average(*(p.grad for p in self.network.parameters()))
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()

    def checkpoint(self):
        """Returns all that is needed to go on from here, but for the running games: a dict for torch.save."""
        progress = {name: getattr(self, name) for name in ("env_steps", "games", "seconds")}
        progress |= {"scores": list(self.scores), "history": [tuple(row) for row in self.history]}
        weights = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {"config": asdict(self.config), **progress, **weights, "generator": torch.get_rng_state()}

    def restore(self, checkpoint):
        """Goes back to what checkpoint() returned."""
        self.network.load_state_dict(checkpoint["network"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.env_steps, self.games, self.seconds = (checkpoint[name] for name in ("env_steps", "games", "seconds"))
        self.scores.extend(checkpoint["scores"])
        self.history = [Row(*row) for row in checkpoint["history"]]
        torch.set_rng_state(checkpoint["generator"])


def has_bfloat16():
    """Tells whether this CPU computes in bfloat16 (x86: AVX-512 or AMX; ARM) rather than imitates it."""
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def best_device():
    """Returns the name of Nvidia's GPU where there is one, else of Apple's, else of the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class RandomAgent:
    """Knows nothing: all actions are equally likely."""

    def __init__(self, config):
        self.rng = np.random.default_rng([config.seed, 2])
        self.history = []

    def act(self, state):
        """Draws an action for each state (N, 4, 84, 84)."""
        return self.rng.integers(4, size=len(state))


# %% Train
def make_env(num_envs, colour=False):
    """Returns Breakout, num_envs games at once, prepared as in the article, or the same games in colour for people."""
    # Preparation 4: a picture is 84 x 84 and grey. The last four are a state: one does not show where the ball flies
    grey = {"img_height": 84, "img_width": 84, "grayscale": True, "stack_num": 4}
    return AtariVectorEnv(
        "breakout",
        num_envs,
        noop_max=30,  # preparation 1: a game starts after up to 30 frames without action
        episodic_life=False,  # preparation 2, a lost life ends the return but not the game, is in train
        frameskip=4,  # preparation 3: an action lasts four frames, ...
        maxpool=True,  # ... the last two together make the picture, as the console draws some things every second frame
        reward_clipping=False,  # points as they are: train clips them if it is to
        use_fire_reset=False,  # nobody presses FIRE but the policy
        max_num_frames_per_episode=18_000,  # five minutes, ours: a ball can bounce for ever and meet no brick
        repeat_action_probability=0.0,  # no sticky actions
        **{"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1} if colour else grey,
    )


class Row(NamedTuple):
    """A hundred updates: a line of history.csv. Scores are of the last hundred games, nan where none is over."""

    env_steps: int  # since the start
    games: int  # since the start
    mean: float
    median: float
    min: float
    max: float
    loss: float  # mean over the updates
    seconds: float  # of training since the start


def train(config, stop=lambda: False, checkpoint=None, path=None):
    """Trains until config.steps are done or stop() is true; returns (agent, list of Row).

    Goes on from a checkpoint (of load_checkpoint), and writes its own to a path, where they are given. The games that
    run while a checkpoint is written are not part of it: whoever goes on begins new ones.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(config.seed)
    agent = Agent(config, 4, best_device())
    if checkpoint:
        agent.restore(checkpoint)
    rng = np.random.default_rng([config.seed, agent.env_steps, rank])  # new games for each process, and after a stop
    if rank:
        torch.manual_seed(rng.integers(2**32))
    env = make_env(config.num_envs)
    state, info = env.reset(seed=rng.integers(2**31, size=config.num_envs))
    lives, score, ended = info["lives"], np.zeros(config.num_envs), np.zeros(config.num_envs, bool)
    losses, new_steps, saved, start = [], 0, agent.env_steps, time.perf_counter() - agent.seconds
    if rank == 0:
        precision = "bfloat16" if agent.network.bfloat16 else "float32"
        print(f"Training on {agent.device} in {precision}, {processes} x {config.num_envs} games", end=" ")
        print(f"({os.cpu_count()} CPUs, {'with' if has_bfloat16() else 'without'} bfloat16 in hardware).", flush=True)
    bar = tqdm(total=config.steps, initial=agent.env_steps, unit=" steps", disable=rank > 0)
    done = agent.env_steps >= config.steps
    while not done:
        logits, value, action = agent.sample(state)
        state, reward, terminated, truncated, info = env.step(action.numpy())
        valid = ~ended  # an environment that ended in the step before has only started over in this one
        lost = info["lives"] < lives  # preparation 2: the return ends with the life, the wall stays as it is
        points = np.sign(reward) if config.clip_rewards else reward
        agent.storage.insert(logits, value, action, np.float32(points), terminated | lost, truncated, valid)
        ended, lives, score = terminated | truncated, info["lives"], score + reward
        agent.scores.extend(score[ended].tolist())
        agent.games += int(ended.sum())
        score[ended] = 0
        new_steps += int(valid.sum())
        if len(agent.storage) < config.num_steps:
            continue
        agent.optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - agent.env_steps / config.steps)
        losses.append(agent.learn(state))
        total = torch.tensor([new_steps, stop()], device=agent.device, dtype=torch.float32)
        average(total)
        steps, stopped = (processes * total).tolist()
        agent.env_steps, agent.seconds, new_steps = agent.env_steps + round(steps), time.perf_counter() - start, 0
        done = bool(stopped) or agent.env_steps >= config.steps
        last = agent.scores or [np.nan]
        bar.set_postfix_str(f"mean score {np.mean(last):.1f}", refresh=False)
        if len(losses) == 100 or done:
            scores = [float(f(last)) for f in (np.mean, np.median, np.min, np.max)]
            agent.history.append(Row(agent.env_steps, agent.games, *scores, float(np.mean(losses)), agent.seconds))
            losses = []
        bar.update(min(agent.env_steps, config.steps) - bar.n)
        if path and rank == 0 and (done or agent.env_steps - saved >= config.checkpoint_every):
            save(path, lambda file: torch.save(agent.checkpoint(), file))
            saved = agent.env_steps
    bar.close()
    return agent, agent.history


# %% Results
def play(agent, games, seed, stop=lambda: False):
    """Plays whole games, all at once, and prints how they end.

    Returns scores (games,), the best life's in each (games,), seeds (games,) and actions (steps, games). Where stop()
    ends it early, the scores are those so far.
    """
    env = make_env(games)
    seeds = np.random.default_rng([seed, 3]).integers(2**31, size=games)
    state, info = env.reset(seed=seeds)
    lives, running, actions = info["lives"], np.ones(games, bool), []
    score, life, best_life = np.zeros((3, games), int)
    print("game  score  best life")
    while running.any() and not stop():
        action = np.zeros(games, np.int64)
        action[running] = agent.act(state[running])
        state, reward, terminated, truncated, info = env.step(action)
        actions.append(action)
        score[running] += reward[running]
        life[running] += reward[running]
        best_life = np.maximum(best_life, life)
        life[info["lives"] < lives] = 0
        lives, ended = info["lives"], running & (terminated | truncated)
        for game in np.flatnonzero(ended):
            print(f"{game + 1:4}  {score[game]:5}  {best_life[game]:9}", flush=True)
        running &= ~ended  # what starts over counts no more
    return score, best_life, seeds, np.array(actions)


def learning_curve(history, config):
    """Returns a figure of the scores of the last hundred games along the training."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [row.env_steps for row in history]
    axes.fill_between(steps, [row.min for row in history], [row.max for row in history], color="0.9", label="range")
    axes.plot(steps, [row.mean for row in history], label="mean score of the last 100 games")
    axes.set(title=f"{SCRIPT}, seed {config.seed}", xlabel="environment steps", ylabel="score of a game")
    axes.legend(loc="upper left")
    return figure


def animation(actions, seed):
    """Plays a game again, by its actions (steps,) and its seed; returns its pictures, in colour, one a step."""
    env = make_env(1, colour=True)
    state, _ = env.reset(seed=np.array([seed]))
    frames = [Image.fromarray(state[0, 0]).quantize(16)]
    for action in actions:
        state, _, terminated, truncated, _ = env.step(np.array([action]))
        frames.append(Image.fromarray(state[0, 0]).quantize(palette=frames[0], dither=Image.Dither.NONE))
        if terminated[0] or truncated[0]:
            break
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
def load(path):
    """Returns what torch.save wrote into a file, and runs no code in it; ValueError where that can't be."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    except Exception:  # whatever the bytes make the loader raise
        raise ValueError(f"{path} is damaged, is no file of PyTorch's or has code in it") from None


def load_weights(path, config):
    """Returns an agent with the weights of a file, ours or the article's; ValueError where they are no such weights."""
    agent, weights = Agent(config, 4), load(path)
    try:
        agent.network.load_state_dict(weights)
    except Exception:
        raise ValueError(f"{path} holds other things than the weights of this network") from None
    if not all(p.isfinite().all() for p in agent.network.parameters()):
        raise ValueError(f"{path} holds weights that are not finite")
    return agent


def load_checkpoint(path, config):
    """Returns the checkpoint in a file; ValueError where it is none, or was made with other settings."""
    checkpoint = load(path)
    try:
        Agent(config, 4).restore(checkpoint)
        made, now = checkpoint["config"], asdict(config)
    except Exception:
        raise ValueError(f"{path} is no checkpoint of this script") from None
    for name in now.keys() - {"steps", "bfloat16", "checkpoint_every"}:  # these may change on the way
        if made.get(name) != now[name]:
            raise ValueError(f"{path} was made with {name} {made.get(name)}, not {now[name]}")
    return checkpoint


def parse(arguments):
    """Returns (config, options) from command-line arguments; one that makes no sense ends the program."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(f"{SCRIPT}.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.error = lambda problem: parser.exit(2, f"{SCRIPT}.py: error: {problem} (--help lists the settings)\n")
    modes = "train; play: watch trained weights; random: look at the task (default: train)"
    parser.add_argument("mode", nargs="?", choices=("train", "play", "random"), default="train", help=modes)
    for f in fields(Config):
        flag, reason = "--" + f.name.replace("_", "-"), f"{f.metadata['reason']} (default: {f.default})"
        parser.add_argument(flag, type=f.type, default=f.default, metavar=f.type.__name__, help=reason)
    runs, weights = Path("runs", SCRIPT), Path(globals().get("__file__", "")).parent / "weights" / f"{SCRIPT}.pth"
    where = f"for results (default: {runs}, and in it play or random)"
    parser.add_argument("--output-dir", type=Path, metavar="dir", help=where)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output directory")
    parser.add_argument("--weights", type=Path, default=weights, metavar="file", help="to play with (default: ours)")
    parser.add_argument("--games", type=int, default=10, metavar="int", help="to play (default: 10)")
    parser.add_argument("--no-media", dest="media", action="store_false", help="write no picture and no animation")
    options = parser.parse_args(arguments)
    output_dir = options.output_dir or (runs if options.mode == "train" else runs / options.mode)
    options.output_dir, options.path = output_dir, output_dir / "checkpoint.pth"
    options.agent = options.checkpoint = None
    try:
        config = Config(**{f.name: getattr(options, f.name) for f in fields(Config)})
        if options.resume and options.mode != "train":
            raise ValueError(f"--resume goes with train, not with {options.mode}")
        if options.weights != weights and options.mode != "play":
            raise ValueError(f"--weights goes with play, not with {options.mode}")
        if not 1 <= options.games <= 1000:
            raise ValueError(f"games must be int between 1 and 1000, not {options.games}")
        if options.mode == "random":
            options.agent = RandomAgent(config)
        elif options.mode == "play":
            options.agent = load_weights(options.weights, config)
        elif options.resume:
            options.checkpoint = load_checkpoint(options.path, config)
        elif options.mode == "train" and options.path.exists():
            raise ValueError(f"{options.path} is there already: --resume it, or choose another --output-dir")
        output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir).close()  # fails now rather than after the training
    except ValueError as error:
        parser.error(error)
    except OSError as error:
        parser.error(f"can't write into {output_dir}: {error.strerror}; choose another --output-dir")
    return config, options


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


def watch(agent, config, options, stop):
    """Plays games, prints and saves how they went; returns the evaluation, None where it was stopped."""
    torch.manual_seed(config.seed)
    scores, best_lives, seeds, actions = play(agent, options.games, config.seed, stop)
    if stop():
        return None
    mean, std, low, high = float(scores.mean()), float(scores.std()), int(scores.min()), int(scores.max())
    life = int(best_lives.max())
    print(f"{len(scores)} games: mean {mean:.1f}, std {std:.1f}, min {low}, max {high}; best life {life}.")
    table, names = np.column_stack([np.arange(len(scores)) + 1, scores, best_lives]), "game,score,best_life"
    save(options.output_dir / "scores.csv", lambda file: np.savetxt(file, table, "%d", ",", header=names, comments=""))
    if options.media:
        best = scores.argmax()
        frame, *frames = animation(actions[:, best], seeds[best])
        gif = {"format": "gif", "save_all": True, "append_images": frames, "duration": 40, "loop": 0}
        save(options.output_dir / "play.gif", lambda file: frame.save(file, **gif))
        show(options.output_dir / "play.gif")
    return {"episodes": len(scores), "mean": mean, "std": std, "min": low, "max": high, "best_life": life}


def report(agent, config, options, stop):
    """Writes what came of a training, and watches the trained agent."""
    verdict = "Interrupted" if stop() else "Trained"
    print(f"{verdict} after {agent.env_steps:,} steps, {agent.games:,} games, {agent.seconds:,.0f} s.")
    output_dir, names = options.output_dir, ",".join(Row._fields)
    half = {name: weight.half() for name, weight in agent.network.state_dict().items()}  # enough to play
    save(output_dir / "weights.pth", lambda file: torch.save(half, file))
    save(output_dir / "history.csv", lambda f: np.savetxt(f, agent.history, "%.9g", ",", header=names, comments=""))
    if options.media:
        curve = learning_curve(agent.history, config)
        save(output_dir / "learning_curve.png", lambda file: curve.savefig(file, format="png"))
        show(output_dir / "learning_curve.png")
    interrupted, evaluation = stop(), None if stop() else watch(agent, config, options, stop)
    summary = {
        "script": SCRIPT,
        "config": asdict(config),
        "games": agent.games,
        "env_steps": agent.env_steps,
        "train_seconds": agent.seconds,
        "steps_per_second": agent.env_steps / agent.seconds,
        "interrupted": interrupted,
        "evaluation": evaluation,
    }
    save(output_dir / "summary.json", lambda file: file.write(json.dumps(summary, indent=2).encode()))
    print(f"Wrote the results to {output_dir}.")


def main(arguments=()):
    """Trains, plays or looks at the task; returns (agent, history), for a notebook to go on with."""
    config, options = parse(arguments)
    agent, distributed = options.agent, options.mode == "train" and dist.is_torchelastic_launched()
    if distributed:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    with caught_signals() as signals:

        def stop():
            return bool(signals)

        if options.mode == "random":
            env = make_env(1)
            print(f"Pictures: {make_env(1, colour=True).single_observation_space}")
            print(f"States: {env.single_observation_space}")
            print(f"Actions: {env.single_action_space}: {[action.name for action in env.ale.get_action_set()]}")
        if options.mode == "train":
            agent, _ = train(config, stop, options.checkpoint, options.path)
        elif watch(agent, config, options, stop):
            print(f"Wrote the results to {options.output_dir}.")
        if options.mode == "train" and (not distributed or dist.get_rank() == 0):
            report(agent, config, options, stop)
    if distributed:
        dist.destroy_process_group()
    if signals and "ipykernel" not in sys.modules:
        sys.exit(128 + signals[0])
    return agent, agent.history


if __name__ == "__main__":
    # In a notebook the arguments are the kernel's
    agent, history = main([] if "ipykernel" in sys.modules else sys.argv[1:])
