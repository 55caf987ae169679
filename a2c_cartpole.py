# /// script
# requires-python = ">=3.10"
# dependencies = ["gymnasium[classic-control]>=1.0", "matplotlib>=3.8", "numpy>=1.26", "torch>=2.4"]
# ///

# %% [markdown]
"""
# A2C on CartPole

An actor learns a policy pi(a | s), a critic the value V(s) of a state. Many environments are
played at once, a few steps each; then every action is made likelier by its advantage, which is
how much better it turned out than the critic expected.

    R_t  = r_t + gamma * r_t+1 + ... + gamma^k * V(s_t+k)      (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))                 (actor)
           + c_v * (R_t - V(s_t))^2                            (critic)
           - c_e * entropy of pi(. | s_t)                      (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv 1602.01783,
algorithm S3, with environments in lockstep instead of threads. Book: Ogawa 2018, chapter 6.5.
Expect: 346.5 episodes, 22,972 steps, 0.8 s (medians; 100 of 100 seeds solved); greedy 200 steps.
"""

# %% Imports
import argparse
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
from torch.distributions import Categorical

SCRIPT, NOTEBOOK = "a2c_cartpole", "ipykernel" in sys.modules


# %% Config
def setting(default, low, high, reason):
    """A field of Config: its default, the range it may have, and the reason, which --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """All settings; each is also a flag, such as --seed 3. ValueError if one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history")
    steps: int = setting(500_000, 1, 10**12, "give up after so many, of all environments")
    max_steps: int = setting(200, 1, 10**5, "length of a full episode, as in the book")
    solved_after: int = setting(20, 1, 10**6, "full episodes in a row, of whichever environment")
    num_envs: int = setting(16, 1, 10**4, "environments played at once; the book has 32")
    num_steps: int = setting(5, 1, 10**4, "steps of each environment per update, as in the book")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(5e-3, 0, 1, "of Adam; the book has 0.01")
    hidden_size: int = setting(64, 1, 10**4, "units in each of two layers; the book has 32")
    value_coef: float = setting(0.5, 0, 10**3, "c_v, as in the book")
    entropy_coef: float = setting(3e-3, 0, 10**3, "c_e; the book's 0.01 keeps the pole shaking")
    max_grad_norm: float = setting(0.5, 0, 10**3, "longer gradients are clipped, as in the book")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, (str, bool)) or not low <= value <= high or f.type(value) != value:
                raise ValueError(f"{f.name} {value!r} is no {f.type.__name__} from {low} to {high}")
            setattr(self, f.name, f.type(value))  # NumPy's numbers become Python's


