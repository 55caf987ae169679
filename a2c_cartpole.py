# /// script
# requires-python = ">=3.11"
# dependencies = ["gymnasium[classic-control]==1.4.0", "matplotlib==3.11.2", "numpy==2.4.6", "torch==2.13.0"]
# ///

# %% [markdown]
"""
# A2C on CartPole

An actor learns a policy pi(a | s), a critic the value V(s) of being in state s.
Many environments are played at once, a few steps each; then every action is
made likelier by how much better it turned out than the critic expected.

    R_t = r_t + gamma * r_t+1 + ... + gamma^k * V(s_t+k)     (k: up to 5 steps)
    loss = -log pi(a_t | s_t) * (R_t - V(s_t))               (the actor)
           + c_v * (R_t - V(s_t))^2                          (the critic)
           - c_e * entropy of pi(. | s_t)                    (keeps exploring)

Paper: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning",
arXiv 1602.01783, algorithm S3, with environments in step instead of threads.
Chapter: A2C, 6.5 in the book of Ogawa (2018), whose code is "the article"
below.

Run: python a2c_cartpole.py [--seed 3] [--output-dir DIR] ...
Expect: solved after 23 episodes of environment 0 and 1.0 s (medians; 100 of 100
seeds), then a greedy mean of 200 steps (worst seed 199.8).
"""

# %% Imports
import argparse
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
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

SCRIPT = "a2c_cartpole"


# %% Config
def setting(default, low, high, reason):
    """One field of Config: its default, the range it may have, and the reason that --help shows."""
    return field(default=default, metadata={"low": low, "high": high, "reason": reason})


@dataclass
class Config:
    """Every hyperparameter; each is a command-line flag too. Raises ValueError where one makes no sense."""

    seed: int = setting(0, 0, 2**32 - 1, "same seed, same machine: same history")
    episodes: int = setting(500, 1, 10**6, "episodes of environment 0 after which to give up")
    max_steps: int = setting(200, 1, 10**5, "limit of an episode; CartPole-v1's own is 500")
    num_envs: int = setting(32, 1, 10**4, "environments played at once, as in the article")
    num_steps: int = setting(5, 1, 10**4, "steps of each environment from update to update, as in the article")
    gamma: float = setting(0.99, 0, 1, "discount per step")
    learning_rate: float = setting(5e-3, 0, 1, "Adam's; half of the article's, for fewer setbacks")
    hidden_size: int = setting(64, 1, 10**4, "units in each of two layers; the article's 32 need more episodes")
    value_coef: float = setting(0.5, 0, 10**3, "weight of the critic's loss, as in the article")
    entropy_coef: float = setting(3e-3, 0, 10**3, "weight of the entropy; the article's 0.01 keeps the pole shaking")
    max_grad_norm: float = setting(0.5, 0, 10**3, "length to which a longer gradient is clipped, as in the article")

    def __post_init__(self):
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if isinstance(value, bool) or not isinstance(value, (int, f.type)) or not low <= value <= high:
                raise ValueError(f"{f.name} must be {f.type.__name__} between {low} and {high}, not {value!r}")

    @property
    def stood(self):
        """Steps from which an episode counts as stood: the article's 195 of 200, in proportion."""
        return 0.975 * self.max_steps


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

    def take(self):
        """Returns all steps as a Rollout and forgets them."""
        steps, self.steps = self.steps, []
        return Rollout(*(torch.stack(column) for column in zip(*steps, strict=True)))


# %% Network
class ActorCritic(nn.Module):
    """Maps states (..., state_size) to logits (..., num_actions), the policy's, and values (...)."""

    def __init__(self, state_size, hidden_size, num_actions):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(state_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size), nn.ReLU()
        )
        self.actor = nn.Linear(hidden_size, num_actions)
        self.critic = nn.Linear(hidden_size, 1)

    def forward(self, state):
        hidden = self.hidden(state)
        return self.actor(hidden), self.critic(hidden).squeeze(-1)


