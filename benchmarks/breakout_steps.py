"""How far does one update move A2C's policy on Breakout, by RMSprop's alpha? results/breakout_alpha_steps.csv.

    python benchmarks/breakout_steps.py CHECKPOINT [--alpha 0.99 0.95 0.9] [--seed 0] [--updates 600]

Goes on from a checkpoint of a2c_breakout.py, in new games of that seed, once with each alpha. A line an update: the KL
divergence of the policy after it from the policy before it, mean over 96 states, half of them of new games, half of
games that ran for 650 steps and more. What is there of the same steps, alpha and seed is replaced.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from breakout_games import keep
from tqdm import trange

import a2c_breakout as script


@torch.no_grad()
def probes(agent, games):
    """Plays; returns states (96, 4, 84, 84) of new games, and of games that ran for long."""
    states = []
    for wait in (0, 500):
        for _ in range(wait):
            games.step(agent.sample(games.state)[0])
        for _ in range(6):
            for _ in range(25):
                games.step(agent.sample(games.state)[0])
            states.append(games.state[:8].copy())
    return torch.from_numpy(np.concatenate(states))


@torch.no_grad()
def log_policy(agent, states):
    """Returns the logarithms of the policy's probabilities, (N, num_actions)."""
    return torch.log_softmax(agent.network(states)[0], -1)


def follow(checkpoint, alpha, seed, updates):
    """Goes on with an alpha; returns the run's name and a table with a line an update."""
    config, agent, progress = script.load_checkpoint(checkpoint, {})
    group = agent.optimizer.param_groups[0]
    group["alpha"] = alpha
    group["lr"] = (1 - progress.env_steps / config.steps) * config.learning_rate
    games = script.Games(config.num_envs, seed, config.max_frames, config.fire)
    states = probes(agent, games)
    before = log_policy(agent, states)
    rows = []
    for update in trange(1, updates + 1, desc=f"alpha {alpha}"):
        rollout = script.run_steps(agent, games)
        agent.learn(rollout, games.state)
        after = log_policy(agent, states)
        divergence = (before.exp() * (before - after)).sum(-1).mean().item()
        rows.append({"update": update, "kl": f"{divergence:.3g}"})
        before = after
    run = f"{progress.env_steps / 1e6:.2f} million steps, alpha {alpha}, seed {seed}"
    return run, pd.DataFrame(rows)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.99, 0.95, 0.9])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for alpha in options.alpha:
        run, table = follow(options.checkpoint, alpha, options.seed, options.updates)
        keep("breakout_alpha_steps", run, table)


if __name__ == "__main__":
    main()
