"""Two trainings of per_cartpole.py that diverge, taken up again: results/divergence.csv.

    python benchmarks/divergence.py [--jobs 2]

Trains on a seed that diverges, up to its 800th update. From there it goes on 8 times, with other random numbers and new
episodes, for 2,000 more updates or until it is solved: as it is, and with one thing changed. No true value is above 0 (the
only reward is -1 for a fall), so the largest target of a batch, as the mean of 20 updates, says how far the values are off.
A line for each: the largest of these means. What is there already is not run again.
"""

import argparse
import contextlib
import io
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from seeds import FOLDER, read, run

import per_cartpole as script

SEEDS, START, UPDATES, WINDOW, RUNS = (1119, 1162), 800, 2000, 20, 8


class Enough(Exception):
    """Carries the agent out of a training."""


class StoppedAgent(script.Agent):
    """Stops its training at update START."""

    updates = 0

    def learn(self):
        if self.updates == START:
            raise Enough(self)
        self.updates += 1
        return super().learn()


class WatchedAgent(script.Agent):
    """Notes the largest target of each batch."""

    def td_target(self, batch):
        target = super().td_target(batch)
        self.targets.append(target.max().item())
        return target


class ClippedMemory(script.ReplayMemory):
    """TD errors above 1 count as 1."""

    def update(self, index, td_error):
        super().update(index, td_error.clip(-1, 1))


class UnweightedMemory(script.ReplayMemory):
    """Importance weights of 1."""

    def weights(self, index):
        return np.ones(len(index))


VARIANTS = {  # settings, class of the memory, Adam's settings
    "as it is": ({}, script.ReplayMemory, {}),
    "uniform replay": ({"alpha": 0.0}, script.ReplayMemory, {}),
    "no importance weights": ({}, UnweightedMemory, {}),
    "beta 1 from the start": ({"beta": 1.0}, script.ReplayMemory, {}),
    "TD errors clipped to 1": ({}, ClippedMemory, {}),
    "tau 0.02": ({"tau": 0.02}, script.ReplayMemory, {}),
    "learning rate 1e-3": ({}, script.ReplayMemory, {"lr": 1e-3}),
    "eps of Adam 1e-4": ({}, script.ReplayMemory, {"eps": 1e-4}),
}


def stopped(seed):
    """The agent of a training at its update START; ValueError if it was solved before."""
    with contextlib.redirect_stdout(io.StringIO()), patch.object(script, "Agent", StoppedAgent):
        try:
            script.train(script.Config(seed=seed))
        except Enough as stop:
            return stop.args[0]
    raise ValueError(f"seed {seed} is solved before update {START}")


def change(agent, variant):
    """Changes one thing in an agent, and empties its notes."""
    settings, memory, adam = VARIANTS[variant]
    agent.__class__, agent.memory.__class__, agent.targets = WatchedAgent, memory, []
    agent.config = agent.memory.config = script.Config(**settings)
    agent.optimizer.param_groups[0].update(adam)
    if agent.config.alpha == 0:
        agent.memory.tree[np.arange(len(agent.memory))] = agent.memory.max_priority = 1.0


def go_on(agent, seed):
    """Goes on as train() does, in new episodes; returns whether the task was solved."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    agent.rng, full = np.random.default_rng([seed, 2]), 0
    env = gym.make("CartPole-v1", max_episode_steps=200, sutton_barto_reward=True)
    env.reset(seed=seed)
    while len(agent.targets) < UPDATES and full < agent.config.solved_after:
        (state, _), done = env.reset(), False
        while not done:
            action = agent.act(state, 0.0 if full else agent.config.epsilon)
            next_state, reward, terminated, truncated, _ = env.step(action)
            agent.memory.push(state, action, reward, next_state, terminated)
            state, done = next_state, terminated or truncated
            if full == 0:
                agent.learn()
        full = 0 if terminated else full + 1
    return full >= agent.config.solved_after


def work(task):
    """Goes on from one seed's agent, with one variant, on one other seed."""
    seed, variant, again = task
    agent = stopped(seed)
    change(agent, variant)
    solved = go_on(agent, 7000 + again)
    targets = np.array(agent.targets[: len(agent.targets) // WINDOW * WINDOW])
    windows = targets.reshape(-1, WINDOW).mean(1)
    row = {"seed": seed, "variant": variant, "again": again, "solved": int(solved)}
    return {FOLDER / "divergence.csv": row | {"largest": round(windows.max(), 4)}}


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args()
    table = read("divergence")
    columns = [c for c in ("seed", "variant", "again") if c in table]
    done = set(table[columns].itertuples(index=False, name=None))
    tasks = [(s, v, k) for k in range(RUNS) for s in SEEDS for v in VARIANTS]
    run([task for task in tasks if task not in done], work, options.jobs)


if __name__ == "__main__":
    main()
