"""Trains scripts on a few seeds, side by side, and draws one picture of them: PNG and SVG.

    python benchmarks/compare.py dqn_cartpole ddqn_cartpole [--seeds 5] [--output-dir runs/compare]

Above: the steps of an episode along the training, a line a seed, the median thick, solved marked.
Below, for scripts with a Q network: what it claims at the start of an episode, and the return that
follows when it plays greedily. What is done already is not run again: stop it and start it as you like.
"""

import argparse
import contextlib
import importlib
import io
import signal
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from seeds import ROOT
from tqdm import tqdm

EVERY = 250  # updates between two looks at the values
SCRIPTS = [path.stem for path in sorted(ROOT.glob("*_cartpole.py"))]


def look(agent, seed):
    """Play 20 greedy episodes; return the means of max Q at their starts and of their returns."""
    env = gym.make_vec("CartPole-v1", 20, max_episode_steps=200, sutton_barto_reward=True)
    state, _ = env.reset(seed=seed)
    claimed = agent.q_network(torch.from_numpy(state)).max(1).values.mean().item()
    returns = np.zeros(20)
    running = np.ones(20, bool)
    discount = 1.0
    while running.any():
        state, reward, terminated, truncated, _ = env.step(agent.greedy(state))
        returns += discount * np.where(running, reward, 0)
        discount *= agent.config.gamma
        running &= ~(terminated | truncated)
    return claimed, returns.mean()


def watched(agent_class, rows, seed):
    """The agent class of a Q script, looking at its values every EVERY updates."""

    class Watched(agent_class):
        updates = 0

        def learn(self):
            loss = super().learn()
            self.updates += 1
            if self.updates % EVERY == 0:
                rows.append((self.memory.pushed, *look(self, seed)))
            return loss

    return Watched


def train(name, seed):
    """Train a script; return a table of its episodes and one of its values."""
    script = importlib.import_module(name)
    values = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if hasattr(script, "QNetwork"):
            agent_class = watched(script.Agent, values, seed)
            stack.enter_context(mock.patch.object(script, "Agent", agent_class))
        agent, history = script.train(script.Config(seed=seed))
    last = history[-1]
    solved = getattr(last, "passed", False) or (
        getattr(last, "full_tests", 0) == agent.config.solved_after
    )
    curve = pd.DataFrame(history)
    curve["steps"] = curve.get("steps", curve.get("mean_steps"))
    curve = curve[["env_steps", "steps"]].assign(solved=solved)
    return curve, pd.DataFrame(values, columns=["env_steps", "claimed", "return"])


def bands(axes, tables, column, **style):
    """Draw a line a seed, thin, and their median, thick."""
    last = max(table.env_steps.max() for table in tables)
    grid = np.linspace(0, last, 100)
    # One that has ended keeps its last value: otherwise only the slow ones would be left
    lines = [np.interp(grid, table.env_steps, table[column]) for table in tables]
    for line in lines:
        axes.plot(grid, line, linewidth=0.7, alpha=0.4, color=style["color"])
    axes.plot(grid, np.median(lines, axis=0), linewidth=2.5, **style)


def draw(curves, values):
    """One figure of {script: tables of its seeds}."""
    figure = Figure(figsize=(9, 7 if values else 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(2 if values else 1, 1, sharex=True))
    for i, (name, tables) in enumerate(curves.items()):
        smooth = [t.assign(steps=t.steps.rolling(5, min_periods=1).mean()) for t in tables]
        bands(axes[0], smooth, "steps", color=f"C{i}", label=name)
        ends = [t.env_steps.iloc[-1] for t in tables if t.solved.iloc[-1]]
        axes[0].plot(ends, [205 + 3 * i] * len(ends), "|", color=f"C{i}", markersize=10)
        if values.get(name):
            bands(axes[1], values[name], "claimed", color=f"C{i}", label=f"{name}: claimed")
            style = {"color": f"C{i}", "linestyle": ":", "label": f"{name}: return"}
            bands(axes[1], values[name], "return", **style)
    seeds = len(next(iter(curves.values())))
    axes[0].set(title=f"CartPole, {seeds} seeds (|: solved)", ylabel="steps of an episode")
    axes[0].legend(frameon=False, loc="lower right")
    if values:
        axes[1].set(ylabel="value of the start", title="What Q claims, and the return that follows")
        axes[1].legend(frameon=False, ncols=2, fontsize="small")
    axes[-1].set_xlabel("environment steps")
    for part in axes:
        part.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("scripts", nargs="+", choices=SCRIPTS, metavar="script")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default: 5)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/compare"))
    options = parser.parse_args()
    # train() of a script would stop at Ctrl-C as if it were at its end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    curves, values = {}, {}
    for name in tqdm(options.scripts):
        tables = []
        for seed in tqdm(range(options.seeds), desc=name, leave=False):
            paths = [options.output_dir / f"{name}_{seed}_{x}.csv" for x in ("values", "curve")]
            if not paths[1].exists():
                curve, value = train(name, seed)
                value.to_csv(paths[0], index=False)
                curve.to_csv(paths[1], index=False)
            tables.append([pd.read_csv(path) for path in paths])
        curves[name] = [curve for _, curve in tables]
        if all(len(value) for value, _ in tables):
            values[name] = [value for value, _ in tables]
    figure = draw(curves, values)
    for suffix in ("png", "svg"):
        path = options.output_dir / f"{'_'.join(options.scripts)}.{suffix}"
        figure.savefig(path, dpi=150)
        print(path)


if __name__ == "__main__":
    main()
