"""The figures that report.py draws from results/."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator
from seeds import SCRIPTS
from tables import programs

SHIPPED = "alpha_0.95_seed_0"  # the run of A2C on Breakout whose agent is in weights/


def learning_curves(seeds, curves):
    """Steps of an episode by environment steps; a solved seed then counts with its evaluation."""
    axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
    evaluation = seeds.set_index(["program", "seed"]).evaluation_mean
    grid = np.geomspace(100, 100_000, 300)
    for name, colour in zip(SCRIPTS, plt.cm.tab10.colors, strict=False):
        lines = []
        for _, row in curves[curves.program == f"{name}_cartpole"].iterrows():
            steps, env_steps = (np.array(row[c].split(), float) for c in ("steps", "env_steps"))
            steps = np.append(steps, evaluation[row.program, row.seed])
            lines.append(steps[np.searchsorted(env_steps, grid)])  # of the episode a step is in
        mean, error = np.nanmean(lines, 0), 1.96 * np.nanstd(lines, 0) / len(lines) ** 0.5
        axes.plot(grid, mean, label=f"{name}_cartpole.py", color=colour)
        axes.fill_between(grid, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
    axes.set(xlabel="environment steps", ylabel="steps of the episode", xscale="log")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_title(f"CartPole: mean of {len(lines)} seeds and its 95% confidence interval")
    axes.legend()
    return axes.figure


def parts(rows):
    """Steps until solved with one part left out or changed: a dot for each seed, and the median.

    Unsolved seeds are crosses at the right edge, whatever steps they had: they count as slowest.
    """
    groups = programs(rows)
    size = 8, max(4.5, 0.35 * len(groups))  # inches
    axes = Figure(figsize=size, layout="constrained").subplots()
    jitter = np.random.default_rng(0)
    edge = 1.6 * max(group.env_steps.max() for group in groups.values())
    for y, group in enumerate(groups.values()):
        height = y + jitter.uniform(-0.25, 0.25, len(group))
        solved = group.solved == 1
        steps = group.env_steps.where(solved, edge)
        axes.scatter(steps[solved], height[solved], s=8, color="tab:blue")
        axes.scatter(
            steps[~solved], height[~solved], s=16, color="tab:red", marker="x", linewidth=1
        )
        axes.plot([steps.median()] * 2, [y - 0.35, y + 0.35], color="black")
    axes.axvspan(edge / 1.25, edge * 1.25, color="tab:red", alpha=0.08, linewidth=0)
    above = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    axes.text(edge, 1.005, "not solved", color="tab:red", **above)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="environment steps until solved", xlim=(None, edge * 1.25))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.margins(y=0.02)
    return axes.figure


def a2c_games(games):
    """Scores of whole games of A2C on Breakout, those of the agent in weights/, and the walls."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    games = games[games.run.str.startswith(SHIPPED)]
    runs = {run.replace("_", " "): rows.score for run, rows in games.groupby("run", sort=False)}
    axes.hist(runs.values(), np.arange(0, 865, 36), label=list(runs))
    axes.margins(y=0.15)
    for wall, name in (432, "the wall"), (864, "the second wall, the game's end"):
        axes.axvline(wall, color="0.3", linestyle="--", linewidth=1)
        axes.text(wall - 5, axes.get_ylim()[1] * 0.95, name, ha="right", va="top")
    axes.set(xlabel="score of a game", ylabel="games")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def a2c_breakout(history):
    """A2C's trainings on Breakout with the defaults: a line for each seed."""
    axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
    for run, rows in history.groupby("run", sort=False):
        axes.plot(rows.env_steps, rows["mean"], linewidth=1, label=run.replace("_", " "))
    axes.axhline(432, color="0.3", linestyle="--", linewidth=1)
    axes.text(0, 436, "the wall")
    axes.set(xlabel="environment steps", ylabel="mean score of the last 100 games")
    axes.set_title("A2C on Breakout")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend(loc="lower right")
    return axes.figure


def defaults(rates):
    """The training by the defaults, whose agent is in weights/."""
    return rates[rates.arm == "defaults"]


def per_breakout(rates):
    """A shipped agent's learning curve."""
    history = defaults(rates)
    axes = Figure(figsize=(8, 4), layout="constrained").subplots()
    steps = history.env_steps
    low, high = history["min"], history["max"]
    axes.fill_between(steps, low, high, alpha=0.2, linewidth=0, label="lowest to highest")
    axes.plot(steps, history["mean"], label="mean of the last 100 games")
    axes.set(xlabel="environment steps", ylabel="score of a game")
    axes.set_title("Prioritized replay on Breakout")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend(loc="upper left")
    return axes.figure
