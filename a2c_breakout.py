# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "ale-py>=0.11.2", "gymnasium>=1.1", "matplotlib>=3.8", "numpy>=1.26", "torch>=2.4", "tqdm",
# ]
# ///

# %% [markdown]
"""
# A2C on Breakout

The actor and critic of CartPole, here with a convolutional network that sees the last four
pictures of the game. Behind the wall a ball hits brick after brick: a tunnel is worth digging.

    R_t  = r_t + gamma * r_t+1 + ... + gamma^k * V(s_t+k)      (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))                 (actor)
           + c_v * (R_t - V(s_t))^2                            (critic)
           - c_e * entropy of pi(. | s_t)                      (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv 1602.01783,
algorithm S3, with environments in lockstep instead of threads. Book: Ogawa 2018, chapter 7.

The task: python a2c_breakout.py random
Trained:  python a2c_breakout.py play [--weights FILE]
Train:    python a2c_breakout.py [--seed 3] [--output-dir DIR] ...      (for hours)
Go on:    python a2c_breakout.py --resume
Several:  torchrun --nproc-per-node 4 a2c_breakout.py
Expect: the agent in weights/: mean score 458 in 100 whole games (10.0 million steps, one training).
"""

# %% Imports
import argparse
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
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.distributions import Categorical
from tqdm import tqdm

try:
    import ale_py.vector_env
except ImportError as error:
    sys.exit(f"a2c_breakout.py needs ale-py 0.11.2 and gymnasium 1.1 or newer: {error}")

SCRIPT, NOTEBOOK = "a2c_breakout", "ipykernel" in sys.modules


# %% Config
def setting(default, low, high, reason):
    """A field of Config: its default, the range it may have, and the reason, which --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history, unless resumed")
    steps: int = setting(10_000_000, 1, 10**12, "environment steps, of 4 frames each")
    num_envs: int = setting(32, 1, 10**4, "games played at once; the book has 16")
    num_steps: int = setting(5, 1, 10**4, "steps of each environment per update, as in the book")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(1e-3, 0, 1, "of RMSprop, falls to 0; the book: constant 7e-4")
    value_coef: float = setting(0.5, 0, 10**3, "c_v, as in the book")
    entropy_coef: float = setting(0.01, 0, 10**3, "c_e, as in the book")
    max_grad_norm: float = setting(0.5, 0, 10**3, "longer gradients are clipped, as in the book")
    clip_rewards: int = setting(1, 0, 1, "1: a brick is worth 1; 0: 1, 4 or 7, as in the book")
    bfloat16: int = setting(1, 0, 1, "half the precision, on CPUs that are faster so; 0: float32")
    checkpoint_every: int = setting(100_000, 1, 10**12, "environment steps between checkpoints")
    fire: int = setting(1, 0, 1, "1: FIRE starts each life; 0: the policy has to find out")
    max_frames: int = setting(18_000, 100, 10**9, "the longest game: five minutes; others: 108,000")
    games: int = setting(10, 1, 1000, "games to play, after a training too")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, (str, bool)) or not low <= value <= high or f.type(value) != value:
                raise ValueError(f"{f.name} {value!r} is no {f.type.__name__} from {low} to {high}")
            setattr(self, f.name, f.type(value))  # NumPy's numbers become Python's


# %% Memory
# T steps (rows) of N environments (columns): (T, N) each, the first three with gradient.
# terminated: a life was lost; truncated: only the time was up; valid: False if merely reset
Rollout = namedtuple("Rollout", "log_prob entropy value reward terminated truncated valid")


class RolloutStorage:
    """The steps of all environments since the last update."""

    def __init__(self):
        self.steps = []

    def insert(self, *step):
        """Store one step: (N,) of each column of Rollout."""
        self.steps.append([torch.as_tensor(column) for column in step])

    def take(self):
        """Return all steps as a Rollout and forget them."""
        steps, self.steps = self.steps, []
        return Rollout(*(torch.stack(column) for column in zip(*steps, strict=True)))


# %% Network
def layer_init(layer, gain):
    """Orthogonal weights, zero biases, as in the book."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class ActorCritic(nn.Module):
    """Maps states (N, 4, 84, 84) of bytes to logits (N, num_actions) and values (N,), on the CPU.

    The names and shapes of the weights are the book's, so that its weight files load.
    """

    def __init__(self, num_actions, bfloat16=False):
        super().__init__()
        self.bfloat16 = bfloat16
        self.conv = nn.Sequential(
            layer_init(nn.Conv2d(4, 32, 8, stride=4), 2**0.5),  # (N, 32, 20, 20)
            nn.ReLU(),
            layer_init(nn.Conv2d(32, 64, 4, stride=2), 2**0.5),  # (N, 64, 9, 9)
            nn.ReLU(),
            layer_init(nn.Conv2d(64, 64, 3, stride=1), 2**0.5),  # (N, 64, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            layer_init(nn.Linear(64 * 7 * 7, 512), 2**0.5),
            nn.ReLU(),
        )
        self.actor = layer_init(nn.Linear(512, num_actions), 0.01)  # at first all are as likely
        self.critic = layer_init(nn.Linear(512, 1), 1)
        self.to(memory_format=torch.channels_last)  # the order that CPUs convolve fastest

    def forward(self, state):
        state = state.to(self.actor.weight.device, memory_format=torch.channels_last) / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            hidden = self.conv(state)
            logits, value = self.actor(hidden), self.critic(hidden)
        return logits.float().cpu(), value.float().cpu().squeeze(-1)