# %% Agent
class Agent:
    """Draws actions from its policy, and trains policy and critic on what came of them."""

    def __init__(self, config, state_size, num_actions):
        self.config = config
        self.rng = np.random.default_rng([config.seed, 2])  # not [seed] alone: that is the environment's stream
        self.storage = RolloutStorage()
        self.network = ActorCritic(state_size, config.hidden_size, num_actions)
        # eps above Adam's 1e-8: else it blows tiny gradients, of a policy that works, up to whole steps away from it
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)

    def sample(self, state):
        """Draws an action in each state (N, state_size); returns logits (N, num_actions), values (N,), actions (N,)."""
        logits, value = self.network(torch.from_numpy(state))
        action = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(1)
        return logits, value, action

    @torch.no_grad()
    def act(self, state):
        """Returns the likeliest action in each state (..., state_size)."""
        return self.network(torch.from_numpy(state))[0].argmax(-1).numpy()

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
        rollout = self.storage.take()
        with torch.no_grad():
            _, next_value = self.network(torch.from_numpy(next_state))
        advantage = self.returns(rollout, next_value) - rollout.value  # (T, N)
        log_probs = rollout.logits.log_softmax(-1)  # (T, N, num_actions)
        log_prob = log_probs.gather(-1, rollout.action.unsqueeze(-1)).squeeze(-1)  # (T, N)
        actor_loss = -log_prob * advantage.detach()
        entropy = -(log_probs.exp() * log_probs).sum(-1)  # (T, N)
        loss = actor_loss + self.config.value_coef * advantage.square() - self.config.entropy_coef * entropy
        loss = (loss * rollout.valid).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.item()


# %% Train
class Row(NamedTuple):
    """One episode of environment 0: a line of history.csv."""

    episode: int  # from 1
    steps: int
    mean_of_10: float  # steps of the last ten episodes
    standing: int  # environments whose latest episode stood
    loss: float  # mean over the episode's updates, nan where there was none
    env_steps: int  # of all environments since the start
    checks: int  # by the greedy policy since the start; their steps are not in env_steps
    solved: bool


def train(config, stop=lambda: False):
    """Trains until solved, until `config.episodes` are over or until stop() is true; returns (agent, list of Row).

    Solved: when an episode of environment 0 ends, the latest episode of every environment has stood, and so do 100
    fresh ones of the greedy policy, the check.
    """
    torch.set_num_threads(1)  # so small a network gains nothing from a second thread, and crawls on a busy machine
    torch.manual_seed(config.seed)
    # -1 for a fall, else 0: the article's +1 for reaching the limit made sense while that counted as an end
    env = gym.make_vec("CartPole-v1", config.num_envs, max_episode_steps=config.max_steps, sutton_barto_reward=True)
    state, _ = env.reset(seed=config.seed)
    agent = Agent(config, env.single_observation_space.shape[0], env.single_action_space.n)
    steps, latest = np.zeros((2, config.num_envs), int)  # of the running and of the last whole episode
    ended = np.zeros(config.num_envs, bool)
    history, losses, env_steps, checks, solved, start = [], [], 0, 0, False, time.perf_counter()
    print("episode  steps  mean of 10  standing     loss  steps/s")
    while len(history) < config.episodes and not solved and not stop():
        logits, value, action = agent.sample(state)
        state, reward, terminated, truncated, _ = env.step(action.numpy())
        valid = ~ended  # an environment that ended in the step before has only started over in this one
        agent.storage.insert(logits, value, action, np.float32(reward), terminated, truncated, valid)
        if len(agent.storage) == config.num_steps:
            losses.append(agent.learn(state))
        ended = terminated | truncated
        steps, env_steps = steps + valid, env_steps + int(valid.sum())
        latest = np.where(ended, steps, latest)
        if ended[0]:
            episode, step, standing = len(history) + 1, int(steps[0]), int((latest >= config.stood).sum())
            if standing == config.num_envs:
                solved = bool(evaluate(agent, config, seed=agent.rng.integers(2**32)).min() >= config.stood)
                checks += 1
            last = [row.steps for row in history[-9:]] + [step]
            mean, loss = np.mean(last), np.mean(losses or [np.nan])
            history.append(Row(episode, step, mean, standing, loss, env_steps, checks, solved))
            losses = []
            if episode % 10 == 0 or solved or episode == config.episodes:
                speed = env_steps / (time.perf_counter() - start)
                print(f"{episode:7}  {step:5}  {mean:10.1f}  {standing:8}  {loss:7.4f}  {speed:7,.0f}", flush=True)
        steps[ended] = 0
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
        save(output_dir / "weights.pth", lambda file: torch.save(agent.network.state_dict(), file))
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