# %% Memory
# T steps (rows) of N environments (columns): (T, N) each, the first three with gradient.
# terminated: the pole fell; truncated: only the time was up; valid: False if merely reset
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
class ActorCritic(nn.Module):
    """Maps states (..., state_size) to logits (..., num_actions) and values (...)."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden1 = nn.Linear(state_size, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.actor = nn.Linear(hidden_size, num_actions)
        self.critic = nn.Linear(hidden_size, 1)

    def forward(self, state):
        hidden = self.hidden2(self.hidden1(state).relu()).relu()
        return self.actor(hidden), self.critic(hidden).squeeze(-1)


# %% Agent
class Agent:
    """Samples actions from its policy; trains actor and critic on rollouts."""

    def __init__(self, config, state_size, num_actions):
        self.config = config
        self.network = ActorCritic(state_size, config.hidden_size, num_actions)
        # With Adam's usual eps of 1e-8, tiny gradients become full steps and can ruin a good policy
        rate, parameters = config.learning_rate, self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, rate, eps=1e-5, fused=True)

    def sample(self, state):
        """Sample actions in states (N, state_size); return them, log_prob, entropy, value: (N,)."""
        logits, value = self.network(torch.from_numpy(state))
        policy = Categorical(logits=logits, validate_args=False)
        action = policy.sample()
        return action.numpy(), policy.log_prob(action), policy.entropy(), value

    @torch.no_grad()
    def act(self, state):
        """Return the likeliest action in each state (..., state_size)."""
        logits, _ = self.network(torch.from_numpy(state))
        return logits.argmax(-1).numpy()

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
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()


# %% Train
# A line of history.csv. mean_steps: of the last num_envs episodes; full_in_a_row: of whichever
# environment, up to here; loss: nan if learning paused; env_steps: of all, since the start
Update = namedtuple("Update", "update episodes mean_steps full_in_a_row loss env_steps")


def train(config):
    """Train until solved, or for `config.steps`, or until Ctrl-C; return (agent, history).

    A full episode has no fall. From the first one to the next fall, in whichever environment,
    learning pauses. `config.solved_after` full episodes in a row solve the task.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only slow so small a network down
    torch.manual_seed(config.seed)
    # The reward is -1 for a fall, else 0. Another task: docs/own_task.md
    limit = {"max_episode_steps": config.max_steps, "sutton_barto_reward": True}
    env = gym.make_vec("CartPole-v1", config.num_envs, **limit)
    state, _ = env.reset(seed=config.seed)
    agent = Agent(config, env.single_observation_space.shape[0], env.single_action_space.n)
    storage, history, lengths = RolloutStorage(), [], []  # lengths: steps of all episodes
    full, env_steps, start = 0, 0, time.perf_counter()
    steps, ended = np.zeros(config.num_envs, int), np.zeros(config.num_envs, bool)
    try:
        say("update  episodes  mean steps  full in a row     loss  env steps")
        while env_steps < config.steps and full < config.solved_after:
            for _ in range(config.num_steps):
                action, *outputs = agent.sample(state)
                state, reward, terminated, truncated, _ = env.step(action)
                valid = ~ended  # after the end of an episode, a step only resets the environment
                storage.insert(*outputs, np.float32(reward), terminated, truncated, valid)
                ended = terminated | truncated
                steps, env_steps = steps + valid, env_steps + int(valid.sum())
                lengths += steps[ended].tolist()
                full = 0 if terminated.any() else full + int(truncated.sum())
                steps[ended] = 0
            rollout = storage.take()
            loss = agent.learn(rollout, state) if full == 0 else np.nan
            update, mean = len(history) + 1, float(np.mean(lengths[-config.num_envs :] or [np.nan]))
            history.append(Update(update, len(lengths), mean, full, loss, env_steps))
            if update % 50 == 0 or full >= config.solved_after:
                say("{:6} {:9} {:11.1f} {:14} {:8.4f} {:10,}".format(*history[-1]))
        agent.verdict = "Solved" if full >= config.solved_after else "Not solved"
    except KeyboardInterrupt:
        agent.verdict = "Interrupted"
    torch.set_num_threads(threads)
    agent.seconds = time.perf_counter() - start
    agent.env_steps, agent.episodes = env_steps, len(lengths)
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
    axes.plot([row.env_steps for row in history], [row.mean_steps for row in history])
    axes.set(title=SCRIPT, xlabel="environment steps", ylabel="mean steps of the last episodes")
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
    episodes, env_steps, seconds = agent.episodes, agent.env_steps, agent.seconds
    say(f"{agent.verdict} after {episodes} episodes, {env_steps:,} steps, {seconds:.1f} s.")
    ten = next((f"met in update {r.update}" for r in history if r.full_in_a_row >= 10), "not met")
    say(f"Ten full episodes in a row: {ten}.")
    steps = evaluate(agent, config, 2**32 + config.seed)  # of episodes that no training has seen
    test = {name: float(getattr(steps, name)()) for name in ("mean", "std", "min", "max")}
    say("Greedy, 100 new episodes: mean {mean:.1f}, {min:.0f} to {max:.0f} steps.".format(**test))
    solved, interrupted = agent.verdict == "Solved", agent.verdict == "Interrupted"
    summary = {"script": SCRIPT, "config": asdict(config), "solved": solved, "episodes": episodes}
    summary |= {"env_steps": env_steps, "train_seconds": seconds, "interrupted": interrupted}
    summary |= {"steps_per_second": env_steps / seconds, "evaluation": {"episodes": 100, **test}}
    files = {"weights.pth": partial(torch.save, agent.network.state_dict())}
    files["history.csv"] = lambda path: np.savetxt(path, [Update._fields, *history], "%s", ",")
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