# %% Agent
class Agent:
    """Samples actions from its policy; trains actor and critic on rollouts."""

    def __init__(self, config, num_actions=4):
        torch.manual_seed(config.seed)
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "mps" if mps else "cpu"
        cpuinfo = Path("/proc/cpuinfo")  # some CPUs only imitate bfloat16; Linux alone says so
        native = device == "cpu" and cpuinfo.exists() and "bf16" in cpuinfo.read_text()
        self.config = config
        self.network = ActorCritic(num_actions, native and config.bfloat16 == 1).to(device)
        rate, parameters = config.learning_rate, self.network.parameters()
        self.optimizer = torch.optim.RMSprop(parameters, rate, alpha=0.99, eps=1e-5)
        self.env_steps, self.seconds, self.scores, self.history = 0, 0.0, [], []  # of training

    def sample(self, state):
        """Sample actions in states (N, 4, 84, 84); return them, log_prob, entropy, value: (N,)."""
        logits, value = self.network(torch.from_numpy(state))
        policy = Categorical(logits=logits, validate_args=False)
        action = policy.sample()
        return action.numpy(), policy.log_prob(action), policy.entropy(), value

    @torch.no_grad()
    def act(self, state):
        """Sample an action in each state, as in training."""
        return self.sample(state)[0]

    @torch.no_grad()
    def returns(self, rollout, next_state):
        """R_t = r_t + gamma * R_t+1, backwards from V(next_state): (T, N) (algorithm S3)."""
        _, next_value = self.network(torch.from_numpy(next_state))
        R, returns = next_value, torch.empty_like(rollout.value)
        for t in reversed(range(len(returns))):
            # At the time limit, go on with the value of the state reached
            R = torch.where(rollout.truncated[t], next_value, R)
            R = rollout.reward[t] + self.config.gamma * R * ~rollout.terminated[t]
            returns[t], next_value = R, rollout.value[t]
        return returns

    def learn(self, rollout, next_state):
        """Make one gradient step on a rollout, after which came next_state; return the loss."""
        advantage = self.returns(rollout, next_state) - rollout.value
        actor_loss = -rollout.log_prob * advantage.detach()
        critic_loss = self.config.value_coef * advantage.square()
        loss = actor_loss + critic_loss - self.config.entropy_coef * rollout.entropy
        loss = loss[rollout.valid].sum() / rollout.valid.sum().clamp(min=1)  # all may be resets
        self.optimizer.zero_grad()
        loss.backward()
        if dist.is_initialized():  # the mean over the processes that torchrun started
            for parameter in self.network.parameters():
                dist.all_reduce(parameter.grad.div_(dist.get_world_size()))
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()

    def checkpoint(self):
        """Return all that is needed to go on from here, except the running games."""
        progress = [self.env_steps, self.seconds, self.scores, [tuple(r) for r in self.history]]
        weights = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        random = torch.get_rng_state()
        return {"config": asdict(self.config), "progress": progress, "random": random, **weights}

    def restore(self, saved):
        """Go back to what checkpoint() returned."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.env_steps, self.seconds, self.scores, rows = saved["progress"]
        self.history = [Update(*row) for row in rows]
        torch.set_rng_state(saved["random"])


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
        use_fire_reset=False,  # it would press FIRE in a game's first life only; see Games
        max_num_frames_per_episode=max_frames,  # a ball can bounce forever
        repeat_action_probability=0.0,
        img_height=210 if colour else 84,  # preparation 4: 84 x 84 and grey
        img_width=160 if colour else 84,
        grayscale=not colour,
        stack_num=1 if colour else 4,  # four are a state, since one hides the ball's course
    )


class Games:
    """Games of Breakout that are played at once; keeps their states, lives and scores."""

    def __init__(self, num_envs, seed, max_frames, fire=1):
        self.env, self.fire = make_env(num_envs, max_frames), fire
        self.seeds = np.random.default_rng(seed).integers(2**31, size=num_envs)
        self.state, info = self.env.reset(seed=self.seeds)
        self.lives, self.ended = info["lives"], np.zeros(num_envs, bool)
        self.begins = ~self.ended  # whether a life begins: no ball until FIRE
        self.score, self.life, self.best_life = self.points = np.zeros((3, num_envs), int)
        self.env_steps, self.scores = 0, []  # of games that ended; both since the last count()

    def step(self, action):
        """Play a step; return (N,) each: reward, terminated, truncated, valid."""
        self.action = np.where(self.begins, 1, action) if self.fire else action  # 1: FIRE
        self.points[:, self.ended] = 0
        valid = ~self.ended  # after the end of a game, a step only resets it
        self.state, reward, terminated, truncated, info = self.env.step(self.action)
        self.score += reward
        self.life += reward
        np.maximum(self.best_life, self.life, out=self.best_life)
        lost = info["lives"] < self.lives  # the return ends with the life, the wall stays
        self.begins = (info["lives"] != self.lives) | ~valid
        self.life[self.begins] = 0
        self.lives, self.ended = info["lives"], terminated | truncated
        self.env_steps += int(valid.sum())
        self.scores += self.score[self.ended].tolist()
        return np.float32(reward), terminated | lost, truncated, valid

    def count(self):
        """Return [(env_steps, scores), ...] since the last call, of each process of torchrun."""
        counts = [(self.env_steps, self.scores)]
        if dist.is_initialized():
            counts *= dist.get_world_size()
            dist.all_gather_object(counts, counts[0])
        self.env_steps, self.scores = 0, []
        return counts


# A line of history.csv, one every 100 updates. Steps and games: of all processes, since the start;
# mean, min, max: of the scores of the last 100 games, nan if none is over; loss: mean
Update = namedtuple("Update", "env_steps games mean min max loss")


def train(config, agent=None, path=None):
    """Train for `config.steps`, or until Ctrl-C or SIGTERM; return (agent, history).

    Goes on with an agent, in new games, and writes checkpoints to path, where they are given.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    agent = agent or Agent(config)
    start, written = time.perf_counter() - agent.seconds, agent.env_steps
    games = Games(config.num_envs, [config.seed, written, rank], config.max_frames, config.fire)
    if rank:
        torch.manual_seed(int(games.seeds[0]))  # other actions than those of the other ranks
    storage, losses = RolloutStorage(), []
    hidden = rank or not sys.stderr  # delay: the bar is first written where a closed pipe may be
    bar = tqdm(total=config.steps, initial=written, unit=" steps", delay=0.1, disable=hidden)
    with suppress(KeyboardInterrupt):  # what was learned is kept
        while agent.env_steps < config.steps:
            for _ in range(config.num_steps):
                action, *outputs = agent.sample(games.state)
                reward, *ends = games.step(action)
                storage.insert(*outputs, np.sign(reward) if config.clip_rewards else reward, *ends)
            rate = config.learning_rate * (1 - agent.env_steps / config.steps)
            agent.optimizer.param_groups[0]["lr"] = rate
            losses.append(agent.learn(storage.take(), games.state))
            for env_steps, scores in games.count():
                agent.env_steps += env_steps
                agent.scores += scores
            agent.seconds = time.perf_counter() - start
            with suppress(OSError):  # `2>&1 | tee log` ends before us at Ctrl-C
                bar.update(agent.env_steps - bar.n)
            if len(losses) == 100 or agent.env_steps >= config.steps:
                last, games_over = agent.scores[-100:] or [np.nan], len(agent.scores)
                row = float(np.mean(last)), min(last), max(last), float(np.mean(losses))
                agent.history.append(Update(agent.env_steps, games_over, *row))
                bar.set_postfix_str(f"mean score {row[0]:.1f}" if games_over else "", False)
                losses = []
            if path and not rank and agent.env_steps - written >= config.checkpoint_every:
                written = agent.env_steps
                save(path, partial(torch.save, agent.checkpoint()))
    with suppress(OSError):
        bar.close()
    if path and not rank:
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
    torch.manual_seed(config.seed)
    games, frames = Games(config.games, config.seed, config.max_frames, config.fire), []
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
            picture = Image.fromarray(screen.step(games.action[:1])[0][0, 0])
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
    weights = Path(globals().get("__file__", "")).parent / "weights" / f"{SCRIPT}.pth"
    parser.add_argument("--weights", default=weights, help="to play with (ours)")
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
        load(os.path.expanduser(config.weights), agent.network.load_state_dict, hint)
    elif config.mode == "random":
        nn.init.zeros_(agent.network.actor.weight)  # every action is as likely
    elif checkpoint.exists():
        raise ValueError(f"{checkpoint} is there: --resume it, or choose an --output-dir")
    if not all(p.isfinite().all() for p in agent.network.parameters()):
        raise ValueError(f"{checkpoint if config.resume else config.weights} is not finite")
    return agent


def main(arguments=()):
    """Train, play or look at the task; return the agent."""
    config, agent = parse(arguments)
    files, shown, test, games, env_steps, seconds = {}, {}, None, 0, 0, 0.0
    if config.mode == "train":
        if dist.is_torchelastic_launched():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        agent, history = train(config, agent, config.output_dir / "checkpoint.pth")
        if dist.is_initialized() and dist.get_rank() > 0:
            return agent
        games, env_steps, seconds = len(agent.scores), agent.env_steps, agent.seconds
        say(f"Trained for {env_steps:,} steps, {games:,} games, {seconds:,.0f} s.")
        half = {name: weight.half() for name, weight in agent.network.state_dict().items()}
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
