"""The figures that report.py draws from results/."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from seeds import SCRIPTS

COLOURS = dict(zip(SCRIPTS, plt.cm.tab10.colors, strict=False))


def band(axes, x, values, label, colour):
    """Draws the mean of values (seeds, points) over the seeds, and its 95% confidence interval."""
    mean, error = values.mean(0), 1.96 * values.std(0, ddof=1) / len(values) ** 0.5
    axes.plot(x, mean, label=label, color=colour)
    axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)


def learning_curves(curves, rows):
    """All five scripts, by episodes and by environment steps; a solved seed counts with its evaluation from then on."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    evaluation = {(row["program"], row["seed"]): row["evaluation_mean"] for row in rows}
    latest = {
        (row["program"], row["seed"]): row for row in curves
    }  # a run that was cut short may be there twice
    for name in SCRIPTS:
        program = f"{name}_cartpole"
        episodes, grid = np.arange(150), np.geomspace(100, 200_000, 300)
        by_episode, by_step = [], []
        for key in sorted(key for key in evaluation if key[0] == program):
            steps, env_steps = (
                np.array(str(latest[key][column]).split(), float)
                for column in ("steps", "env_steps")
            )
            steps = np.append(steps, evaluation[key])
            by_episode.append(steps[np.minimum(episodes, len(steps) - 1)])
            by_step.append(
                steps[np.searchsorted(env_steps, grid)]
            )  # of the episode that this step is in
        band(left, episodes + 1, np.array(by_episode), f"{program}.py", COLOURS[name])
        band(right, grid, np.array(by_step), f"{program}.py", COLOURS[name])
    left.set(xlabel="episode (A2C: of the first of 32 environments)", ylabel="steps of the episode")
    right.set(xlabel="environment steps (A2C: of all 32)", xscale="log")
    left.legend(loc="lower right")
    figure.suptitle(f"Mean of {len(by_step)} seeds and its 95% confidence interval")
    return figure


def ablation(rows):
    """Environment steps until solved: a dot for each seed of each variant, and the median."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    names = list(
        dict.fromkeys(
            (row["program"], row["share"]) for row in sorted(rows, key=lambda row: -row["share"])
        )
    )
    jitter = np.random.default_rng(0)
    for y, (program, share) in enumerate(names):
        chosen = [row for row in rows if (row["program"], row["share"]) == (program, share)]
        steps, solved = (
            np.array([row[column] for row in chosen]) for column in ("env_steps", "solved")
        )
        height = y + jitter.uniform(-0.25, 0.25, len(steps))
        axes.scatter(steps, height, s=8, c=np.where(solved == 1, "tab:blue", "tab:red"))
        axes.plot([np.median(steps)] * 2, [y - 0.35, y + 0.35], color="black")
    labels = [f"{program}{'' if share == 1 else ', quarter rate'}" for program, share in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="environment steps until solved (red: not within 500 episodes)")
    return figure


def precision(histories):
    """Breakout's mean score along the training, for each {name: lines of its history}."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, rows in histories.items():
        axes.plot(*([row[column] for row in rows] for column in ("env_steps", "mean")), label=name)
    axes.set(xlabel="environment steps", ylabel="mean score of the last 100 games")
    axes.legend(loc="upper left")
    return figure
